"""What is known before anything has run is checked and ranked; the guess without a profile is marked."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from edged.governor.messages import Device, Variant
from edged.governor.profile import MAX_BATCH, assumed, best_batch, checked, is_plausible, rank


def test_the_guess_is_marked() -> None:
    guess = assumed(12.0)
    assert guess.assumed and guess.fixed_clock and guess.idle_w == (12.0,) and is_plausible(guess)
    assert is_plausible(assumed(0.0))


@pytest.mark.parametrize(
    "device",
    [
        Device(()),
        Device((float("nan"),)),
        Device((-1.0,)),
        Device((0.0,) * 3, clock_ratio=(0.5, 1.0)),
        Device((0.0,) * 2, clock_ratio=(0.0, 1.0)),
        replace(assumed(5.0), sink_j_per_c=0.0),
        replace(assumed(5.0), leakage_w_per_c=float("nan")),
    ],
)
def test_nonsense_is_not_is_plausible(device: Device) -> None:
    assert not is_plausible(device)


def test_latencies_count_up_to_the_first_implausible_one() -> None:
    assert checked(Variant("a", 0.7, (5.0, 9.0, math.nan, 12.0))).latency_ms == (5.0, 9.0)
    assert checked(Variant("a", 0.7, (-1.0, 9.0))).latency_ms == ()
    assert len(checked(Variant("a", 0.7, (5.0,) * 1000)).latency_ms) == MAX_BATCH
    assert checked(Variant("a", math.inf, (1.0,))).accuracy is None


def test_the_most_accurate_comes_first_then_the_fastest_and_unknown_last() -> None:
    slow, fast = Variant("slow", 0.8, (9.0,)), Variant("fast", 0.8, (5.0,))
    cheap, unknown = Variant("cheap", 0.7, (1.0,)), Variant("unknown", None, ())
    assert sorted([unknown, cheap, slow, fast], key=rank) == [fast, slow, cheap, unknown]


def test_a_larger_batch_is_offered_only_where_it_saves_time_for_each_frame() -> None:
    assert best_batch(Variant("gpu", 0.7, (10.0, 16.0, 21.0))) == 3
    assert best_batch(Variant("cpu", 0.7, (10.0, 20.0, 30.0))) == 1
    assert best_batch(Variant("unknown", 0.7, ())) == 1
