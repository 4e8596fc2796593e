"""The slow path: what each budget allows comes together in one plan, and what cannot be held does not count."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from edged.clock import NS_PER_S
from edged.governor.governor import Governor
from edged.governor.messages import (
    BatchDone,
    Battery,
    BatteryBudget,
    Budget,
    BudgetChanged,
    ClockRange,
    Device,
    Residency,
    Sensed,
    Tick,
    Variant,
    Workload,
)
from edged.governor.planner.replan import CERTAIN_S
from edged.governor.state import State
from tests.support.governor_script import AT_ONE_CLOCK, DEVICE, VARIANTS, GovernorScript

OPEN = Budget(60.0, 0.99, 0.0)
FIXED = replace(DEVICE, fixed_clock=True)
UNPROFILED = [replace(v, clock_factor=(), active_w=()) for v in VARIANTS]
NIGHT = replace(OPEN, battery=BatteryBudget(3600.0))


def idle(
    budget: Budget, device: Device = DEVICE, charge: float | None = None, watts: float | None = 6.0, seconds: int = 30
) -> State:
    """Samples and plans, with no frame run."""
    script = GovernorScript(budget, device)
    battery = None if charge is None else Battery(charge * 7.0 * 3600, 7.0 * 3600)
    for _ in range(2 * seconds):
        script.at(script.t_s + 0.5, Sensed(watts, 45.0, 1, battery=battery), Tick())
    return script.state


def test_without_a_budget_a_joule_is_free_and_nothing_bounds() -> None:
    plan = idle(OPEN).plan
    assert plan.price == 0.0 and plan.bound == "none"
    assert math.isinf(plan.allowed.window_w) and math.isinf(plan.allowed.energy_w)


def test_each_budget_allows_what_it_says_and_the_tightest_is_named() -> None:
    power = idle(replace(OPEN, power_w=7.0)).plan
    assert power.bound == "power" and 6.5 < power.allowed.window_w < 1.36 * 7.0 and power.allowed.cap_w == 7.0
    heat = idle(replace(OPEN, power_w=30.0, temperature_c=50.0), watts=5.0).plan
    assert heat.bound == "heat" and heat.allowed.heat_w < 10.0


def test_the_battery_allows_its_charge_over_the_time_that_is_left() -> None:
    assert idle(NIGHT, charge=0.9).plan.allowed.energy_w == pytest.approx(0.9 * 7.0, rel=0.03)


def test_a_fixed_clock_idles_at_its_own_power() -> None:
    """7 W for an hour: the low clock idles at 4.6 W, the high one at 5.9 W."""
    free, fixed = idle(NIGHT, charge=0.95), idle(NIGHT, FIXED, charge=0.95)
    assert free.store is not None and fixed.store is not None
    assert free.store.rest_w is not None and fixed.store.rest_w is not None
    assert fixed.store.rest_w > free.store.rest_w + 1.0
    assert fixed.plan.clock == 1 and fixed.store.safe


def test_an_unseen_device_keeps_its_window_without_spending_ahead() -> None:
    assert idle(replace(OPEN, power_w=7.0), watts=None).plan.allowed.window_w <= 7.0 * 1.36


@pytest.mark.parametrize(
    ("budget", "name"),
    [
        (replace(OPEN, power_w=4.0), "power"),
        (replace(OPEN, energy_wh=4.0, energy_horizon_h=1.0), "energy"),
        (replace(OPEN, temperature_c=40.0), "heat"),
    ],
)
def test_a_limit_that_idling_exceeds_is_soon_unenforceable_and_stops_nothing(budget: Budget, name: str) -> None:
    script = GovernorScript(budget, Device((5.9,)), AT_ONE_CLOCK)
    script.run(CERTAIN_S[name] + 2, idle_w=5.9, celsius=60.0)
    assert script.state.unenforceable == (name,)
    assert script.state.plan.price == 0.0 and None not in script.run(5, idle_w=5.9, celsius=60.0)
    assert script.decision.unenforceable == (name,)
    assert name in script.decision.relaxed


def test_a_limit_just_above_idle_is_held() -> None:
    script = GovernorScript(replace(OPEN, power_w=6.3), Device((5.9,)), AT_ONE_CLOCK)
    chosen = script.run(35, idle_w=5.9)
    assert script.state.unenforceable == () and chosen[-300:].count(None) > 100


def test_another_load_that_passes_makes_no_limit_unenforceable() -> None:
    """Loads of 6 s that alone exceed the limit, again and again."""
    script = GovernorScript(replace(OPEN, power_w=6.5), Device((5.9,)), AT_ONE_CLOCK)
    for _ in range(10):
        for idle_w in (8.0, 5.9):
            script.run(6, idle_w=idle_w)
            assert script.state.unenforceable == ()


def test_a_limit_that_can_be_held_again_is() -> None:
    script = GovernorScript(replace(OPEN, power_w=6.3), Device((5.9,)), AT_ONE_CLOCK)
    script.run(45, idle_w=8.9)
    assert script.state.unenforceable == ("power",), "with another load the device idles above it"
    script.run(20, idle_w=5.9)
    assert script.state.unenforceable == ()


def test_a_clock_whose_idle_power_exceeds_the_limit_is_never_asked_for() -> None:
    """The short window allows a burst above the limit, and the highest clock idles at 12 W."""
    idle_w = (4.0, 6.0, 8.0, 12.0)
    variants = [replace(v, clock_factor=(2.0, 1.5, 1.2, 1.0), active_w=(3.0, 3.5, 4.0, 5.0)) for v in VARIANTS]
    script = GovernorScript(replace(OPEN, power_window_s=2.0), Device(idle_w, fixed_clock=False), variants)
    script.tell(ClockRange(3), Tick())
    assert script.state.plan.clock == 3
    script.at(1.0, BudgetChanged(replace(OPEN, power_w=10.0, power_window_s=2.0)))
    asked = {script.state.plan.clock}  # at once, although the clock has just been chosen
    for _ in range(120):
        clock = script.state.plan.clock
        script.at(script.t_s + 0.5, Sensed(idle_w[clock], 45.0, clock), Tick())
        asked.add(script.state.plan.clock)
    assert 3 not in asked


def test_a_limit_is_not_called_unenforceable_while_frames_run_on_an_unknown_device() -> None:
    """However little the frames are believed to draw, only a device at rest shows what it draws at rest."""
    script = GovernorScript(replace(OPEN, power_w=6.0), None, UNPROFILED)
    for _ in range(300):
        script.at(script.t_s + 0.2, Sensed(7.0))
        script.tell(BatchDone("fp16", 1, 100.0, 0.0, 0), Tick())
    assert not script.state.unenforceable


def test_an_energy_limit_holds_from_the_moment_a_variant_is_loaded() -> None:
    """Before that the long run knew another choice, which may have been cheap enough to run at no price."""
    known = [
        Variant("fine", 0.9, (), (1.0,), (8.0,), away="it is not loaded yet"),
        Variant("fast", 0.8, (2.0,), (1.0,), (6.0,)),
    ]
    budget = Budget(500.0, 0.99, 0.0, energy_wh=6.0 / 60, energy_horizon_h=1 / 60)
    governor = Governor(known, budget, 0, Device((4.5,)))
    for n in range(8):
        governor.observe(Workload(2, 40.0), n * NS_PER_S // 2)
        governor.observe(Tick(), n * NS_PER_S // 2)
    assert governor.state.price == 0
    governor.observe(Residency("fine", None, (20.0,)), 4 * NS_PER_S)
    for n in range(8, 16):
        governor.observe(Workload(2, 40.0), n * NS_PER_S // 2)
        governor.observe(Tick(), n * NS_PER_S // 2)
    assert governor.state.price > 0
