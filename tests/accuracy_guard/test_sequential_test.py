from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.accuracy_guard.sequential_test import LOOK_ERROR, MAX_AGE_NS, WINDOWS, SequentialTest, divergence, needed
from edged.clock import NS_PER_S


def evidence(scores: list[float]) -> SequentialTest:
    found = SequentialTest()
    for second, score in enumerate(scores):
        found.add(score, second * NS_PER_S)
    return found


def test_the_divergence_is_that_of_two_coins() -> None:
    assert divergence(0.5, 0.5) == 0
    assert divergence(0.0, 0.5) == pytest.approx(math.log(2))
    assert divergence(0.9, 0.5) == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2))
    assert divergence(0.5, 0.0) == divergence(0.5, 1.0) == math.inf


def test_no_scores_prove_nothing() -> None:
    assert SequentialTest().interval() is None
    assert SequentialTest().below(0.9) is None and SequentialTest().above(0.1) is None


def test_the_interval_narrows_about_the_mean_as_scores_come() -> None:
    widths = []
    for count in (4, 16, 64, 256):
        interval = evidence([0.8, 1.0] * (count // 2)).interval()
        assert interval is not None and interval.samples == count
        assert 0 <= interval.low < 0.9 < interval.high <= 1 and interval.mean == pytest.approx(0.9)
        widths.append(interval.high - interval.low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.35


def test_the_bounds_are_where_the_proof_ends() -> None:
    interval = evidence([0.7] * 100).interval()
    assert interval is not None
    demand = math.log((len(WINDOWS) + 1) / LOOK_ERROR)
    assert 100 * divergence(0.7, interval.low) == pytest.approx(demand, rel=1e-3)
    assert 100 * divergence(0.7, interval.high) == pytest.approx(demand, rel=1e-3)


@pytest.mark.parametrize("level", [0.5, 0.55, 0.7, 0.9])
@pytest.mark.parametrize("score", [0.0, 0.2])
def test_a_low_score_proves_itself_after_as_many_as_the_formula_says(level: float, score: float) -> None:
    count = needed(score, level)
    assert evidence([score] * (count - 1)).below(level) is None
    proof = evidence([score] * count).below(level)
    assert proof is not None and proof.samples <= count and proof.high < level


def test_a_good_past_hides_a_fault_no_longer_than_the_next_window() -> None:
    """With a decay the past would count on: at half weight after an hour the fault would need the better part of it."""
    fresh = needed(0.0, 0.55)
    window = next(size for size in WINDOWS if size >= fresh)
    past = [0.95] * 1000
    assert evidence([*past, *[0.0] * window]).below(0.55) is not None
    assert evidence([*past, *[0.0] * (fresh // 2)]).below(0.55) is None


def test_it_remembers_no_more_than_the_longest_window_and_nothing_too_old() -> None:
    full = evidence([0.5] * (WINDOWS[-1] + 50))
    assert len(full) == WINDOWS[-1]
    assert full.last_ns == (WINDOWS[-1] + 49) * NS_PER_S
    full.forget(MAX_AGE_NS + 100 * NS_PER_S)
    assert len(full) == WINDOWS[-1] - 50, "those of the seconds 50 to 99 are too old"
    full.forget(2 * MAX_AGE_NS)
    assert len(full) == 0 and full.last_ns is None and full.interval() is None


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=80), st.floats(0.05, 0.95))
def test_nothing_is_both_below_and_above_and_a_proof_holds_its_mean(scores: list[float], level: float) -> None:
    found = evidence(scores)
    interval, below, above = found.interval(), found.below(level), found.above(level)
    assert interval is not None and interval.low <= interval.mean <= interval.high
    if below is not None:
        assert below.low <= below.mean <= below.high <= level + 1e-6
    if above is not None:
        assert level - 1e-6 <= above.low <= above.mean <= above.high


def test_looking_after_every_score_raises_no_false_alarm_at_the_very_level() -> None:
    """At the level itself, the worst case, with an error large enough to be counted: of 300 runs of 400 looks each, at
    most 300 x 400 x error may alarm. An interval for a fixed number of scores (1.96 deviations) does in one of five.
    """
    error, level, runs, looks = 1e-4, 0.6, 300, 400
    rng = random.Random(1)
    alarms = fixed = 0
    for _ in range(runs):
        found, total, was_fixed, alarmed = SequentialTest(), 0.0, False, False
        for n in range(1, looks + 1):
            score = float(rng.random() < level)
            total += score
            found.add(score, n * NS_PER_S)
            alarmed = alarmed or found.below(level, error) is not None
            was_fixed = was_fixed or (n >= 8 and total / n + 1.96 * math.sqrt(level * (1 - level) / n) < level)
        alarms += alarmed
        fixed += was_fixed
    assert alarms <= runs * looks * error / 4, alarms
    assert fixed > 0.15 * runs
