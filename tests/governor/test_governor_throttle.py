"""A device that throttles itself gets less to do at once, and more again only slowly."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from edged.governor.limits.throttle import AGAIN_S, FORGOTTEN, LEAST, STEP, UNTHROTTLED
from edged.governor.messages import BatchDone, Budget, Device, Sensed, Skipped, Tick, Variant
from tests.support.desk import VARIANTS, Desk


def test_it_is_cut_at_once_again_while_it_lasts_and_never_to_nothing() -> None:
    throttle = UNTHROTTLED.told(True, 15.0, 5.0, 5.0)
    assert throttle.allowed_w == pytest.approx(5 + STEP * 10)
    assert throttle.told(True, 13.0, 5.0, 6.0).allowed_w == throttle.allowed_w, "it takes a while to show"
    for n in range(1, 20):
        throttle = throttle.told(True, 13.0, 5.0, 5.0 + n * AGAIN_S)
    assert throttle.allowed_w == pytest.approx(5 + LEAST * 10)
    assert throttle.held_w(9.0) == pytest.approx(9 + LEAST * 10), "another load came"


def test_it_grows_back_slowly_and_is_forgotten() -> None:
    throttle = UNTHROTTLED.told(True, 15.0, 5.0, 0.0)
    assert UNTHROTTLED.told(False, 15.0, 5.0, 0.0) is UNTHROTTLED
    seconds, before_w = 0, 0.0
    while math.isfinite(throttle.allowed_w):
        assert seconds < 300 and throttle.allowed_w > before_w
        seconds, before_w = seconds + 1, throttle.allowed_w
        throttle = throttle.told(False, 13.0, 5.0, float(seconds))
    assert seconds > 60 and before_w <= 5 + FORGOTTEN * 10
    assert throttle is UNTHROTTLED


def test_a_relapse_cuts_once_more() -> None:
    throttle = UNTHROTTLED.told(True, 15.0, 5.0, 0.0).told(False, 13.0, 5.0, 1.0)
    again = throttle.told(True, 13.0, 5.0, 2.0)
    assert again.allowed_w < throttle.allowed_w


def drew(desk: Desk, seconds: float, throttled: bool) -> float:
    """Frames at 30 a second on a device that draws what its profile says: the mean power."""
    joules, total = 0.0, 0.0
    for i in range(int(seconds * 30)):
        desk.t_s += 1 / 30
        if i % 6 == 0:
            desk.tell(Sensed(5.9 + joules * 5, 60.0, throttled=throttled))
            joules = 0.0
        if i % 15 == 0:
            desk.tell(Tick())
        choice = desk.choose(last=desk.last)
        if choice.variant is None:
            desk.tell(Skipped(1, False))
            continue
        variant = desk.variants[choice.variant]
        joules += variant.active_w[0] * variant.latency_ms[0] / 1000
        total += variant.active_w[0] * variant.latency_ms[0] / 1000
        desk.tell(BatchDone(choice.variant, 1, variant.latency_ms[0], 2.0, 0, (0.7,), 0.5))
        desk.last = choice.variant
    return 5.9 + total / seconds


def test_the_governor_draws_less_while_the_device_throttles_though_no_limit_is_set() -> None:
    desk = Desk(Budget(60.0, 0.99, 0.0), Device((5.9,), sensor_lag_s=0.0), tuple(at_one_clock(v) for v in VARIANTS))
    before_w = drew(desk, 20, False)
    drew(desk, 25, True)
    assert drew(desk, 10, True) - 5.9 < 0.6 * (before_w - 5.9)
    assert desk.decision.bound == "heat" and "heat allows" in str(desk.decision)
    drew(desk, 250, False)
    assert math.isinf(desk.state.economy.plan.allowed.heat_w) and str(desk.decision.bound) == "none"
    assert drew(desk, 10, False) == pytest.approx(before_w, rel=0.05)


def at_one_clock(variant: Variant) -> Variant:
    return replace(variant, clock_factor=(1.0,), active_w=variant.active_w[-1:])


def test_a_device_of_which_no_watts_are_known_is_left_alone() -> None:
    desk = Desk(Budget(60.0, 0.99, 0.0), device=None)
    desk.tell(Sensed(None, None, throttled=True))
    assert desk.state.economy.throttle is UNTHROTTLED
