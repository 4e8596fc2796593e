"""Feedback: what was spent and what came late, against what the plan allows."""

from __future__ import annotations

import pytest

from edged.governor.limits.lateness import LATE_MEMORY, LATE_PRICE_MAX, MOST, Feedback


def spent(joules: float, share: float = 1.0, times: int = 1) -> float:
    feedback = Feedback()
    for _ in range(times):
        feedback.spent(joules, 0.2, share, 0.1)
    return feedback.correction


def counted(frames: int, late: int) -> Feedback:
    feedback = Feedback()
    feedback.count(frames, late)
    return feedback


def test_over_the_target_raises_the_price_under_it_lowers_it() -> None:
    assert spent(0.3) > 0 > spent(0.1)
    assert spent(0.2) == pytest.approx(0.0)


def test_four_frames_one_by_one_count_as_much_as_at_once() -> None:
    assert spent(0.1, 0.25, times=4) == pytest.approx(spent(0.4), rel=0.01)


def test_the_correction_is_bounded() -> None:
    feedback = Feedback()
    for _ in range(1000):
        feedback.spent(50.0, 0.1, 1.0, 0.1)
    assert feedback.correction == MOST


def test_lateness_is_free_within_the_quantile_and_dear_beyond() -> None:
    assert counted(50_000, 150).late_price(0.99) == 0.0
    assert counted(1000, 9).late_price(0.99) > 1.0
    assert counted(1000, 100).late_price(0.99) == LATE_PRICE_MAX
    assert counted(1000, 9).late_price(0.95) == 0.0


def test_a_bad_day_is_forgotten_and_one_late_frame_at_the_start_is_free() -> None:
    assert counted(1, 1).late_price(0.99) == 0.0
    bad = counted(20_000, 2_000)
    for _ in range(1000):
        bad.count(100, 0)
    assert bad.late_price(0.99) == 0.0
    assert bad.frames <= 1.01 * LATE_MEMORY


def test_what_was_late_by_another_deadline_does_not_count() -> None:
    late = counted(1000, 100)
    late.correction = 0.3
    late.reset_lateness()
    assert late == Feedback(correction=0.3)
