"""How many connections a socket takes: libzmq's events in; newcomers held off, peers cut off. A thread for each socket.

libzmq accepts without bound, and ends the process when no descriptor is left. So while a socket has as many connections
as it may, nobody reaches its listener: a local socket's path is renamed, and a TCP listener drops what arrives. Who is
connected already notices nothing. A connection that does not complete its handshake in time is closed by libzmq.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import resource
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

import zmq

from edged import clock
from edged.bus.subscriptions import Peer
from edged.paths import full
from edged.worker import Worker

Socket = zmq.Socket[bytes]

RESERVED: Final = 512
"""Descriptors for everything but connections: cameras (about six each), engines, sensors, log files, and what is
accepted between the moment of the last connection allowed and libzmq's end of listening."""
OPEN_FILES: Final = 65536
"""What we raise our own limit to where the hard limit allows it."""
BACKLOG: Final = 64
BURST: Final = 32
BURST_PAUSE_NS: Final = 20 * clock.NS_PER_MS
"""After so many connections at once nobody is let in for a moment: a program that connects without end must not be
faster than this thread."""
BANNED_NS: Final = 10 * clock.NS_PER_S
"""Who was cut off may not come back for so long: what it had sent costs more to read than a connection to make."""
MAX_BANNED: Final = 1000
DISCARDED_PIECES: Final = 256
PLENTY: Final = 4096
"""libzmq is never further ahead of this thread than its thousand events, so with so many descriptors it cannot use them
up. With fewer its thread is made to yield to ours where processors are scarce, which delays messages a little."""
YIELDING: Final = 15
HANDSHAKE_MS: Final = 3000
EVENT_WAIT_MS: Final = 500
EVENTS: Final = zmq.EVENT_LISTENING | zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED
LOG_EVERY_NS: Final = 60 * clock.NS_PER_S
STOP_TIMEOUT_S: Final = 5.0

_EVENT: Final = struct.Struct("=HI")
"""An event and its value, the first part of each message of a monitor. pyzmq's own reader of them loads asyncio."""
_CREDENTIALS: Final = struct.Struct("3i")
_DROP: Final = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0), 8)
"""A classic packet filter of one instruction: return 0, keep no byte of it."""
_DROP_ALL: Final = struct.pack("HP", 1, ctypes.addressof(_DROP))
_ATTACH_FILTER: Final = 26
_DETACH_FILTER: Final = 27

log = logging.getLogger(__name__)


