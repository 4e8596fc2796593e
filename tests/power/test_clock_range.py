"""The governor learns that it may choose the clock, how far up, and that it no longer may."""

from __future__ import annotations

from dataclasses import replace

from edged.governor.messages import Budget, ClockRange, Sensed, Workload
from tests.support.governor_script import DEVICE, GovernorScript

CAPPED = Budget(60.0, 0.99, 0.0, 6.5, 10.0)


def test_a_given_clock_becomes_a_choice_and_a_given_again() -> None:
    script = GovernorScript(CAPPED, replace(DEVICE, fixed_clock=True))
    script.run(20, watts=6.5)
    assert script.decision.clock is None and script.state.plan.clock == 1
    script.tell(ClockRange(1))
    script.run(20, watts=6.0)
    assert script.state.plan.clock == 0 and script.decision.clock == 0
    script.tell(ClockRange(None))
    script.tell(Sensed(6.0, 50.0, clock=1))
    script.run(8, watts=6.0)
    assert script.state.device.fixed_clock and script.decision.clock is None and script.state.plan.clock == 1


def test_no_clock_beyond_the_range_is_planned() -> None:
    script = GovernorScript(Budget(60.0, 0.99, 0.0))
    script.tell(ClockRange(0))
    script.run(20, watts=6.0)
    assert script.state.plan.clock == 0
    script.tell(ClockRange(7))
    assert script.state.highest == 1, "there are two"


def test_predictions_are_those_of_the_clock_in_force() -> None:
    script = GovernorScript(CAPPED, replace(DEVICE, fixed_clock=True))
    fast_ms = script.governor.predict_ms("fp16")[0]
    script.tell(Sensed(6.0, 50.0, clock=0))
    assert script.governor.predict_ms("fp16")[0] == 2 * fast_ms


def test_on_a_device_of_one_clock_it_says_nothing() -> None:
    script = GovernorScript(CAPPED, device=None)
    before = script.state.tables
    script.tell(ClockRange(3))
    assert script.state.tables is before


def test_a_decision_speaks_of_the_cameras_there_are_now() -> None:
    script = GovernorScript(CAPPED, replace(DEVICE, fixed_clock=True))
    assert "with 1 camera " in script.published.reason
    script.tell(Workload(2, 40.0))
    assert "with 2 cameras " in script.published.reason
