"""The bucket of changes: the bound it states holds, and it is spent where it earns most."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.governor.limits.switch_rate import (
    BURST_S,
    CHANGES_SHARE,
    MOST_PER_MIN,
    PRICE,
    SCARCE,
    fresh,
    per_minute,
    ran,
)


def test_a_dear_change_is_rare_and_a_free_one_is_bounded_too() -> None:
    assert per_minute(0.0) == MOST_PER_MIN
    assert per_minute(30.0) == pytest.approx(100.0)  # 100 changes of 30 ms are 5 % of a minute
    assert per_minute(30.0) * 0.030 == pytest.approx(60 * CHANGES_SHARE)


@given(st.lists(st.floats(0.001, 2.0), min_size=1, max_size=400), st.floats(0.5, 200.0))
def test_who_changes_only_while_there_is_one_left_stays_within_the_bound(
    pauses_s: list[float], switch_ms: float
) -> None:
    bucket, now_s, variant, changes = fresh(switch_ms), 0.0, 0, 0
    for pause_s in pauses_s:
        now_s += pause_s
        if bucket.available(now_s) >= 1.0:
            variant = 1 - variant
            changes += bucket.last is not None
        bucket = ran(bucket, variant, now_s)
    assert changes <= per_minute(switch_ms) / 60 * (now_s + BURST_S) + 1


def test_a_change_is_dearer_the_fewer_are_left() -> None:
    bucket = ran(fresh(60.0), 0, 0.0)
    assert bucket.price(0.0) == pytest.approx(PRICE)
    dearer = [bucket := ran(bucket, i % 2, 0.0) for i in range(1, 9)]
    prices = [b.price(0.0) for b in dearer]
    assert prices == sorted(prices) and prices[-1] > PRICE * SCARCE / 2
    assert bucket.price(BURST_S * 2) == pytest.approx(PRICE)


def test_staying_costs_nothing_and_time_that_runs_back_gives_nothing() -> None:
    bucket = ran(fresh(60.0), 0, 5.0)
    assert ran(bucket, 0, 9.0) is bucket
    spent = ran(bucket, 1, 5.0)
    assert spent.available(1.0) == spent.available(5.0) == bucket.available(5.0) - 1
