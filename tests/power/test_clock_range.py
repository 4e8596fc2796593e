"""The governor is told that the clock may be chosen, how far up, and that it is a given again."""

from __future__ import annotations

from dataclasses import replace

from edged.governor import governor
from edged.governor.messages import Budget, ClockRange, Sensed, Workload
from tests.support.desk import DEVICE, Desk

CAPPED = Budget(60.0, 0.99, 0.0, 6.5, 10.0)


def test_a_given_clock_becomes_a_choice_and_a_given_again() -> None:
    desk = Desk(CAPPED, replace(DEVICE, held=True))
    desk.run(20, watts=6.5)
    assert desk.decision.clock is None and desk.state.economy.plan.clock == 1
    desk.tell(ClockRange(1))
    desk.run(20, watts=6.0)
    assert desk.state.economy.plan.clock == 0 and desk.decision.clock == 0
    desk.tell(ClockRange(None))
    desk.tell(Sensed(6.0, 50.0, clock=1))
    desk.run(8, watts=6.0)
    assert desk.state.economy.device.held and desk.decision.clock is None and desk.choose(clock=1).clock == 1


def test_no_clock_beyond_the_range_is_planned() -> None:
    desk = Desk(Budget(60.0, 0.99, 0.0))
    desk.tell(ClockRange(0))
    desk.run(20, watts=6.0)
    assert desk.state.economy.plan.clock == 0
    desk.tell(ClockRange(7))
    assert desk.state.economy.highest == 1, "there are two"


def test_predictions_are_those_of_the_clock_in_force() -> None:
    desk = Desk(CAPPED, replace(DEVICE, held=True))
    fast_ms = governor.predict_ms(desk.state, "fp16")[0]
    desk.tell(Sensed(6.0, 50.0, clock=0))
    assert governor.predict_ms(desk.state, "fp16")[0] == 2 * fast_ms


def test_on_a_device_of_one_clock_it_says_nothing() -> None:
    desk = Desk(CAPPED, device=None)
    before = desk.state
    desk.tell(ClockRange(3))
    assert desk.state.economy.tables is before.economy.tables


def test_a_decision_speaks_of_the_cameras_there_are_now() -> None:
    desk = Desk(CAPPED, replace(DEVICE, held=True))
    assert "with 1 camera " in desk.decision.reason
    desk.tell(Workload(2, 40.0, 0))
    assert "with 2 cameras " in desk.decision.reason
