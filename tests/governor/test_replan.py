"""The slow path: what each budget allows comes together in one plan."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from edged.governor import state
from edged.governor.messages import Battery, Budget
from edged.governor.planner import replan
from edged.governor.state import Economy
from tests.support.desk import DEVICE, VARIANTS

OPEN = Budget(60.0, 0.99, 0.0)
HELD = replace(DEVICE, held=True)
NIGHT = replace(OPEN, battery=Battery(capacity_wh=7.0, until_s=3600.0))


def planned(budget: Budget, held: bool = False, charge: float | None = None, watts: float | None = 6.0) -> Economy:
    """Half a minute of readings and plans, with no frame run."""
    e = state.fresh(VARIANTS, HELD if held else DEVICE, budget, 1, 30.0)
    for i in range(60):
        e = state.sensed(e, i / 2 + 0.5, watts, 45.0, charge, None, 1)
        e = replan.replan(e, i / 2 + 0.5, 1 if held else e.plan.clock, True)
    return e


def test_without_a_budget_a_joule_is_free_and_nothing_bounds() -> None:
    plan = planned(OPEN).plan
    assert plan.price == 0.0 and plan.bound == "none"
    assert math.isinf(plan.allowed.window_w) and math.isinf(plan.allowed.battery_w)


def test_each_budget_allows_what_it_says_and_the_tightest_is_named() -> None:
    power = planned(replace(OPEN, power_w=7.0)).plan
    assert power.bound == "power" and 6.5 < power.allowed.window_w < 1.36 * 7.0 and power.allowed.cap_w == 7.0
    heat = planned(replace(OPEN, power_w=30.0, temperature_c=50.0)).plan
    assert heat.bound == "heat" and heat.allowed.heat_w < 10.0


def test_the_battery_allows_its_charge_over_the_time_that_is_left() -> None:
    plan = planned(NIGHT, charge=0.9).plan
    assert plan.allowed.battery_w == pytest.approx(0.9 * 7.0, rel=0.03)


def test_a_held_clock_is_reckoned_at_its_own_rest() -> None:
    """7 W for an hour: served at the low clock's 4.6 W of rest, not at the high one's 5.9 W."""
    free, held = planned(NIGHT, charge=0.95), planned(NIGHT, held=True, charge=0.95)
    assert free.store.rest_w is not None and held.store.rest_w is not None
    assert held.store.rest_w > free.store.rest_w + 1.0
    assert held.plan.clock == 1 and held.store.safe


def test_an_unseen_device_keeps_its_window_without_spending_ahead() -> None:
    blind = planned(replace(OPEN, power_w=7.0), watts=None)
    assert blind.plan.allowed.window_w <= 7.0 * 1.36


def test_what_is_best_to_live_with_is_the_better_variant_where_joules_are_free() -> None:
    home = planned(OPEN).plan.home
    assert home[0] == max(home)
