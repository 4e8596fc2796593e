"""What a joule and a backlog are worth, and the price at which a budget is met."""

from __future__ import annotations

import numpy as np
import pytest

from edged.governor.estimators import latency
from edged.governor.messages import Device
from edged.governor.planner import pricing, value_iteration
from edged.governor.planner.options import tables
from edged.governor.planner.pricing import Allowed, Clocks, LongRun, Plan
from edged.governor.planner.value_iteration import Values, crossing
from tests.support.governor_script import VARIANTS

KNOWN = tables(VARIANTS, Device((4.6, 5.9)), 1)
JOULES = (KNOWN.latency_s * KNOWN.active_w).T
ROUND_S = 1 / 30
BASE_W = np.array([4.6, 5.9])


def valued(allowed: tuple[int, ...] = (0, 1, 2), sweeps: int = 30) -> Values:
    options = tuple(o for o in KNOWN.offers[1] if o.variant in allowed)
    terms = value_iteration.Terms(
        0.06, ROUND_S, 0.0, np.zeros(value_iteration.PRICES), options, JOULES[:, list(allowed)]
    )
    values = value_iteration.start(KNOWN, 0.06)
    for _ in range(sweeps):
        values = value_iteration.iterate(values, KNOWN, latency.start(3), terms)
    return values


def planned(allowed: Allowed, long_run: LongRun | None = None, clock: int = 1, free: bool = False) -> Plan:
    clocks = Clocks(BASE_W, clock, free, not free)
    made, _ = pricing.plan(valued(), allowed, long_run, clocks, ROUND_S, 0.5, 3.0, 0.0)
    return made


def test_the_reward_falls_with_the_price_and_is_the_best_accuracy_where_energy_is_free() -> None:
    reward = valued().average_reward
    for clock in range(2):
        assert (np.diff(reward[clock]) <= 1e-6).all()
    assert reward[1, 0] == pytest.approx(0.80, abs=0.02)  # fp16 on every frame
    assert reward[1, -1] == pytest.approx(0.0, abs=0.01)  # nothing is worth such a price


def test_a_backlog_is_worth_less_the_longer_it_is() -> None:
    assert (np.diff(valued().relative_value[1, 0]) <= 1e-6).all()


def test_a_variant_that_may_not_run_earns_nothing() -> None:
    assert valued((2,)).average_reward[1, 0] == pytest.approx(0.70, abs=0.02)


def test_the_crossing_is_where_consumption_falls_to_the_target() -> None:
    at = np.array([1.0, 2.0, 4.0, 8.0])
    assert crossing(np.array([9.0, 6.0, 3.0, 1.0]), at, 10.0) == 0.0
    assert crossing(np.array([9.0, 6.0, 3.0, 1.0]), at, 6.0) == pytest.approx(2.0)
    assert 2.0 < crossing(np.array([9.0, 6.0, 3.0, 1.0]), at, 4.0) < 4.0
    assert crossing(np.array([9.0, 6.0, 3.0, 1.0]), at, 0.0) == pytest.approx(8.0)


def test_less_power_makes_a_joule_dearer_and_the_binding_budget_is_named() -> None:
    assert planned(Allowed()).price == 0.0 and planned(Allowed()).bound == "none"
    costs = [planned(Allowed(window_w=w)).price for w in (14.0, 11.0, 9.0, 7.0)]
    assert costs == sorted(costs) and costs[-1] > costs[0]
    assert planned(Allowed(window_w=9.0)).bound == "power"
    assert planned(Allowed(window_w=9.0, heat_w=8.0)).bound == "heat"
    night = planned(Allowed(window_w=12.0, energy_w=8.0, safe=False))
    assert night.bound == "energy" and night.paced


def test_a_quiet_time_saves_for_a_burst_within_its_window_only() -> None:
    """The past was busy and its joules dear; now there is power to spare."""
    clocks = Clocks(BASE_W, 1, False, False)
    _, busy = pricing.plan(valued(), Allowed(7.0), None, clocks, ROUND_S, 0.5, 3.0, 0.0)
    without = planned(Allowed(window_w=20.0), busy)
    short = planned(Allowed(window_w=20.0, cap_w=7.0, window_s=5.0), busy)
    long = planned(Allowed(window_w=20.0, cap_w=7.0, window_s=60.0), busy)
    assert without.price == 0.0 < short.price < long.price


def plans_until_a_change(allowed: Allowed, stall_price: float = 0.0, free: bool = True) -> int | None:
    """How many plans, half a second apart, at the higher clock before another is asked for; None: it is not in 100."""
    clocks, long_run = Clocks(BASE_W, 1, free, not free, stall_price), None
    for k in range(100):
        made, long_run = pricing.plan(valued(), allowed, long_run, clocks, ROUND_S, 0.5, 3.0, 0.0)
        if made.clock != 1:
            return k
    return None


def test_the_clock_is_changed_only_where_it_may_be_and_where_it_gains() -> None:
    assert plans_until_a_change(Allowed(window_w=6.4)) is not None
    assert plans_until_a_change(Allowed(window_w=6.4), free=False) is None
    assert plans_until_a_change(Allowed()) is None
    assert plans_until_a_change(Allowed(window_w=float(BASE_W[1]))) == 0, "no frame could run"


def test_the_clock_is_changed_once_what_that_would_have_gained_pays_for_it() -> None:
    """The later, the less it gains and the more frames come late by it."""
    free, soon, later = (
        plans_until_a_change(Allowed(window_w=w), mu) for w, mu in ((7.0, 0.0), (7.0, 4.0), (9.0, 4.0))
    )
    assert free is not None and soon is not None and later is not None and free < soon < later


def test_with_a_fixed_clock_what_lasts_is_computed_at_that_clock_alone() -> None:
    """At the lower clock the same energy would go further, but the device may not go there."""
    night = Allowed(energy_w=7.5, safe=False)
    assert planned(night, clock=1, free=False).price > 1.2 * planned(night, clock=1, free=True).price
    assert planned(night, clock=0, free=False).price < planned(night, clock=1, free=False).price
