"""Bounded connections, on both kinds of socket, with real peers that stay, never speak, or come in crowds."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from edged.bus import connections, publisher
from edged.bus.admission import Admission
from edged.bus.connections import allowed
from edged.bus.control import ControlServer
from edged.bus.control_client import request
from edged.bus.curve import CurveClient, ServerKeys
from edged.bus.replies import LimitsReply
from edged.config import Limits
from edged.errors import EdgedError
from edged.paths import full
from tests.support import messages
from tests.support.bus import (
    curve_keys,
    endpoint_in,
    free_port,
    is_closed,
    publishing,
    raw_peer,
    served,
    subscribed,
    wait_for,
)

LIMIT = 16
CROWD = 100


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "MAX_CONNECTIONS", LIMIT)
    monkeypatch.setattr(connections, "BACKLOG", 4)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@contextlib.contextmanager
def crowd(address: str | tuple[str, int], logged: pytest.LogCaptureFixture) -> Iterator[list[socket.socket]]:
    """CROWD connections, or as many as are let in. All but the first wait until the door has been seen to close."""
    with contextlib.ExitStack() as stack:
        peers: list[socket.socket] = []
        for _ in range(CROWD):
            if len(peers) == LIMIT:  # how many a busy machine lets in before it notices is not what is judged here
                wait_for(lambda: "as many as it may" in logged.text)
            peer = stack.enter_context(socket.socket(*((socket.AF_UNIX,) if isinstance(address, str) else ())))
            peer.settimeout(0.05)
            with contextlib.suppress(OSError):
                peer.connect(address)
                peers.append(peer)
        yield peers


def gets_events(pub: publisher.Publisher, subscriber: zmq.Socket[bytes]) -> bool:
    pub.publish(messages.event())
    return bool(subscriber.poll(20))


@pytest.mark.usefixtures("few")
def test_beyond_the_limit_others_wait_and_are_served_when_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "results.ipc"
    with publishing(endpoint_in(tmp_path)) as pub, subscribed(endpoint_in(tmp_path), b"event") as first:
        wait_for(lambda: gets_events(pub, first))
        with contextlib.ExitStack() as stack:
            for _ in range(LIMIT - 1):
                stack.enter_context(raw_peer(path))
            wait_for(lambda: full(path).is_socket() and not path.exists())
            assert gets_events(pub, first), "who is connected notices nothing"
            with subscribed(endpoint_in(tmp_path), b"event") as late:
                assert not late.poll(300)
                stack.close()
                wait_for(lambda: gets_events(pub, late))
        assert path.is_socket() and not full(path).exists()


@pytest.mark.usefixtures("few")
def test_a_crowd_of_silent_connections_costs_few_descriptors_and_is_gone_after_the_handshake_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connections, "HANDSHAKE_MS", 500)
    with publishing(endpoint_in(tmp_path)) as pub:
        before = open_descriptors()
        with crowd(str(tmp_path / "results.ipc"), caplog) as peers:
            accepted = open_descriptors() - before - CROWD
            assert accepted <= LIMIT + 2 * 4 + 8
            assert is_closed(peers[0])
            with subscribed(endpoint_in(tmp_path), b"event") as friend:
                wait_for(lambda: gets_events(pub, friend), 15)


@pytest.mark.usefixtures("few")
def test_over_tcp_silent_connections_hold_nobody_off_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connections, "HANDSHAKE_MS", 500)
    keys, clients = curve_keys(tmp_path)
    port = free_port()
    with zmq.Context() as context:
        admission = Admission(context, ServerKeys(keys / "edged.key_secret", clients))
        with served(publisher.Publisher(context, f"tcp://127.0.0.1:{port}", admission)) as pub:
            before = open_descriptors()
            with crowd(("127.0.0.1", port), caplog):
                assert open_descriptors() - before - CROWD <= LIMIT + 2 * 4 + 8
                with zmq.Context() as other, other.socket(zmq.SUB) as friend:
                    friend.linger = 0
                    CurveClient(keys / "good.key_secret", keys / "edged.key").secure(friend)
                    friend.subscribe(b"event")
                    friend.connect(f"tcp://127.0.0.1:{port}")
                    wait_for(lambda: gets_events(pub, friend), 15)
        admission.close()


def test_the_control_socket_says_when_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edged.bus.control.MAX_CONNECTIONS", 16)
    endpoint, path = f"ipc://{tmp_path}/control.ipc", tmp_path / "control.ipc"
    with zmq.Context() as context, contextlib.ExitStack() as stack:
        server = ControlServer(context, endpoint, lambda _: LimitsReply(limits=Limits()))
        stack.callback(server.close)
        with contextlib.ExitStack() as peers:
            for _ in range(16):
                peers.enter_context(raw_peer(path, b"DEALER"))
            wait_for(lambda: full(path).exists())
            with pytest.raises(EdgedError, match="as many connections as it may"):
                request("snapshot", endpoint, timeout_s=0.3)
        wait_for(path.exists)
        assert request("snapshot", endpoint)["ok"]


def test_the_limits_leave_descriptors_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, wanted, expected in ((1024, 256, 256), (700, 256, 94), (100, 256, 16), (65536, 256, 256)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert allowed(wanted) == expected


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    program = """
import resource
from edged.bus.connections import raise_open_files_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 2048))
print(raise_open_files_limit(), resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "2048 (2048, 2048)\n"


def test_a_descriptor_that_is_no_connection_of_the_socket_is_left_alone(tmp_path: Path) -> None:
    with publishing(endpoint_in(tmp_path)) as pub:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            pub._binding.cut((ours.fileno(), f"process {os.getpid()} of user {os.getuid()}"), "a mistake")
            theirs.send(b"x")
            assert ours.recv(1) == b"x"


@pytest.mark.usefixtures("few")
def test_a_path_that_somebody_removed_stops_nobody_who_is_connected(tmp_path: Path) -> None:
    path = tmp_path / "results.ipc"
    with publishing(endpoint_in(tmp_path)) as pub, subscribed(endpoint_in(tmp_path), b"event") as first:
        wait_for(lambda: gets_events(pub, first))
        with contextlib.ExitStack() as stack:
            for _ in range(LIMIT - 2):
                stack.enter_context(raw_peer(path))
            last = stack.enter_context(socket.socket(socket.AF_UNIX))
            last.connect(str(path))
            path.unlink(missing_ok=True)
            full(path).unlink(missing_ok=True)
            assert gets_events(pub, first)
        assert gets_events(pub, first)
