"""A thread that goes on after anything its turn can raise."""

from __future__ import annotations

import logging
import threading

import pytest

from edged.worker import Worker
from tests.support.bus import wait_for


@pytest.mark.parametrize(
    "error", [ValueError("x"), RecursionError(), MemoryError(), SystemExit(3), KeyboardInterrupt()]
)
def test_nothing_ends_it_and_the_traceback_is_logged_once(
    error: BaseException, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edged.worker.PAUSE_S", 0.0)
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        raise error

    worker = Worker("test", turn)
    with caplog.at_level(logging.ERROR):
        worker.start()
        wait_for(lambda: turns >= 50)
        assert worker.alive
        assert worker.stop(5)
    assert [record.exc_info is not None for record in caplog.records] == [True]
    assert type(error).__name__ in caplog.text


def test_it_stops_after_the_turn_at_hand_and_says_when_it_cannot() -> None:
    go_on = threading.Event()

    def turn() -> None:
        go_on.wait(30)

    worker = Worker("test", turn)
    assert worker.alive and worker.stop(0.1)  # never started
    worker = Worker("test", turn)
    worker.start()
    assert not worker.stop(0.05)
    go_on.set()
    assert worker.stop(5)


def test_who_is_stopped_before_its_first_turn_still_has_it() -> None:
    turns: list[bool] = []
    worker = Worker("test", lambda: turns.append(worker.stopping.is_set()))
    worker.stopping.set()
    worker.start()
    assert worker.stop(5) and turns == [True]
