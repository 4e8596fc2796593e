"""Requests in, replies out: a ROUTER socket with its own thread ("control"). A request is a MessagePack map with `op`.

Nothing a peer sends can end the thread: what is not a valid request gets `{"ok": false, "error": ..., "hint": ...}`.
The handler runs on this thread; it returns the reply, or raises EdgedError.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec
import zmq

from edged import clock
from edged.bus.admission import Admission
from edged.bus.connections import full
from edged.bus.curve import CurveClient, Socket, refusals
from edged.bus.endpoint import Binding, ipc_path
from edged.bus.replies import Refusal, Reply
from edged.bus.requests import OPERATIONS, Request, parse_request
from edged.errors import EdgedError, encodable
from edged.paths import find_control_endpoint
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
CONNECT_TIMEOUT_S = 2.0
REQUEST_TIMEOUT_S = 7.0
MODES_TIMEOUT_S = 18.0
"""Of a request that may set a power mode, which takes fifteen seconds."""
MODES = ("modes", "set_mode", "profile")
"""More than the engine loop has to answer, so that the daemon's own reason arrives when the loop is stuck."""

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


def _no_answer(endpoint: str, refused: bool) -> EdgedError:
    if refused:
        return EdgedError(
            f"the daemon at {endpoint} refuses this client's key",
            "have its public key put into the daemon's bus.curve_clients, then `edged ctl reload` there",
        )
    path = ipc_path(endpoint)
    if path is not None and full(path).is_socket():
        return EdgedError(f"the daemon at {endpoint} has as many connections as it may", "close some, then try again")
    return EdgedError(
        f"no daemon answers at {endpoint}: is edged running?", "start it with `edged run` or `systemctl start edged`"
    )


def request(
    op: str,
    endpoint: str | None = None,
    timeout_s: float | None = None,
    curve: CurveClient | None = None,
    **arguments: object,
) -> dict[str, Any]:
    """Send one request to the daemon and return its reply, `ok` or not. EdgedError if none is there or none answers in
    time, which is as long as the operation may take if it is None.

    `endpoint` None: this user's daemon, else the system service. The reply is a dict with the fields of the operation's
    type in `edged.bus.replies`, or of `Refusal`; it stays a dict so that a client accepts the keys of a later daemon.
    """
    endpoint = endpoint or find_control_endpoint()
    ipc_path(endpoint)
    if timeout_s is None:
        timeout_s = MODES_TIMEOUT_S if op in MODES else REQUEST_TIMEOUT_S
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket, refusals(socket) as refused:
        socket.linger = 0
        socket.immediate = True  # writable once there is a peer, and not before
        if curve is not None:
            curve.secure(socket)
        try:
            socket.connect(endpoint)
        except zmq.ZMQError as error:
            raise EdgedError(f"cannot connect to {endpoint}: {error.strerror}", "check the endpoint") from error
        if not socket.poll(round(min(timeout_s, CONNECT_TIMEOUT_S) * 1000), zmq.POLLOUT):
            raise _no_answer(endpoint, refused())
        socket.send(msgspec.msgpack.encode({"op": op, **arguments}), zmq.DONTWAIT)
        if not socket.poll(round(timeout_s * 1000)):
            raise EdgedError(
                f"the daemon at {endpoint} is there, but has not answered within {timeout_s:g} s",
                "it is busy, stuck or stopping: its log says more",
            )
        try:
            reply = msgspec.msgpack.decode(socket.recv_multipart()[-1])
        except (msgspec.DecodeError, ValueError, RecursionError):
            reply = None  # refused below
    if not isinstance(reply, dict) or not isinstance(reply.get("ok"), bool):
        raise EdgedError(f"what answers at {endpoint} is not edged", "check the endpoint")
    return reply
