"""What a variant's profile says is checked before anything is computed with it."""

from __future__ import annotations

import math

import pytest

from edged.governor.messages import Variant
from edged.governor.profile import MAX_BATCH, accuracy_of, best_batch, checked, costs_of, rank


def test_an_accuracy_that_is_no_number_is_unknown() -> None:
    assert accuracy_of(Variant("a", math.nan, (1.0,))) is None
    assert accuracy_of(Variant("a", None, (1.0,))) is None
    assert checked(Variant("a", math.inf, (1.0,))).accuracy is None


def test_latencies_count_up_to_the_first_nonsense() -> None:
    assert checked(Variant("a", 0.7, (5.0, 9.0, math.nan, 12.0))).latency_ms == (5.0, 9.0)
    assert checked(Variant("a", 0.7, (-1.0, 9.0))).latency_ms == ()
    assert len(checked(Variant("a", 0.7, (5.0,) * 1000)).latency_ms) == MAX_BATCH
    assert checked(Variant("a", 0.7, (5.0,), accuracy_slope=math.nan)).accuracy_slope == 0.0


def test_the_most_accurate_comes_first_then_the_fastest_and_unknown_last() -> None:
    slow, fast = Variant("slow", 0.8, (9.0,)), Variant("fast", 0.8, (5.0,))
    cheap, unknown = Variant("cheap", 0.7, (1.0,)), Variant("unknown", None, ())
    assert sorted([unknown, cheap, slow, fast], key=rank) == [fast, slow, cheap, unknown]


def test_what_a_round_of_cameras_costs_in_the_best_batches() -> None:
    known, unknown = costs_of([Variant("a", 0.7, (10.0, 16.0)), Variant("b", 0.7, ())], 5)
    assert known == pytest.approx((10.0, 16.0 + 16.0 + 10.0, 8.0)) and unknown is None


def test_a_larger_batch_is_offered_only_where_it_saves_time_for_each_frame() -> None:
    assert best_batch(Variant("gpu", 0.7, (10.0, 16.0, 21.0))) == 3
    assert best_batch(Variant("cpu", 0.7, (10.0, 20.0, 30.0))) == 1
    assert best_batch(Variant("unknown", 0.7, ())) == 1
