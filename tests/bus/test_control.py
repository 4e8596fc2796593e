"""The control socket: real sockets, every operation, and everything that is none."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edged.bus.admission import Admission
from edged.bus.control import MAX_REQUEST_BYTES, ControlServer
from edged.bus.control_client import request
from edged.bus.curve import CurveClient, ServerKeys
from edged.bus.replies import LimitsReply, Reply
from edged.bus.requests import Pin, Reload, Request, Set, Snapshot, Why
from edged.config import Limits
from edged.errors import EdgedError, UsageError
from tests.support.bus import PATIENCE, curve_keys, free_port


class Handler:
    """Remembers what was asked; refuses to reload, and breaks at `why` with n = 13."""

    def __init__(self) -> None:
        self.seen: list[Request] = []

    def __call__(self, asked: Request) -> Reply:
        self.seen.append(asked)
        if isinstance(asked, Reload):
            raise UsageError("edged.toml: there is no camera", "add one")
        if asked == Why(n=13):
            raise ZeroDivisionError("a fault of our own")
        return LimitsReply(limits=Limits())


@contextlib.contextmanager
def serving(endpoint: str, handler: Handler, admission: Admission | None = None) -> Iterator[None]:
    with zmq.Context() as context:
        server = ControlServer(context, endpoint, handler, admission)
        try:
            yield
        finally:
            server.close()


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
def endpoint(tmp_path: Path, handler: Handler) -> Iterator[str]:
    address = f"ipc://{tmp_path}/control.ipc"
    with serving(address, handler):
        yield address


@contextlib.contextmanager
def connected(endpoint: str, kind: int = zmq.DEALER) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(kind) as socket:
        socket.linger = 0
        socket.connect(endpoint)
        yield socket


def ask_raw(socket: zmq.Socket[bytes], *frames: bytes) -> dict[str, Any]:
    socket.send_multipart(list(frames))
    assert socket.poll(3000), "no reply"
    reply = msgpack.unpackb(socket.recv_multipart()[-1])
    assert isinstance(reply, dict)
    return reply


def test_each_operation_reaches_the_handler_typed(endpoint: str, handler: Handler) -> None:
    assert request("snapshot", endpoint)["ok"] is True
    assert request("set", endpoint, power_w=8, energy_wh=None)["limits"]["deadline_ms"] == 50.0
    assert request("pin", endpoint, variant="int8-sparse")["ok"]
    assert request("pin", endpoint, variant=None)["ok"]
    assert request("why", endpoint, n=3)["ok"]
    assert handler.seen == [Snapshot(), Set(power_w=8.0, energy_wh=None), Pin("int8-sparse"), Pin(None), Why(3)]


def test_a_fault_of_the_handler_is_a_refusal_and_the_next_request_is_served(endpoint: str) -> None:
    assert request("reload", endpoint) == {"ok": False, "error": "edged.toml: there is no camera", "hint": "add one"}
    broken = request("why", endpoint, n=13)
    assert not broken["ok"] and "ZeroDivisionError" in broken["error"]
    assert request("snapshot", endpoint)["ok"]


@pytest.mark.parametrize(
    ("asked", "error", "hint"),
    [
        ({}, "has no `op`", "snapshot, set, pin, trigger, profile, why, reload"),
        ({"op": 3}, "has no `op`", "snapshot"),
        ({"op": "snapshoot"}, "there is no operation 'snapshoot'", "did you mean snapshot?"),
        ({"op": "snapshot", "x": 1}, "request snapshot: x is not a known key", ""),
        ({"op": "set"}, "changes nothing", "deadline_ms"),
        ({"op": "set", "powr_w": 3}, "powr_w is not a known key", "did you mean power_w?"),
        ({"op": "set", "power_w": -1}, "power_w is -1, expected watts, from 0.001", "power_w"),
        ({"op": "set", "power_w": float("nan")}, "power_w must be a finite number", ""),
        ({"op": "set", "energy_wh": float("inf")}, "energy_wh must be a finite number", ""),
        ({"op": "set", "deadline_ms": None}, "deadline_ms is null, expected milliseconds", ""),
        ({"op": "set", "deadline_ms": "40"}, "deadline_ms is '40', expected milliseconds", ""),
        ({"op": "pin"}, "variant is missing", "the name of a variant, or null"),
        ({"op": "pin", "variant": 3}, "variant is 3, expected the name of a variant, or null", ""),
        ({"op": "why", "n": 0}, "n is 0, expected a whole number from 1 to 1000", ""),
        ({"op": "why", "n": 1001}, "n is 1001, expected", ""),
        ({"op": "set_mode"}, "the request set_mode sets one thing at a time", "mode, clocks, fan"),
        ({"op": "set_mode", "mode": "15W", "clocks": True}, "the request set_mode sets one thing at a time", ""),
        ({"op": "set_mode", "mode": ""}, "request set_mode: mode is", "correct mode"),
        ([], "not a map", "snapshot"),
        ({1: 2}, "not a map with string keys", "snapshot"),
    ],
)
def test_what_is_no_request_is_refused_with_a_hint(endpoint: str, asked: object, error: str, hint: str) -> None:
    with connected(endpoint) as socket:
        reply = ask_raw(socket, msgpack.packb(asked))
    assert reply["ok"] is False
    assert error in reply["error"] and hint in reply["hint"] and reply["hint"]


def test_a_req_socket_gets_its_reply_too(endpoint: str) -> None:
    with connected(endpoint, zmq.REQ) as socket:
        assert ask_raw(socket, msgpack.packb({"op": "snapshot"}))["ok"]


def test_odd_envelopes_and_large_requests_do_not_end_the_service(endpoint: str) -> None:
    with connected(endpoint) as socket:
        assert not ask_raw(socket, b"")["ok"]
        assert not ask_raw(socket, b"a", b"b", b"c")["ok"]
        assert not ask_raw(socket, b"", b"")["ok"]
        socket.send(b"x" * (MAX_REQUEST_BYTES + 1))  # is disconnected for it
        assert not socket.poll(200)
    assert request("snapshot", endpoint)["ok"]


def test_a_peer_that_never_reads_its_replies_does_not_hold_up_others(endpoint: str) -> None:
    with connected(endpoint) as socket:
        socket.rcvhwm = 1
        for _ in range(2000):
            with contextlib.suppress(zmq.Again):
                socket.send(msgpack.packb({"op": "snapshot"}), zmq.DONTWAIT)
        assert request("snapshot", endpoint, timeout_s=5)["ok"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    payload=st.binary(max_size=100)
    | st.dictionaries(st.sampled_from(["op", "n"]), st.integers(0, 9)).map(msgpack.packb)
)
def test_every_message_gets_exactly_one_reply(endpoint: str, payload: bytes) -> None:
    with connected(endpoint) as socket:
        assert isinstance(ask_raw(socket, payload)["ok"], bool)


def test_no_daemon_is_reported_at_the_deadline(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(EdgedError, match=r"no daemon answers at ipc://.*: is edged running\? \(start it with"):
        request("snapshot", f"ipc://{tmp_path}/none.ipc", timeout_s=0.2)
    assert 0.15 < time.monotonic() - start < 2 * PATIENCE


def test_a_daemon_that_is_there_and_does_not_answer_is_reported_as_such(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/x.ipc"
    with zmq.Context() as context, context.socket(zmq.ROUTER) as deaf:
        deaf.linger = 0
        deaf.bind(endpoint)
        with pytest.raises(EdgedError, match=r"is there, but has not answered within 0\.3 s"):
            request("snapshot", endpoint, timeout_s=0.3)


@pytest.mark.parametrize("answer", [b"\xc1", msgpack.packb([1]), msgpack.packb({"yes": 1})])
def test_something_else_that_answers_is_reported(tmp_path: Path, answer: bytes) -> None:
    endpoint = f"ipc://{tmp_path}/x.ipc"
    with zmq.Context() as context, context.socket(zmq.ROUTER) as other:
        other.linger = 0
        other.bind(endpoint)

        def reply() -> None:
            if other.poll(3000):
                other.send_multipart([other.recv_multipart()[0], answer])

        thread = threading.Thread(target=reply)
        thread.start()
        with pytest.raises(EdgedError, match="is not edged"):
            request("snapshot", endpoint)
        thread.join(5)


def test_a_second_server_on_the_endpoint_is_refused(endpoint: str, handler: Handler) -> None:
    with zmq.Context() as context, pytest.raises(EdgedError, match="another edged"):
        ControlServer(context, endpoint, handler)
    assert request("snapshot", endpoint)["ok"]


def test_over_tcp_a_key_is_needed(tmp_path: Path, handler: Handler) -> None:
    keys, clients = curve_keys(tmp_path)
    address = f"tcp://127.0.0.1:{free_port()}"
    with zmq.Context() as context:
        admission = Admission(context, ServerKeys(keys / "edged.key_secret", clients))
        server = ControlServer(context, address, handler, admission)
        try:
            good = CurveClient(keys / "good.key_secret", keys / "edged.key")
            assert request("snapshot", address, curve=good)["ok"]
            bad = CurveClient(keys / "bad.key_secret", keys / "edged.key")
            for intruder, reason in ((None, "no daemon answers"), (bad, "refuses this client's key")):
                with pytest.raises(EdgedError, match=reason):
                    request("snapshot", address, timeout_s=0.4, curve=intruder)
        finally:
            server.close()
            admission.close()
