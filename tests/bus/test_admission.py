"""Who was cut off is refused at the handshake; a program of libzmq comes back by itself when the time is over."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from edged import clock
from edged.bus import connections
from edged.bus.admission import Admission
from edged.bus.publisher import Publisher
from edged.bus.subscriptions import Peer
from tests.support import messages
from tests.support.bus import endpoint_in, publishing, raw_peer, subscribed, wait_for


def flood(path: Path) -> None:
    with raw_peer(path) as hostile, contextlib.suppress(OSError):
        while True:  # until it is cut off
            hostile.sendall(b"\0\x04\1zzz" * 100)


def is_let_in(path: Path) -> bool:
    try:
        with raw_peer(path):
            return True
    except (AssertionError, OSError):
        return False


def test_who_was_cut_off_is_refused_before_a_message_of_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connections, "BANNED_NS", 3600 * clock.NS_PER_S)
    monkeypatch.setattr(connections, "HANDSHAKE_MS", 500)
    read: list[bytes] = []
    taken = Publisher._take

    def take(publisher: Publisher, request: bytes, peer: Peer | None) -> None:
        read.append(request)
        taken(publisher, request, peer)

    monkeypatch.setattr(Publisher, "_take", take)
    with publishing(endpoint_in(tmp_path)):
        flood(tmp_path / "results.ipc")
        wait_for(lambda: "was cut off" in caplog.text)
        for _ in range(2):
            assert not is_let_in(tmp_path / "results.ipc")
        with subscribed(endpoint_in(tmp_path), b"state") as refused:
            assert not refused.poll(500)
        assert b"\1zzz" in read and b"\1state" not in read


def test_when_the_time_is_over_a_program_is_served_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connections, "BANNED_NS", clock.NS_PER_S)
    monkeypatch.setattr(connections, "HANDSHAKE_MS", 500)
    with publishing(endpoint_in(tmp_path)) as publisher:
        publisher.publish(messages.state())
        flood(tmp_path / "results.ipc")
        wait_for(lambda: "was cut off" in caplog.text)
        with subscribed(endpoint_in(tmp_path), b"state") as again:
            wait_for(lambda: again.poll(10), 10)


def test_an_exception_costs_one_newcomer_and_not_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[bool] = []

    def fail(self: Admission, request: list[bytes]) -> list[bytes]:
        failed.append(True)
        raise ZeroDivisionError

    with publishing(endpoint_in(tmp_path)):
        with monkeypatch.context() as patched:
            patched.setattr(Admission, "_answer", fail)
            assert not is_let_in(tmp_path / "results.ipc") and failed
        wait_for(lambda: is_let_in(tmp_path / "results.ipc"))
