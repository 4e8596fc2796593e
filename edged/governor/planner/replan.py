"""The slow path, twice a second: estimates and budgets in, a plan out: the price of a joule, the clock. Pure.

Some milliseconds. `limits` say what each budget allows, `value_iteration` what a backlog and a joule are worth,
`pricing` puts them together. A limit that even no frames would hold is unenforceable: it is reported, and does not
count.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

import numpy as np

from edged.governor.estimators import thermal
from edged.governor.limits import power_window
from edged.governor.planner import pricing, value_iteration
from edged.governor.planner.options import Array, Option
from edged.governor.planner.pricing import Allowed, Clocks
from edged.governor.state import State

REPLAN_S: Final = 0.5
SEEN_S: Final = 1.5  # what was saved is spent ahead only while the last observation is so recent
HEAT_SMOOTHING: Final = 0.06
WINDOW_SMOOTHING: Final = 0.25
ROUND_SMOOTHING: Final = 0.3
LEAST_W: Final = 0.1  # no device idles at less, whatever its meter says
OPTIMISM_MOST: Final = 0.5
KNOWN: Final = 0.1
"""Relative error of the watts at a clock: above KNOWN, but for at most OPTIMISM_MOST, they are hoped to be lower."""
UNENFORCEABLE: Final = 1.02  # idle power as a share of a limit above which even no frames hold it
UNENFORCEABLE_C: Final = 2.0  # the same: degrees by which idling alone exceeds the temperature limit
QUIET_SHARE: Final = 0.05
"""Share of the time in which frames may run, as the sensor shows it, for its reading to be that of an idle device."""
CERTAIN_S: Final = {"power": 8.0, "energy": 8.0, "heat": 20.0}
"""So long that must hold before it is believed, and after it no longer holds: a shorter load is one to wait for, and
what is hot has first to cool."""


def replan(state: State, now_s: float) -> None:
    """Budgets, prices and the clock for the next half second."""
    elapsed_s = now_s - state.planned_s if state.planned else REPLAN_S
    state.latency.fade(now_s, REPLAN_S)
    state.planned_s = now_s
    if state.device.assumed:
        state.permit(state.allowed)  # what is learnt of its energy decides whether a variant is dominated
    state.round_s += ROUND_SMOOTHING * (state.offered_s - state.round_s)
    options = tuple([o for o in state.tables.offers[state.frames_per_round] if state.candidates[o.variant]])
    costs = _costs(state, options)
    base_w = _base_w(state, now_s)
    state.unenforceable = _unenforceable(state, now_s)
    # a reading of idle power is of one clock
    fixed, highest = state.device.fixed_clock or state.is_quiet(now_s), _highest(state)
    # the requested clock counts as the clock: until a batch has run at it there is no other report of it
    clock = state.clock if fixed else min(state.plan.clock, highest)
    allowed = _allowed(state, options, base_w, now_s)
    deadline_s, penalty = state.budget.deadline_ms / 1000, [state.drop_penalty(price) for price in state.values.prices]
    terms = value_iteration.Terms(deadline_s, state.period_s, state.late_price, np.array(penalty), options, costs)
    state.values = values = value_iteration.iterate(state.values, state.tables, state.latency, terms)
    served = np.array([state.tables.accuracy[o.variant] * o.frames for o in options])
    service_price = float((served / np.maximum(1e-9, costs[state.idle_clock])).max())
    reach = np.minimum(np.arange(state.tables.clocks), highest)  # a clock above is like the highest there is
    within = replace(values, relative_value=values.relative_value[reach], average_reward=values.average_reward[reach])
    may_switch = not fixed and now_s - state.clock_s >= pricing.CLOCK_HOLD_S
    clocks = Clocks(base_w[reach], clock, may_switch, fixed, _stall_price(state, clock))
    correction = state.feedback.correction
    state.plan, state.long_run = pricing.plan(
        within, allowed, state.long_run, clocks, state.period_s, elapsed_s, service_price, correction
    )
    if state.plan.paced:
        state.feedback.correction *= 0.97
    if state.plan.clock != clock:
        state.clock_s = now_s


def _stall_price(state: State, clock: int) -> float:
    """Of the frames of a period that come late because the clock changes just then."""
    service_s = min([state.service_s(i, clock) for i, may in enumerate(state.candidates) if may])
    beyond_s = pricing.CLOCK_STALL_S + service_s - state.budget.deadline_ms / 1000
    share = min(1.0, max(0.0, beyond_s / pricing.CLOCK_STALL_S))
    return state.late_price * share * state.frames_per_round


def _highest(state: State) -> int:
    """The highest clock that may be chosen: one at which the device draws more at rest than `power_w` is never."""
    cap_w, highest = state.budget.power_w, state.highest
    if cap_w is None or "power" in state.unenforceable:
        return highest
    other_w = max(0.0, state.power.background_w)
    while highest > 0 and state.power.rest_w(state.tables, highest, state.junction_c) + other_w >= cap_w:
        highest -= 1
    return highest


def _costs(state: State, options: tuple[Option, ...]) -> Array:
    """Joules by clock and option. A clock that was hardly tried counts as cheaper than it seems by the error: else one
    that seems too dear would never be tried."""
    variants, power = range(len(state.tables.names)), state.power
    single = np.array([[state.joules(i, clock) for i in variants] for clock in range(state.tables.clocks)])
    if power.clocks > 1:
        for clock in range(power.clocks):
            if clock != state.clock:
                error = min([power.error(i, clock) / power.factor(i, clock) for i in variants])
                single[clock] *= 1.0 - min(OPTIMISM_MOST, max(0.0, error - KNOWN))
    return np.asarray(single[:, [o.variant for o in options]] * np.array([o.times for o in options]))


def _base_w(state: State, now_s: float) -> Array:
    """Drawn without any frame, by clock."""
    rest_w = [state.power.rest_w(state.tables, clock, state.junction_c) for clock in range(state.tables.clocks)]
    return np.array(rest_w) + state.power.background_w + state.power.stale_margin_w(now_s)


def _unenforceable(state: State, now_s: float) -> tuple[str, ...]:
    """The limits that the device exceeds with no frame at all, for some time and by more than the estimate's error."""
    budget, clock = state.budget, state.idle_clock
    idle_w = state.power.rest_w(state.tables, clock, state.junction_c)
    idle_w += state.power.background_w - 2 * state.power.background_error_w
    mean_w = None if budget.energy_wh is None else budget.energy_wh / budget.energy_horizon_h
    limits_w = {"power": budget.power_w, "energy": mean_w}
    over = {name for name, watts in limits_w.items() if watts is not None and idle_w > UNENFORCEABLE * watts}
    # without a profile what frames draw and what the device draws anyway are told apart only once frames have stopped
    busy = float((state.power.frames_w / np.maximum(1e-9, state.tables.active_w[:, clock])).sum())
    proven = state.profiled or busy < QUIET_SHARE
    over = {name for name in over if proven or name in state.unenforceable} if state.knows_power else set()
    if budget.temperature_c is not None and state.heat.mean is not None:
        resistance = state.device.junction_sink_c_per_w + state.device.sink_air_c_per_w
        hot = float(state.heat.mean[2]) + resistance * idle_w > budget.temperature_c + UNENFORCEABLE_C
        if hot and (proven or "heat" in state.unenforceable):
            over.add("heat")

    for name in CERTAIN_S:
        if (name in over) == (name in state.unenforceable):
            state.exceeded_s.pop(name, None)
        else:
            state.exceeded_s.setdefault(name, now_s)
    changed = {name for name, since_s in state.exceeded_s.items() if now_s - since_s >= CERTAIN_S[name]}
    return tuple([name for name in CERTAIN_S if (name in state.unenforceable) != (name in changed)])


