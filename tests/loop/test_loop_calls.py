"""Calls into the engine loop: they run there, in order, and no wait is forever."""

from __future__ import annotations

import selectors
import threading
from collections.abc import Iterator

import pytest

from edged.errors import EdgedError, UsageError
from edged.loop import loop_calls
from edged.loop.loop_calls import LoopCalls


@pytest.fixture
def selector() -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as made:
        yield made


@pytest.fixture
def made(selector: selectors.BaseSelector) -> Iterator[LoopCalls]:
    made = LoopCalls(selector)
    yield made
    selector.close()
    made.close()


def loop_once(selector: selectors.BaseSelector, made: LoopCalls) -> threading.Thread:
    """A loop that waits to be woken and runs what is there, once."""

    def run() -> None:
        assert selector.select(5.0)
        made.run()

    thread = threading.Thread(target=run, name="loop")
    thread.start()
    return thread


def test_a_call_runs_on_the_loop_and_returns(selector: selectors.BaseSelector, made: LoopCalls) -> None:
    thread = loop_once(selector, made)
    assert made.call(lambda: threading.current_thread().name) == "loop"
    thread.join()


def test_what_a_call_raises_comes_back(selector: selectors.BaseSelector, made: LoopCalls) -> None:
    def fail() -> None:
        raise UsageError("no such variant", "name another")

    thread = loop_once(selector, made)
    with pytest.raises(UsageError, match="no such variant"):
        made.call(fail)
    thread.join()


def test_a_deaf_loop_is_not_waited_for_and_the_call_never_runs_later(
    made: LoopCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_calls, "TIMEOUT_S", 0.05)
    ran: list[int] = []
    with pytest.raises(EdgedError, match="has not answered"):
        made.call(lambda: ran.append(1))
    made.run()
    assert not ran


def test_the_queue_is_bounded(made: LoopCalls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_calls, "TIMEOUT_S", 0.001)
    for _ in range(loop_calls.MAX_WAITING):
        with pytest.raises(EdgedError, match="not answered"):
            made.call(int)
    with pytest.raises(EdgedError, match="too many"):
        made.call(int)
    made.run()


def test_a_thousand_wake_ups_cost_no_room(selector: selectors.BaseSelector, made: LoopCalls) -> None:
    for _ in range(100_000):
        made.wake()
    assert selector.select(0)
    while selector.select(0):
        made.run()
