"""Requests in, replies out: a ROUTER socket with its own thread ("control"). A request is a MessagePack map with `op`.

Nothing a peer sends can end the thread: what is not a valid request gets `{"ok": false, "error": ..., "hint": ...}`.
The handler runs on this thread; it returns the reply, or raises EdgedError.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec
import zmq

from edged import clock
from edged.bus.admission import Admission
from edged.bus.curve import Socket
from edged.bus.endpoint import Binding
from edged.bus.replies import Refusal, Reply
from edged.bus.requests import OPERATIONS, Request, parse_request
from edged.errors import EdgedError, encodable
from edged.worker import Worker

MAX_REQUEST_BYTES = 64 * 1024
REQUESTS_AHEAD = 8
REPLIES_BEHIND = 16
"""Messages kept for each client: they may be large, and the clients many."""
MAX_CONNECTIONS = 64
REQUESTS_PER_TURN = 100
TURN_NS = clock.NS_PER_S // 10
"""More than that waits for the next turn: a client that asks without end must not hold up the engine loop."""
POLL_MS = 500
STOP_TIMEOUT_S = 5.0

Handler = Callable[[Request], Reply]

log = logging.getLogger(__name__)


class ControlServer:
    """Serves from construction to `close()`. EdgedError if the endpoint is in use or cannot be bound."""

    def __init__(
        self, context: zmq.Context[Socket], endpoint: str, handle: Handler, admission: Admission | None = None
    ) -> None:
        self._handle = handle
        self._socket = context.socket(zmq.ROUTER)
        self._socket.sndhwm, self._socket.rcvhwm = REPLIES_BEHIND, REQUESTS_AHEAD
        self._socket.linger = 0
        self._socket.maxmsgsize = MAX_REQUEST_BYTES
        try:
            self._binding = Binding(self._socket, endpoint, admission, MAX_CONNECTIONS)
        except BaseException:
            self._socket.close(linger=0)
            raise
        self._served, self._turn_ns = 0, clock.mono_ns()
        self.worker = Worker("control", self._turn)
        self.worker.start()

    @property
    def workers(self) -> tuple[Worker, ...]:
        """Its threads."""
        return self.worker, self._binding.worker

    def close(self) -> None:
        """Answer the request at hand, then stop. EdgedError if the handler does not come back."""
        if not self.worker.stop(STOP_TIMEOUT_S):
            raise EdgedError("the control thread does not stop: a request is still being handled")
        self._binding.close()

    def _turn(self) -> None:
        if not self._socket.poll(POLL_MS):
            return
        now_ns = clock.mono_ns()
        if now_ns - self._turn_ns >= TURN_NS:
            self._served, self._turn_ns = 0, now_ns
        elif self._served >= REQUESTS_PER_TURN:
            self.worker.stopping.wait((TURN_NS - (now_ns - self._turn_ns)) / clock.NS_PER_S)
            return
        self._served += 1
        self._serve_one()

    def _serve_one(self) -> None:
        frames = self._socket.recv_multipart()
        # REQ puts an empty frame before the request, DEALER may leave it out; the reply goes back the same way.
        envelope = frames[:2] if len(frames) > 2 and not frames[1] else frames[:1]
        payload = frames[len(envelope) :]
        reply = self._reply(payload[0]) if len(payload) == 1 else _refusal("a request is one MessagePack map")
        self._socket.send_multipart([*envelope, reply], zmq.DONTWAIT)  # dropped for a client that reads none

    def _reply(self, payload: bytes) -> bytes:
        try:
            return msgspec.msgpack.encode(self._handle(parse_request(payload)))
        except EdgedError as error:
            return _refusal(error.message, error.hint)
        except Exception as error:
            log.exception("a control request failed")
            return _refusal(f"edged failed at this request: {type(error).__name__}: {error}", "see the daemon's log")


def _refusal(error: str, hint: str = "") -> bytes:
    hint = hint or "requests are maps with `op`: " + ", ".join(OPERATIONS)
    return msgspec.msgpack.encode(Refusal(error=encodable(error), hint=encodable(hint)))
