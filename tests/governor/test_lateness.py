"""What was spent and what came late, against what the plan allows."""

from __future__ import annotations

import pytest

from edged.governor.limits.lateness import LATE_MEMORY, LATE_PRICE_MAX, MOST, Spending


def test_over_the_target_raises_the_price_under_it_lowers_it() -> None:
    assert Spending().spent(0.3, 0.2, 1.0, 0.1).correction > 0 > Spending().spent(0.1, 0.2, 1.0, 0.1).correction
    assert Spending().spent(0.2, 0.2, 1.0, 0.1).correction == pytest.approx(0.0)


def test_four_frames_told_one_by_one_count_as_much_as_told_at_once() -> None:
    at_once = Spending().spent(0.4, 0.2, 1.0, 0.1)
    one_by_one = Spending()
    for _ in range(4):
        one_by_one = one_by_one.spent(0.1, 0.2, 0.25, 0.1)
    assert one_by_one.correction == pytest.approx(at_once.correction, rel=0.01)


def test_the_correction_is_bounded_and_relaxes() -> None:
    spending = Spending()
    for _ in range(1000):
        spending = spending.spent(50.0, 0.1, 1.0, 0.1)
    assert spending.correction == MOST
    assert spending.relaxed(0.5).correction == MOST / 2


def test_lateness_is_free_within_the_quantile_and_dear_beyond() -> None:
    fine = Spending().counted(50_000, 150)
    assert fine.late_price(0.99) == 0.0
    assert Spending().counted(1000, 9).late_price(0.99) > 1.0
    assert Spending().counted(1000, 100).late_price(0.99) == LATE_PRICE_MAX
    assert Spending().counted(1000, 9).late_price(0.95) == 0.0
    assert Spending().counted(1000, 9).late_used(0.95) == pytest.approx(0.18)


def test_a_bad_day_is_forgotten_and_one_late_frame_at_the_start_is_none() -> None:
    assert Spending().counted(1, 1).late_price(0.99) == 0.0
    bad = Spending().counted(20_000, 2_000)
    for _ in range(1000):
        bad = bad.counted(100, 0)
    assert bad.late_price(0.99) == 0.0
    assert bad.processed <= 1.01 * LATE_MEMORY


def test_what_was_late_by_another_deadline_does_not_count() -> None:
    late = Spending(correction=0.3).counted(1000, 100)
    assert late.late_price(0.99) == LATE_PRICE_MAX
    assert late.forgiven() == Spending(correction=0.3)
