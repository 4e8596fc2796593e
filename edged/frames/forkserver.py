"""A small fork server for the cameras' child processes.

The daemon (ForkServer) starts it once and sends it requests; each is forked off a process that has OpenCV, FFmpeg and
NumPy loaded and no threads, so that all cameras share those pages and start within milliseconds. multiprocessing's own
fork server would import the daemon's main program, with all its libraries, into every child. What a child would import,
compile or build once is made before the fork: whatever it makes itself, it has for itself, once for each camera.

In: a StartRequest and one end of the child's socket pair, over a SOCK_SEQPACKET pair. Out: a child that greets the
daemon over its own pair, with its pidfd attached: a handle that, unlike a number, never means another process.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from typing import Final

import msgspec

from edged import clock
from edged.errors import EdgedError
from edged.frames.child_protocol import HELLO, START_REQUESTS, StartRequest
from edged.frames.prctl import die_with_parent
from edged.process_memory import give_back_freed

_MAX_REQUEST: Final = 1 << 16
_KILLED_S: Final = 1.0
_DONE: Final = b"D"
_MAX_UNANSWERED: Final = 1024
_HUNG_NS: Final = 5 * clock.NS_PER_S
_HUNG_AT_START_NS: Final = 30 * clock.NS_PER_S
"""while it loads its libraries from a slow card"""

log = logging.getLogger(__name__)

_ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}


class ForkServer:
    """The daemon's handle on the fork server. `start` never blocks: a child shows up on its own socket, or dies.

    The server answers each request with a byte. One that does not, hangs: the next request starts another. The children
    of the hung one run on, until it is killed when the next one hangs, or at the end.

    The server lives as long as the thread that started it first, by the kernel's rule for die_with_parent.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._unanswered: deque[int] = deque(maxlen=_MAX_UNANSWERED)
        self._warm = False
        self._hung: subprocess.Popen[bytes] | None = None

    def warm_up(self) -> None:
        """Have the server load its libraries before the first request. A failure is left to that request."""
        with contextlib.suppress(OSError):
            self._ensure()

    def start(self, request: StartRequest) -> socket.socket:
        """Have a child started; returns the daemon's end of its socket pair, non-blocking. Raises EdgedError."""
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise EdgedError(f"cannot start a capture process: {error.strerror}") from error
        ours.setblocking(False)
        self._put_aside_if_hung(clock.mono_ns())
        with theirs:
            try:
                self._hand_over(msgspec.json.encode(request), theirs.fileno())
            except OSError as error:
                ours.close()
                raise EdgedError(f"cannot start a capture process: {error.strerror}") from error
        return ours

    def _hand_over(self, packet: bytes, descriptor: int) -> None:
        """Send the fork server a request; it may have died since the last, then once more to a new one."""
        try:
            socket.send_fds(self._ensure(), [packet], [descriptor], socket.MSG_NOSIGNAL)
        except ConnectionError:
            self._end()
            socket.send_fds(self._ensure(), [packet], [descriptor], socket.MSG_NOSIGNAL)
        self._unanswered.append(clock.mono_ns())

    def _put_aside_if_hung(self, now_ns: int) -> None:
        if self._link is None or self._process is None:
            return
        with contextlib.suppress(OSError):
            while self._link.recv(1):
                self._warm = True
                if self._unanswered:
                    self._unanswered.popleft()
        limit_ns = _HUNG_NS if self._warm else _HUNG_AT_START_NS
        if self._unanswered and now_ns - self._unanswered[0] > limit_ns:
            log.warning("the fork server of the cameras hangs: another is started")
            self._link.close()
            _kill(self._hung)
            self._hung, self._process, self._link = self._process, None, None
            self._unanswered.clear()

    def _ensure(self) -> socket.socket:
        if self._link is not None and self._process is not None and self._process.poll() is None:
            return self._link
        self._end()
        self._unanswered.clear()
        self._warm = False
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._link.setblocking(False)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edged.frames.forkserver"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                cwd="/",  # python -m looks there first: in a directory of anybody's choice a numpy.py would be loaded
                env={**os.environ, **_ONE_THREAD},
            )
        return self._link

    def close(self) -> None:
        """End the fork server; children that still run are killed with it."""
        self._end()
        _kill(self._hung)
        self._hung = None

    def _end(self) -> None:
        if self._link is not None:
            self._link.close()
        _kill(self._process)
        self._link = self._process = None


def _kill(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # the kernel has it, and will end it
            process.wait(_KILLED_S)


def serve() -> None:
    """The fork server: one thread, until the daemon closes its end."""
    link = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps; the daemon watches its own sockets
    die_with_parent()
    import encodings.idna  # for the names of hosts

    from edged.frames import capture
    from edged.frames.sources import file, http, network, rtsp, scene
    from edged.frames.video import view

    del encodings, file, http, network, rtsp, scene, view  # loaded for the children's sake
    gc.collect()
    gc.freeze()  # keeps the collector from writing to, and so unsharing, the pages of what is loaded
    give_back_freed()  # or each child fills a copy of these pages
    while True:
        try:
            packet, descriptors, _, _ = socket.recv_fds(link, _MAX_REQUEST, 1)
        except ConnectionError:
            return
        if not packet:
            return
        child = socket.socket(fileno=descriptors[0])
        if os.fork() == 0:
            status = 1
            try:
                link.close()
                die_with_parent()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                with contextlib.suppress(ConnectionError):
                    greet(child)
                    capture.main(START_REQUESTS.decode(packet), child)
                status = 0
            finally:
                os._exit(status)
        child.close()
        with contextlib.suppress(OSError):  # a daemon that reads no answers misses nothing else
            link.send(_DONE, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def greet(link: socket.socket) -> None:
    """Give the daemon a handle on this process."""
    pidfd = os.pidfd_open(os.getpid())
    socket.send_fds(link, [HELLO], [pidfd], socket.MSG_NOSIGNAL)
    os.close(pidfd)


if __name__ == "__main__":
    serve()
