"""Which prefixes are let in, and how many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.bus.subscriptions import MAX_PREFIX_BYTES, MAX_UNKNOWN, Subscriptions


@pytest.mark.parametrize("prefix", [b"", b"r", b"result/", b"result/gate", b"status/a-b_9", b"state", b"ev"])
def test_a_prefix_that_can_match_is_let_in(prefix: bytes) -> None:
    assert Subscriptions().accept(prefix)


@pytest.mark.parametrize("prefix", [b"x", b"stateful", b"result/Gate", b"result/a b", b"result/" + b"x" * 33, b"\0"])
def test_a_prefix_that_cannot_match_is_refused_and_counted(prefix: bytes) -> None:
    subscriptions = Subscriptions()
    assert not subscriptions.accept(prefix)
    assert not subscriptions.release(prefix)
    assert subscriptions.refused == 1


def test_unknown_cameras_are_bounded_and_known_ones_always_welcome() -> None:
    subscriptions = Subscriptions()
    accepted = [subscriptions.accept(b"result/x%d" % n) for n in range(2 * MAX_UNKNOWN)]
    assert sum(accepted) == MAX_UNKNOWN
    assert not subscriptions.accept(b"result/gate")
    subscriptions.add_topic(b"result/gate")
    assert subscriptions.accept(b"result/gate") and subscriptions.accept(b"result/ga")
    assert subscriptions.release(b"result/x1")
    assert subscriptions.accept(b"result/later")


def test_a_prefix_held_twice_is_given_back_twice() -> None:
    subscriptions = Subscriptions()
    assert subscriptions.accept(b"result/x") and subscriptions.accept(b"result/x")
    assert subscriptions.release(b"result/x") and subscriptions.release(b"result/x")
    assert not subscriptions.release(b"result/x")


@given(st.lists(st.binary(max_size=MAX_PREFIX_BYTES), max_size=50))
def test_any_bytes_are_answered(prefixes: list[bytes]) -> None:
    subscriptions = Subscriptions()
    accepted = sum(subscriptions.accept(prefix) for prefix in prefixes)
    assert accepted + subscriptions.refused == len(prefixes)