def _allowed(state: State, options: tuple[Option, ...], base_w: Array, now_s: float) -> Allowed:
    window_w = math.inf if "power" in state.unenforceable else _window_w(state, now_s)
    heat_w = math.inf if "heat" in state.unenforceable else _heat_w(state)
    if math.isfinite(state.throttle.allowed_w):
        heat_w = min(heat_w, state.throttle.held_w(float(base_w[state.clock])))
    energy_w, safe = _energy_w(state, options, now_s)
    if not math.isfinite(window_w) or state.budget.power_w is None:
        return Allowed(window_w, heat_w, energy_w, safe)
    return Allowed(window_w, heat_w, energy_w, safe, state.budget.power_w, state.budget.power_window_s)


def _window_w(state: State, now_s: float) -> float:
    cap_w, caps, power, window_s = state.budget.power_w, state.caps, state.power, state.budget.power_window_s
    if cap_w is None or caps is None or not state.knows_power:
        return math.inf
    state.caps = caps = caps.noted(cap_w, now_s)
    # what was saved is only spent ahead as far as the device is seen and its draw is known
    seen = now_s - power.valid_s <= SEEN_S
    mean_w = power.history.mean_w + 0.5 * power.background_error_w if seen else math.inf
    history = power.predicted(state.tables, state.clock, state.junction_c, now_s)
    window_w = power_window.allowed_w(history, caps, mean_w, now_s, power.doubt_j(window_s))
    smooth_w = _smooth(state, "power", window_w, WINDOW_SMOOTHING)
    return min(smooth_w, window_w + 0.03 * cap_w) if window_w > 0.9 * smooth_w else window_w


def _heat_w(state: State) -> float:
    if state.budget.temperature_c is None:
        return math.inf
    heat_w = thermal.allowed_w(state.heat, state.heat_model, state.budget.temperature_c)
    if not math.isfinite(heat_w):
        return heat_w
    return min(_smooth(state, "heat", heat_w, HEAT_SMOOTHING), heat_w + 0.4)


def _smooth(state: State, limit: str, watts: float, gain: float) -> float:
    before_w = state.smooth_w.get(limit, watts)
    state.smooth_w[limit] = before_w + gain * (watts - before_w)
    return state.smooth_w[limit]


def _energy_w(state: State, options: tuple[Option, ...], now_s: float) -> tuple[float, bool]:
    """What battery and quota allow, and whether the cheapest service is safe all the same."""
    watts, safe, store, quota = math.inf, True, state.store, state.quota
    if store is not None:
        clock = state.idle_clock
        idle_w = float(state.tables.idle_w[clock]) + state.power.background_w
        if state.knows_heat:
            idle_w = state.power.rest_w(state.tables, clock, state.junction_c) + state.power.background_w
        cheapest_j = min(state.joules(o.variant, clock) * o.times / o.frames for o in options)
        store.plan(max(LEAST_W, idle_w), cheapest_j * state.cameras / state.round_s, now_s)
        watts, safe = store.allowed_w, store.safe
    if quota is not None and state.knows_power and "energy" not in state.unenforceable:
        drawn_j = state.power.history.drawn_j
        quota.roll(now_s, drawn_j)
        if (allowed_w := quota.allowed_w(now_s, drawn_j)) < watts:
            watts, safe = allowed_w, False
    return watts, safe
