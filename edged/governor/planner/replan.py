"""The slow path: estimates and budgets in, a plan out: what each budget allows, the price of a joule, the clock. Pure.

Twice a second, some milliseconds. What each budget allows comes from its own module (`window`, `thermal`, `battery`,
`horizon`); what a backlog and a joule are worth from `worth`; `prices` puts them together.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from edged.governor.estimators import latency, power, thermal
from edged.governor.fast_replace import replace
from edged.governor.limits import battery, power_window
from edged.governor.planner import pricing, value_iteration
from edged.governor.planner.options import Array, Option
from edged.governor.planner.pricing import Allowed, Plan
from edged.governor.state import Economy

REPLAN_S: Final = 0.5
SEEN_S: Final = 1.5
"""What was saved is spent ahead only while the device was seen so lately."""
UNHURRIED: Final = 0.06
"""Smoothing of what heat allows; of what the window allows: QUICK."""
QUICK: Final = 0.25
ROUND_SMOOTHING: Final = 0.3
LEAST_W: Final = 0.1
"""No device rests at less, whatever its meter says."""


def replan(e: Economy, now_s: float, clock: int, may_switch: bool) -> Economy:
    """Budgets, prices and the clock, afresh."""
    elapsed_s = now_s - e.planned_s if e.planned else REPLAN_S
    pace = latency.fade(e.latency, now_s, REPLAN_S)
    e = replace(e, latency=pace, planned_s=now_s, round_s=e.round_s + ROUND_SMOOTHING * (e.offered_s - e.round_s))
    options = tuple(e.tables.options[i] for i in e.tables.offers[e.together])
    costs = _costs(e, options)
    difficulties = e.scene.quantiles()
    middle = difficulties[len(difficulties) // 2]
    e, allowed = _budgets(e, options, now_s)
    terms = value_iteration.Terms(
        e.budget.deadline_ms / 1000, e.period_s, e.late_price,
        np.array([e.given_up_price(price) for price in e.worth.prices]), difficulties, e.allowed, options, costs,
    )  # fmt: skip
    value = value_iteration.iterate(e.worth, e.tables, e.latency, terms)
    service = max(
        (e.tables.easy[o.variant] - e.tables.slope[o.variant] * middle)
        * o.frames
        / max(1e-9, float(costs[e.rest_clock, i]))
        for i, o in enumerate(options)
        if e.allowed[o.variant]
    )
    free = not e.device.held and may_switch and now_s - e.clock_s >= pricing.CLOCK_HOLD_S
    reach = np.minimum(np.arange(e.tables.clocks), e.highest)  # a clock that cannot be had is like the highest that can
    within, base_w = replace(value, value=value.value[reach], gain=value.gain[reach]), _base_w(e, now_s)[reach]
    plan, long_run = pricing.plan(
        within, base_w, allowed, e.long_run, e.period_s, elapsed_s, service, e.spending.correction, clock, free,
        e.device.held, e.device.clock_switch_ms / 1000,
    )  # fmt: skip
    plan = replace(plan, home=_homes(e, plan, options, middle))
    spending = e.spending.relaxed(0.97) if plan.paced else e.spending
    clock_s = now_s if plan.clock != clock else e.clock_s
    return replace(e, worth=value, long_run=long_run, plan=plan, spending=spending, clock_s=clock_s)


def _homes(e: Economy, plan: Plan, options: tuple[Option, ...], difficulty: float) -> tuple[float, ...]:
    """What a period is worth on each variant alone, without switching: which one is best to live with."""
    known, late = e.tables, e.late_price
    homes = [-1e3] * len(known.names)
    log_deadline = math.log(e.budget.deadline_ms / 1000)
    price = plan.price * math.exp(e.spending.correction)
    for option in options:
        i = option.variant
        usual_s = e.usual_s(i, plan.clock)
        on_time = e.latency.on_time(log_deadline - math.log(usual_s * option.times))
        earned = (on_time * (known.easy[i] - known.slope[i] * difficulty + late) - late) * option.frames
        value = earned - price * e.joule(i, plan.clock) * option.times
        homes[i] = max(homes[i], value + plan.ahead(usual_s * option.times - e.period_s))
    return tuple(homes)


def _costs(e: Economy, options: tuple[Option, ...]) -> Array:
    """Joules by clock and option."""
    known = e.tables
    single = np.array([[e.joule(i, clock) for i in range(len(known.names))] for clock in range(known.clocks)])
    return np.asarray(single[:, [o.variant for o in options]] * np.array([o.times for o in options]))


def _base_w(e: Economy, now_s: float) -> Array:
    """Drawn without any frame, by clock."""
    leakage_w = e.device.leakage_w_per_c * (e.junction_c - 25.0)
    return np.asarray(e.tables.idle_w + leakage_w + e.energy.other_w + e.energy.blind_w(now_s))


def _budgets(e: Economy, options: tuple[Option, ...], now_s: float) -> tuple[Economy, Allowed]:
    e, window_w = _window_w(e, now_s)
    e, heat_w = _heat_w(e)
    if math.isfinite(e.throttle.allowed_w):
        heat_w = min(heat_w, e.throttle.held_w(float(_base_w(e, now_s)[e.clock])))
    e, battery_w, safe = _lasting_w(e, options, now_s)
    allowed = Allowed(window_w, heat_w, battery_w, safe)
    if not math.isfinite(window_w) or e.budget.power_w is None:
        return e, allowed
    steady_w = window_w if e.smooth_w[2] is None else e.smooth_w[2]
    return e, replace(allowed, cap_w=e.budget.power_w, window_s=e.budget.power_window_s, steady_w=steady_w)


def _window_w(e: Economy, now_s: float) -> tuple[Economy, float]:
    cap_w, caps = e.budget.power_w, e.caps
    if cap_w is None or caps is None or not e.knows_power:
        return e, math.inf
    caps = caps.noted(cap_w, now_s)
    # what was saved is only spent ahead as far as the device is seen and its draw is known
    seen = now_s - e.energy.valid_s <= SEEN_S
    usual_w = e.energy.book.usual_w + 0.5 * e.energy.other_error_w if seen else math.inf
    book = power.booked(e.energy, e.tables, e.clock, e.junction_c, now_s)
    window_w = power_window.allowed_w(book, caps, usual_w, now_s, e.energy.doubt_j(e.budget.power_window_s))
    before, heat_before, steady_before = e.smooth_w
    smooth_w = window_w if before is None else before + QUICK * (window_w - before)
    # what a short window allows has come and gone before a change of clock has paid for itself
    steady = REPLAN_S / pricing.CLOCK_PAYBACK_S if e.budget.power_window_s < pricing.CLOCK_PAYBACK_S else 1.0
    steady_w = window_w if steady_before is None else steady_before + steady * (window_w - steady_before)
    if window_w > 0.9 * smooth_w:
        window_w = min(smooth_w, window_w + 0.03 * cap_w)
    return replace(e, caps=caps, smooth_w=(smooth_w, heat_before, steady_w)), window_w


def _heat_w(e: Economy) -> tuple[Economy, float]:
    if e.budget.temperature_c is None:
        return e, math.inf
    heat_w = thermal.allowed_w(e.heat, e.physics, e.budget.temperature_c)
    if not math.isfinite(heat_w):
        return e, heat_w
    window_before, before, steady_w = e.smooth_w
    smooth_w = heat_w if before is None else before + UNHURRIED * (heat_w - before)
    return replace(e, smooth_w=(window_before, smooth_w, steady_w)), min(smooth_w, heat_w + 0.4)


def _lasting_w(e: Economy, options: tuple[Option, ...], now_s: float) -> tuple[Economy, float, bool]:
    """What the battery and the horizon's energy allow, and whether the cheapest service is safe all the same."""
    watts, safe, store, ahead = math.inf, True, e.store, e.horizon
    if e.budget.battery is not None:
        rest_w = float(e.tables.idle_w[e.rest_clock]) + e.energy.other_w
        rest_w += e.device.leakage_w_per_c * (e.junction_c - 25.0) if e.knows_heat else 0.0
        rest_w = max(LEAST_W, rest_w)
        cheapest_j = min(e.joule(o.variant, e.rest_clock) * o.times / o.frames for o in options if e.allowed[o.variant])
        store = battery.plan(store, e.budget.battery, rest_w, cheapest_j * e.cameras / e.round_s, now_s)
        watts, safe = store.allowed_w, store.safe
    if ahead is not None and e.knows_power:
        ahead = ahead.rolled(now_s, e.energy.book.drawn_j)
        allowed_w = ahead.allowed_w(now_s, e.energy.book.drawn_j)
        if allowed_w < watts:
            watts, safe = allowed_w, False
    return replace(e, store=store, horizon=ahead), watts, safe
