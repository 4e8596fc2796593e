"""A measured profile becomes the governor's variants and device; without one there is a guess that is marked."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from edged.engines.device_profile import DeviceProfile, ProfiledRun, Thermal
from edged.governor.messages import Device, Variant
from edged.governor.profile import MAX_BATCH, assumed, best_batch, checked, from_profile, is_plausible, rank


def run(variant: str, batch: int, clock: int, ms: float, joules: float | None = None) -> ProfiledRun:
    return ProfiledRun(variant, "0" * 64, batch, clock, ms, 1.1 * ms, 1.3 * ms, 100, joules)


PROFILE = DeviceProfile(
    2,
    "desk",
    "tensorrt",
    [
        run("fp16", 1, 0, 40.0, 0.16),
        run("fp16", 1, 1, 20.0, 0.24),
        run("fp16", 2, 1, 36.0),
        run("fp16", 4, 1, 64.0),
        run("int8", 1, 1, 10.0, 0.12),
    ],
    clocks_mhz=[400.0, 900.0],
    idle_w=[4.0, 5.0],
    thermal=Thermal(10.0, 80.0, 1.0, 4.0, 0.02),
)
VARIANTS = (Variant("fp16", 0.8, (99.0,)), Variant("int8", 0.7, (99.0,)), Variant("other", 0.6, (5.0,)))


def test_latency_watts_and_clocks_come_from_the_runs() -> None:
    (fp16, int8, other), device = from_profile(VARIANTS, PROFILE)
    assert fp16.latency_ms == (20.0, 36.0, 50.0, 64.0)  # 3 is between 2 and 4
    assert fp16.clock_factor == (2.0, 1.0)
    assert fp16.active_w == pytest.approx((4.0, 12.0))  # 0.16 J in 40 ms, 0.24 J in 20 ms
    assert fp16.accuracy == 0.8
    assert int8.clock_factor == (1.0, 1.0) and int8.active_w == pytest.approx((12.0, 12.0))  # not measured at 400 MHz
    assert other is VARIANTS[2]
    assert device == Device((4.0, 5.0), True, 0.02, 10.0, 80.0, 1.0, 4.0)


def test_without_a_meter_there_is_no_device_and_without_clocks_none_to_choose() -> None:
    runs = [run("fp16", 1, 0, 20.0)]
    (fp16, *_), device = from_profile(VARIANTS, DeviceProfile(2, "desk", "cpu", runs))
    assert device is None and fp16.latency_ms == (20.0,) and fp16.active_w == ()
    _, device = from_profile(VARIANTS, DeviceProfile(2, "desk", "cpu", runs, idle_w=[7.0]))
    assert device is not None and device.fixed_clock and device.idle_w == (7.0,)


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
