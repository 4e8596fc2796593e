"""Who is let in at the handshake: ZAP requests (RFC 27) in, yes or no out. Thread "admission", one for the context.

libzmq asks here about every newcomer of a socket before it reads a message of theirs, so who is refused costs it no
memory. On a local socket that is who was cut off lately; on `tcp://` also who holds no key that is let in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import zmq
from zmq.utils import z85

from edged import clock
from edged.bus.curve import ServerKeys, Socket
from edged.worker import Worker

ZAP: Final = "inproc://zeromq.zap.01"
POLL_MS: Final = 500
STOP_TIMEOUT_S: Final = 5.0
LOG_EVERY_NS: Final = 10 * clock.NS_PER_S
"""A client that is refused tries again ten times a second."""

log = logging.getLogger(__name__)


class Admission:
    """Answers for the sockets it guards. Close it after them."""

    def __init__(self, context: zmq.Context[Socket], keys: ServerKeys | None = None) -> None:
        """`keys`: of the daemon and its clients; without them no socket may be open to the network."""
        self.keys = keys
        self._cut_off: list[Callable[[], None]] = []
        self._banned: dict[bytes, Callable[[str], bool]] = {}
        self._refused = 0
        self._logged_ns = -LOG_EVERY_NS
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        self._socket.bind(ZAP)
        self.worker = Worker("admission", self._turn)
        self.worker.start()

    def guard(self, socket: Socket, endpoint: str, banned: Callable[[str], bool], cut_off: Callable[[], None]) -> None:
        """Before the socket is bound. `banned` gets a peer's address; `cut_off` ends all connections, and who may
        comes back."""
        domain = endpoint.encode()
        self._banned[domain] = banned
        socket.zap_domain = domain
        if self.keys is not None and endpoint.startswith("tcp://"):
            self.keys.secure(socket)
            self._cut_off.append(cut_off)

    def reload(self) -> list[str]:
        """Read the clients' keys again; what changed, in words. UsageError, and nothing changed, if they cannot be
        read."""
        if self.keys is None:
            return []
        changes, someone_left = self.keys.reload()
        if someone_left:
            for cut_off in self._cut_off:
                cut_off()
        return changes

    def close(self) -> None:
        if self.worker.stop(STOP_TIMEOUT_S):
            self._socket.close(linger=0)

    def _turn(self) -> None:
        if not self._socket.poll(POLL_MS):
            return
        request = self._socket.recv_multipart()
        answer = [b"1.0", request[1], b"500", b"", b"", b""]  # after an exception too: REP takes no request before
        try:
            answer = self._answer(request)
        finally:
            self._socket.send_multipart(answer)

    def _answer(self, request: list[bytes]) -> list[bytes]:
        """Version, id, domain, address, routing id, mechanism, key -> version, id, status, text, user, -."""
        _, number, domain, address, _, _, *key = request
        if self._banned[domain](address.decode("ascii", "replace")):
            return [b"1.0", number, b"300", b"cut off for some seconds", b"", b""]  # 300: for now
        if domain.startswith(b"ipc://"):
            return [b"1.0", number, b"200", b"OK", b"", b""]
        shown = z85.encode(key[0]) if key and len(key[0]) == 32 else b"none"
        if self.keys is not None and shown in self.keys.names:
            return [b"1.0", number, b"200", b"OK", self.keys.names[shown].encode("ascii", "replace"), b""]
        self._report_refusal(address, shown)
        return [b"1.0", number, b"400", b"this key is not among the clients' keys", b"", b""]

    def _report_refusal(self, address: bytes, key: bytes) -> None:
        self._refused += 1
        now_ns = clock.mono_ns()
        if now_ns - self._logged_ns >= LOG_EVERY_NS:
            self._logged_ns = now_ns
            where = None if self.keys is None else self.keys.directory
            text = "a client at %s was refused: its public key %s is not in %s (%d refusals so far)"
            log.warning(text, address.decode("ascii", "replace"), key.decode(), where, self._refused)
