"""A measured profile becomes the governor's tables; none becomes a guess that says so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edged.engines.device_profile import DeviceProfile, ProfiledRun, Thermal
from edged.governor.device import assumed, from_profile, sound
from edged.governor.messages import Device, Variant


def run(variant: str, batch: int, clock: int, ms: float, joules: float | None = None) -> ProfiledRun:
    return ProfiledRun(variant, "0" * 64, batch, clock, ms, 1.1 * ms, 1.3 * ms, 100, joules)


PROFILE = DeviceProfile(
    2, "desk", "tensorrt",
    [run("fp16", 1, 0, 40.0, 0.16), run("fp16", 1, 1, 20.0, 0.24), run("fp16", 2, 1, 36.0), run("fp16", 4, 1, 64.0),
     run("int8", 1, 1, 10.0, 0.12)],
    clocks_mhz=[400.0, 900.0], idle_w=[4.0, 5.0], thermal=Thermal(10.0, 80.0, 1.0, 4.0, 0.02),
)  # fmt: skip
VARIANTS = (Variant("fp16", 0.8, (99.0,)), Variant("int8", 0.7, (99.0,)), Variant("other", 0.6, (5.0,)))


def test_latency_watts_and_clocks_come_from_the_runs() -> None:
    (fp16, int8, other), device = from_profile(VARIANTS, PROFILE, held=False)
    assert fp16.latency_ms == (20.0, 36.0, 50.0, 64.0)  # 3 is between 2 and 4
    assert fp16.clock_factor == (2.0, 1.0)
    assert fp16.active_w == pytest.approx((4.0, 12.0))  # 0.16 J in 40 ms, 0.24 J in 20 ms
    assert fp16.accuracy == 0.8
    assert int8.clock_factor == (1.0, 1.0) and int8.active_w == pytest.approx((12.0, 12.0))  # not measured at 400 MHz
    assert other is VARIANTS[2]
    assert device == Device((4.0, 5.0), False, 0.02, 10.0, 80.0, 1.0, 4.0)


def test_without_a_meter_there_is_no_device_and_without_clocks_none_to_choose() -> None:
    runs = [run("fp16", 1, 0, 20.0)]
    (fp16, *_), device = from_profile(VARIANTS, DeviceProfile(2, "desk", "cpu", runs), held=False)
    assert device is None and fp16.latency_ms == (20.0,) and fp16.active_w == ()
    _, device = from_profile(VARIANTS, DeviceProfile(2, "desk", "cpu", runs, idle_w=[7.0]), held=False)
    assert device is not None and device.held and device.idle_w == (7.0,)


def test_the_guess_is_marked() -> None:
    guess = assumed(12.0)
    assert guess.assumed and guess.held and guess.idle_w == (12.0,) and sound(guess)
    assert sound(assumed(0.0))


@pytest.mark.parametrize(
    "device",
    [
        Device(()),
        Device((float("nan"),)),
        Device((-1.0,)),
        replace(assumed(5.0), sink_j_per_c=0.0),
        replace(assumed(5.0), switch_ms=float("inf")),
        replace(assumed(5.0), leakage_w_per_c=float("nan")),
    ],
)
def test_nonsense_is_not_sound(device: Device) -> None:
    assert not sound(device)
