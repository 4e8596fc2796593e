"""A request to the daemon, as any local program or a command sends it, and its reply. Blocks; any thread.

Imports nothing of the daemon's side: a subscriber loads this too.
"""

from __future__ import annotations

from typing import Any

import msgspec
import zmq

from edged.bus.curve import CurveClient, refusals
from edged.errors import EdgedError
from edged.paths import find_control_endpoint, full, ipc_path

CONNECT_TIMEOUT_S = 2.0
REQUEST_TIMEOUT_S = 7.0
"""More than the engine loop has to answer, so that the daemon's own reason arrives when the loop is stuck."""
MODES_TIMEOUT_S = 18.0
"""Of a request that may set a power mode, which takes fifteen seconds."""
MODES = ("modes", "set_mode", "profile")


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
