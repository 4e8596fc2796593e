"""A device that throttles itself gets less to do at once, and more again only slowly."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from edged.governor.limits.throttle import AGAIN_S, FORGOTTEN, LEAST, STEP, UNTHROTTLED
from edged.governor.messages import BatchDone, Budget, Device, Sensed, Skipped, Tick, Variant
from tests.support.governor_script import VARIANTS, GovernorScript


def test_it_is_cut_at_once_again_while_it_lasts_and_never_to_nothing() -> None:
    throttle = UNTHROTTLED.sensed(True, 15.0, 5.0, 5.0)
    assert throttle.allowed_w == pytest.approx(5 + STEP * 10)
    assert throttle.sensed(True, 13.0, 5.0, 6.0).allowed_w == throttle.allowed_w, "it takes a while to show"
    for n in range(1, 20):
        throttle = throttle.sensed(True, 13.0, 5.0, 5.0 + n * AGAIN_S)
    assert throttle.allowed_w == pytest.approx(5 + LEAST * 10)
    assert throttle.held_w(9.0) == pytest.approx(9 + LEAST * 10), "another load came"


def test_it_grows_back_slowly_and_is_forgotten() -> None:
    throttle = UNTHROTTLED.sensed(True, 15.0, 5.0, 0.0)
    assert UNTHROTTLED.sensed(False, 15.0, 5.0, 0.0) is UNTHROTTLED
    seconds, before_w = 0, 0.0
    while math.isfinite(throttle.allowed_w):
        assert seconds < 300 and throttle.allowed_w > before_w
        seconds, before_w = seconds + 1, throttle.allowed_w
        throttle = throttle.sensed(False, 13.0, 5.0, float(seconds))
    assert seconds > 60 and before_w <= 5 + FORGOTTEN * 10
    assert throttle is UNTHROTTLED


def test_a_relapse_cuts_once_more() -> None:
    throttle = UNTHROTTLED.sensed(True, 15.0, 5.0, 0.0).sensed(False, 13.0, 5.0, 1.0)
    again = throttle.sensed(True, 13.0, 5.0, 2.0)
    assert again.allowed_w < throttle.allowed_w


def drew(script: GovernorScript, seconds: float, throttled: bool) -> float:
    """Frames at 30 a second on a device that draws what its profile says: the mean power."""
    joules, total = 0.0, 0.0
    for i in range(int(seconds * 30)):
        script.t_s += 1 / 30
        if i % 6 == 0:
            script.tell(Sensed(5.9 + joules * 5, 60.0, throttled=throttled, power_lag_s=0.0, power_mean_s=0.1))
            joules = 0.0
        if i % 15 == 0:
            script.tell(Tick())
        choice = script.choose(last=script.last)
        if choice.variant is None:
            script.tell(Skipped(1, choice.cause != "budget"))
            continue
        variant = script.variants[choice.variant]
        joules += variant.active_w[0] * variant.latency_ms[0] / 1000
        total += variant.active_w[0] * variant.latency_ms[0] / 1000
        script.tell(BatchDone(choice.variant, 1, variant.latency_ms[0], 2.0, 0))
        script.last = choice.variant
    return 5.9 + total / seconds


def test_the_governor_draws_less_while_the_device_throttles_though_no_limit_is_set() -> None:
    script = GovernorScript(Budget(60.0, 0.99, 0.0), Device((5.9,)), tuple(at_one_clock(v) for v in VARIANTS))
    before_w = drew(script, 20, False)
    drew(script, 25, True)
    assert drew(script, 10, True) - 5.9 < 0.6 * (before_w - 5.9)
    assert script.decision.bound == "heat" and "heat allows" in script.published.reason
    drew(script, 250, False)
    assert math.isinf(script.state.plan.allowed.heat_w) and str(script.decision.bound) == "none"
    assert drew(script, 10, False) == pytest.approx(before_w, rel=0.05)


def at_one_clock(variant: Variant) -> Variant:
    return replace(variant, clock_factor=(1.0,), active_w=variant.active_w[-1:])


def test_a_device_of_which_no_watts_are_known_is_left_alone() -> None:
    script = GovernorScript(Budget(60.0, 0.99, 0.0), device=None)
    script.tell(Sensed(None, None, throttled=True))
    assert script.state.throttle is UNTHROTTLED
