"""Counts add up whatever the order of things, and counters that cannot be are not believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.frames.frame_counters import FrameCounters
from edged.frames.ring import GarbageError


def balance(totals: FrameCounters) -> int:
    """Frames handed on and not counted yet."""
    return totals.captured - totals.results - sum(totals.drops.values())


STEP = st.tuples(st.integers(0, 5), *[st.integers(0, 3)] * 4, st.integers(0, 4))


@given(st.lists(STEP, max_size=60))
def test_captured_is_results_and_drops_and_what_is_on_its_way(steps: list[tuple[int, int, int, int, int, int]]) -> None:
    totals, number, counters, written, pending = FrameCounters(), 0, [0, 0, 0, 0], 0, 0
    for frames, rate, corrupt, frozen, still, then in steps:
        number += frames
        written += frames
        counters = [counters[0] + rate, counters[1] + corrupt, counters[2] + frozen, counters[3] + still]
        totals.look(number, *counters)
        if then == 0 and totals.unseen:
            totals.hand(number)
            pending += 1
        elif then == 1 and pending:
            totals.results, pending = totals.results + 1, pending - 1
        elif then == 2:
            totals.lose()
            totals.new_ring()
            counters = [0, 0, 0, 0]
        assert balance(totals) == pending
    totals.lose()
    child_drops = sum(totals.drops[cause] for cause in ("rate", "corrupt", "frozen", "still"))
    assert totals.captured == written + child_drops


BAD = [(4, 0, 0, 0, 0), (5, 0, 0, -1, 0), (5 + 2**60, 0, 0, 0, 0), (5, 0, 2**63, 0, 0), (5, 0, 0, 0, -1)]


@pytest.mark.parametrize("bad", BAD)
def test_counters_that_run_backwards_or_leap_change_nothing(bad: tuple[int, int, int, int, int]) -> None:
    totals = FrameCounters()
    totals.look(5, 0, 0, 0, 0)
    with pytest.raises(GarbageError):
        totals.look(*bad)
    assert (totals.number, totals.captured) == (5, 0)