def raise_open_files_limit() -> int:
    """Raise the soft limit of open files towards the hard one; the limit then in force. Call it before any thread."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return soft


def allowed(wanted: int) -> int:
    """How many connections of `wanted` a socket may have under the limit of open files: two sockets share what is not
    reserved."""
    return max(16, min(wanted, (_soft_limit() - RESERVED) // 2))


def _soft_limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return OPEN_FILES if soft == resource.RLIM_INFINITY else soft


def _let_io_threads_yield() -> None:
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            if (task / "comm").read_text().startswith("ZMQbg/IO"):
                os.setpriority(os.PRIO_PROCESS, int(task.name), YIELDING)


class ConnectionLimiter:
    """At most about `limit` connections on one socket; those accepted before an event arrives here come on top."""

    def __init__(
        self, watched: Socket, endpoint: str, limit: int, gone: Callable[[int], None] = lambda peer: None
    ) -> None:
        """`watched` is not bound yet. `gone` gets the descriptor of each connection that ends."""
        self._watched, self._endpoint, self._limit, self._gone = watched, endpoint, limit, gone
        self._path = Path(endpoint.removeprefix("ipc://")) if endpoint.startswith("ipc://") else None
        self._listener = -1
        self._peers: set[int] = set()
        self._banned: dict[str, int] = {}  # who -> until when
        self._paused = self._cut_all = False
        self._paused_ns = self._accepted = 0
        self._logged_ns = -LOG_EVERY_NS
        self._cut = 0
        watched.backlog, watched.handshake_ivl = BACKLOG, HANDSHAKE_MS
        events = f"inproc://connections-{id(self)}"
        watched.monitor(events, EVENTS)
        self._events = watched.context.socket(zmq.PAIR)
        self._events.linger = 0
        self._events.rcvhwm = 1  # with libzmq's own 1000 that is how far it can be ahead of us
        self._events.connect(events)
        self.worker = Worker("connections", self._turn)
        self.worker.start()

    def close(self) -> None:
        """Before the watched socket is closed; a second time it does nothing."""
        if self._watched.closed:
            return
        self._watched.disable_monitor()  # while we still read: libzmq waits for room for its events
        if self.worker.stop(STOP_TIMEOUT_S):
            self._events.close(linger=0)
        if self._path is not None:
            with contextlib.suppress(OSError):  # somebody put a directory there
                full(self._path).unlink(missing_ok=True)

    def cut_all(self) -> None:
        """Close every connection there is now; who may come back does so by itself. Any thread."""
        self._cut_all = True

    def is_banned(self, address: str) -> bool:
        """Whether who is at this address, as libzmq writes it, was cut off lately. Any thread."""
        return self._banned.get(_named(address), 0) > clock.mono_ns()

    def cut(self, peer: Peer, why: str) -> None:
        """Close the connection of a message, see `peer_of`. Any thread."""
        descriptor, who = peer
        if not self._shut(descriptor, who):
            return
        self._cut += 1
        now_ns = clock.mono_ns()
        if len(self._banned) >= MAX_BANNED:
            self._banned.clear()
        self._banned[who] = now_ns + BANNED_NS
        if now_ns - self._logged_ns >= LOG_EVERY_NS:
            self._logged_ns = now_ns
            log.warning("%s was cut off from %s: %s (%d times so far)", who, self._endpoint, why, self._cut)

    def _turn(self) -> None:
        self._events.poll(EVENT_WAIT_MS)
        self._accepted = 0
        while True:
            try:
                parts = self._events.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                break
            self._count(*_EVENT.unpack(parts[0]))
        if self._cut_all:
            self._cut_all = False
            for descriptor in self._peers:
                self._shut(descriptor)
        may_resume = len(self._peers) < self._limit and clock.mono_ns() - self._paused_ns >= BURST_PAUSE_NS
        if self._paused and may_resume:
            self._resume()

    def _count(self, event: int, descriptor: int) -> None:
        if event == zmq.EVENT_LISTENING:
            self._listener = descriptor
            if _soft_limit() < PLENTY:
                _let_io_threads_yield()
        elif event == zmq.EVENT_ACCEPTED:
            self._peers.add(descriptor)
            self._accepted += 1
            full_now = len(self._peers) >= self._limit
            if (full_now or self._accepted >= BURST) and not self._paused:
                self._pause(full_now)
        elif event == zmq.EVENT_DISCONNECTED:
            self._peers.discard(descriptor)
            self._gone(descriptor)

    def _pause(self, full_now: bool) -> None:
        if self._path is not None:
            with contextlib.suppress(FileNotFoundError):  # somebody removed it: nobody can come anyway
                self._path.rename(full(self._path))
        else:
            self._filter(_ATTACH_FILTER, _DROP_ALL)
        self._paused = True
        self._paused_ns = now_ns = clock.mono_ns()
        if full_now and now_ns - self._logged_ns >= LOG_EVERY_NS:
            self._logged_ns = now_ns
            text = "%s has %d connections, as many as it may: others wait until one of them leaves"
            log.warning(text, self._endpoint, self._limit)

    def _resume(self) -> None:
        if self._path is not None:
            with contextlib.suppress(FileNotFoundError):
                full(self._path).rename(self._path)
        else:
            self._filter(_DETACH_FILTER, bytes(4))
        self._paused = False

    def _filter(self, option: int, value: bytes) -> None:
        with socket.socket(fileno=os.dup(self._listener)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, option, value)

    def _shut(self, descriptor: int, who: str | None = None) -> bool:
        """End the connection if it is one of this socket (still), and of `who` where that is given."""
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as peer:
            if self._is_ours(peer) and who in (None, _who(peer)):
                peer.shutdown(socket.SHUT_RDWR)  # libzmq finds the end of the stream, and closes
                _discard(peer)
                return True
        return False

    def _is_ours(self, peer: socket.socket) -> bool:
        """A descriptor that libzmq has closed may be anything by now."""
        with socket.socket(fileno=os.dup(self._listener)) as listener:
            ours, its = listener.getsockname(), peer.getsockname()
        return bool(ours == its if isinstance(ours, str) else ours[1] == its[1])  # the address may be "any"


def peer_of(frame: zmq.Frame) -> Peer | None:
    """Whose message it is; None if that is not known, as of one that libzmq makes up for a peer that has left."""
    try:
        descriptor, address = int(frame.get("__fd")), str(frame.get("Peer-Address"))
    except (zmq.ZMQError, ValueError, TypeError):
        return None
    return descriptor, _named(address)


def _named(address: str) -> str:
    _, _, credentials = address.partition(":")
    local = credentials.split(":")  # of a local socket: user, group, process
    return f"process {local[2]} of user {local[0]}" if len(local) == 3 and "" not in local else address


def _discard(peer: socket.socket) -> None:
    """Read away what the other end has sent: libzmq would still take it all in, message by message."""
    with contextlib.suppress(OSError):
        for _ in range(DISCARDED_PIECES):
            if not peer.recv(1 << 16, socket.MSG_DONTWAIT):
                return


def _who(peer: socket.socket) -> str:
    if peer.family != socket.AF_UNIX:
        return f"{peer.getpeername()[0]}"
    pid, uid, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return f"process {pid} of user {uid}"
