"""All that is estimated and priced, and the choice for each batch: observations in, Choices out. Pure.

Fast path (`choose`, before each batch): the option that earns most after prices. Slow path (`replan`, twice a second):
`worth` and `prices`. Between them `ran`, `skipped` and `sensed` keep the estimates. Times are seconds from the start.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from edged.governor import battery, energy, prices, scene, tempo, thermal, window, worth
from edged.governor.decision import Budget, Device, Variant
from edged.governor.prices import Allowed, LongRun, Plan
from edged.governor.tables import Array, Tables, tables

REPLAN_S: Final = 0.5
SWITCH_COST: Final = 0.0015
"""Accuracy that a change of variant must gain: it keeps ties from flapping."""
SETTLE_FRAMES: Final = 12
"""For so many frames a change is expected to last that leads to a variant which is better to live with."""
TRY_WORTH: Final = 1.0
TRIES: Final = 3
"""A variant that has hardly run here is worth a few tries for the knowledge, even if its frame comes late."""
LATE_ALLOWED: Final = 0.006
LATE_FULL: Final = 0.0035
LATE_PRICE_MAX: Final = 4.0
LATE_SLOPE: Final = 3.0
LATE_LEAST_FRAMES: Final = 200.0
SPEND_GAIN: Final = 0.012
SPEND_KEEP: Final = 0.9995
SPEND_MAX: Final = 1.5
WARMEST_GUESS_C: Final = 50.0
SEEN_S: Final = 1.5
ESCALATE_GAIN: Final = 0.002
OBSERVED_SHARE: Final = 0.65
"""Weight of the result's own confidence against the prediction, when a frame may be run again."""


@dataclass(frozen=True)
class Spending:
    """`correction`: integral action on the price (ln); the budgets short of now are met on average by it."""

    correction: float = 0.0
    processed: float = 0.0
    late: float = 0.0


@dataclass(frozen=True, eq=False)
class Economy:
    tables: Tables
    budget: Budget
    allowed: tuple[bool, ...]
    physics: thermal.HeatModel
    tempo: tempo.Tempo
    energy: energy.Energy
    heat: thermal.Heat
    scene: scene.Scene
    caps: window.Caps | None
    store: battery.Store
    worth: worth.Worth
    long_run: LongRun
    plan: Plan
    spending: Spending
    period_s: float
    planned_s: float
    clock_s: float
    """when the clock was last changed from here"""
    smooth_w: tuple[float | None, float | None]
    """the window's and the heat's allowance, smoothed: jitter of a budget costs accuracy"""
    cameras: int
    clock: int
    """what the device runs at, as far as is known"""
    offered_s: float
    """time between two rounds of frames, as the cameras offer them"""

    @property
    def price(self) -> float:
        return self.plan.price * math.exp(self.spending.correction)


def fresh(variants: Sequence[Variant], device: Device, budget: Budget, cameras: int, fps: float) -> Economy:
    known = tables(variants, device, cameras)
    deadline_s = budget.deadline_ms / 1000
    window_s = max(1, round(budget.power_window_s))
    clock = known.clocks - 1
    estimated = worth.fresh(known, deadline_s)
    nothing = Plan(
        clock, 0.0, False, 0.0, (0.0,) * worth.GRID, deadline_s * 1.05 / (worth.GRID - 1), "none",
        float(known.idle_w[clock]), Allowed(), home=(0.0,) * len(known.names),
    )  # fmt: skip
    remember = int(min(400, max(64, fps * window_s / 3.0)))
    return Economy(
        tables=known,
        budget=budget,
        allowed=(True,) * len(known.names),
        physics=thermal.model(device),
        tempo=tempo.fresh(known.core, known.cores),
        energy=energy.fresh(known, clock, window_s),
        heat=thermal.fresh(),
        scene=scene.fresh(remember),
        caps=None if budget.power_w is None else window.fresh(budget.power_w, window_s),
        store=battery.Store(),
        worth=estimated,
        long_run=LongRun(),
        plan=nothing,
        spending=Spending(),
        period_s=1.0 / fps,
        planned_s=-math.inf,
        clock_s=-math.inf,
        smooth_w=(None, None),
        cameras=cameras,
        clock=clock,
        offered_s=1.0 / fps,
    )


def adapted(e: Economy, variants: Sequence[Variant], budget: Budget, cameras: int) -> Economy:
    """With another budget or another number of cameras; what was learnt stays."""
    known = e.tables if cameras == e.cameras else tables(variants, e.tables.device, cameras)
    value = e.worth
    if budget.deadline_ms != e.budget.deadline_ms or known is not e.tables:
        value = worth.fresh(known, budget.deadline_ms / 1000)
    window_s = max(1, round(budget.power_window_s))
    book = energy.resized(e.energy, window_s)
    caps = e.caps
    if budget.power_w is None:
        caps = None
    elif caps is None or len(caps.recent_w) != window_s:
        caps = window.fresh(budget.power_w, window_s)
    smooth_w = e.smooth_w if budget == e.budget else (None, None)
    return replace(
        e, tables=known, budget=budget, cameras=cameras, worth=value, energy=book, caps=caps, smooth_w=smooth_w,
        planned_s=-math.inf,
    )  # fmt: skip


# --- what is seen -----------------------------------------------------------------------------------------------------


def sensed(
    e: Economy, now_s: float, power_w: float | None, temperature_c: float | None, charge: float | None,
    harvest_w: float | None, clock: int,
) -> Economy:  # fmt: skip
    """After a reading; None is unknown."""
    elapsed_s = now_s - e.energy.sensed_s
    if elapsed_s <= 0:
        return e
    junction_c = e.heat.junction_c if e.heat.junction_c is not None else WARMEST_GUESS_C
    book, drawn_w = energy.sensed(e.energy, e.tables, clock, junction_c, power_w, now_s)
    heat = thermal.sensed(e.heat, e.physics, drawn_w, temperature_c, now_s)
    store = e.store
    if e.budget.battery is not None and charge is not None:
        store = battery.sensed(store, e.budget.battery, charge, harvest_w or 0.0, drawn_w, elapsed_s, now_s)
    return replace(e, energy=book, heat=heat, store=store, clock=clock)


def ran(
    e: Economy, now_s: float, variant: int, clock: int, frames: int, batch: int, seconds: float, late: int,
    confidence: float | None, contrast: float | None, cold: bool, again: bool,
) -> Economy:  # fmt: skip
    """After a run: `seconds` of one batch of `batch`, of which there were frames / batch one after the other."""
    known = e.tables
    times = _times(e, variant, frames, batch)
    nominal_j = float(known.active_w[variant, clock] * known.latency_s[variant, clock])
    stretched = math.exp(max(0.0, e.tempo.slow(known.core[variant])))
    cost_j = nominal_j * math.exp(e.tempo.own(variant)) * (energy.STALL_ENERGY + (1 - energy.STALL_ENERGY) * stretched)
    book = energy.ran(e.energy, variant, cost_j * times)
    batch_times = _times(e, variant, batch, batch)
    warm_s = seconds / (1.0 + known.device.cold_factor if cold else 1.0) / batch_times
    ratio = math.log(max(1e-5, warm_s / float(known.latency_s[variant, clock])))
    spent_j = cost_j * times * book.factor(variant) + (e.plan.target_j if again else 0.0)
    spending = _spent(e, spent_j)
    learnt = e.scene
    if not again:
        spending = replace(spending, processed=spending.processed + frames, late=spending.late + late)
        if confidence is not None:
            learnt = scene.learn(learnt, learnt.predict(contrast), contrast, confidence)
    return replace(
        e, energy=book, tempo=tempo.learn(e.tempo, variant, ratio, now_s), scene=learnt, spending=spending, clock=clock
    )


def skipped(e: Economy, frames: int, late: bool) -> Economy:
    """Frames that were not run: by choice, or because they had waited too long."""
    if late:
        spending = e.spending
        return replace(
            e, spending=replace(spending, processed=spending.processed + frames, late=spending.late + frames)
        )
    return replace(e, spending=_spent(e, 0.0))


def _spent(e: Economy, joules: float) -> Spending:
    """Integral action: what the last frame cost against the target moves the price a little."""
    spending, plan = e.spending, e.plan
    if plan.price <= 0.0 or plan.paced:
        return replace(spending, correction=spending.correction * 0.995)
    least_j = min(joule(e, i, plan.clock) for i in range(len(e.tables.names)) if e.allowed[i])
    excess = (joules - plan.target_j) / max(plan.target_j, 0.3 * least_j, 1e-9)
    correction = spending.correction * SPEND_KEEP + SPEND_GAIN * excess
    return replace(spending, correction=min(SPEND_MAX, max(-SPEND_MAX, correction)))


def joule(e: Economy, variant: int, clock: int) -> float:
    """What a single frame costs above idle, as estimated now."""
    known = e.tables
    stretched = math.exp(max(0.0, e.tempo.slow(known.core[variant])))
    unit = math.exp(e.tempo.own(variant)) * (energy.STALL_ENERGY + (1 - energy.STALL_ENERGY) * stretched)
    return float(known.active_w[variant, clock] * known.latency_s[variant, clock]) * unit * e.energy.factor(variant)


def _times(e: Economy, variant: int, frames: int, batch: int) -> float:
    if batch <= 1:
        return float(frames)
    known = [o.times for o in e.tables.options if (o.variant, o.frames, o.batch) == (variant, batch, batch)]
    return (known[0] if known else float(batch)) * max(1, frames // batch)


# --- the slow path ----------------------------------------------------------------------------------------------------


def replan(e: Economy, now_s: float, period_s: float, clock: int, may_switch: bool) -> Economy:
    """Budgets, prices and the clock, afresh."""
    elapsed_s = REPLAN_S if math.isinf(e.planned_s) else now_s - e.planned_s
    pace = tempo.fade(e.tempo, now_s, REPLAN_S)
    e = replace(e, tempo=pace, planned_s=now_s, period_s=e.period_s + 0.3 * (period_s - e.period_s))
    e, allowed = _budgets(e, now_s)
    base_w = _base_w(e, now_s)
    costs = _costs(e)
    difficulties = e.scene.quantiles()
    terms = worth.Terms(e.budget.deadline_ms / 1000, e.period_s, late_price(e.spending), difficulties, e.allowed, costs)
    value = worth.iterate(e.worth, e.tables, e.tempo, terms)
    middle = difficulties[len(difficulties) // 2]
    service = max(
        (e.tables.easy[o.variant] - e.tables.slope[o.variant] * middle) * o.frames / max(1e-9, float(costs[0, i]))
        for i, o in enumerate(e.tables.options)
        if e.allowed[o.variant]
    )
    device = e.tables.device
    free = not device.held and may_switch and now_s - e.clock_s >= prices.CLOCK_HOLD_S
    plan, long_run = prices.plan(
        value, base_w, allowed, e.long_run, e.period_s, elapsed_s, service, e.spending.correction, clock, free,
        device.clock_switch_ms / 1000,
    )  # fmt: skip
    plan = replace(plan, home=_homes(e, plan, difficulties[len(difficulties) // 2]))
    spending = replace(e.spending, correction=e.spending.correction * 0.97) if plan.paced else e.spending
    clock_s = now_s if plan.clock != clock else e.clock_s
    return replace(e, worth=value, long_run=long_run, plan=plan, spending=spending, clock_s=clock_s)


def _homes(e: Economy, plan: Plan, difficulty: float) -> tuple[float, ...]:
    """What a period is worth on each variant alone, without switching: which one is best to live with."""
    known, late = e.tables, late_price(e.spending)
    homes = [-1e3] * len(known.names)
    log_deadline = math.log(e.budget.deadline_ms / 1000)
    for option, log_times in zip(known.options, known.log_times, strict=True):
        i = option.variant
        usual_s = float(known.latency_s[i, plan.clock]) * math.exp(e.tempo.log_factor(i))
        on_time = e.tempo.on_time(log_deadline - math.log(usual_s) - log_times)
        earned = (on_time * (known.easy[i] - known.slope[i] * difficulty + late) - late) * option.frames
        price = plan.price * math.exp(e.spending.correction)
        value = earned - price * joule(e, i, plan.clock) * option.times
        homes[i] = max(homes[i], value + plan.ahead(usual_s * option.times - e.period_s))
    return tuple(homes)


def _costs(e: Economy) -> Array:
    """Joules by clock and option."""
    known = e.tables
    single = np.array([[joule(e, i, clock) for i in range(len(known.names))] for clock in range(known.clocks)])
    return np.asarray(single[:, [o.variant for o in known.options]] * np.array([o.times for o in known.options]))


def _base_w(e: Economy, now_s: float) -> Array:
    junction_c = e.heat.junction_c if e.heat.junction_c is not None else WARMEST_GUESS_C
    leakage_w = e.tables.device.leakage_w_per_c * (junction_c - 25.0)
    return np.asarray(e.tables.idle_w + leakage_w + e.energy.other_w + e.energy.blind_w(now_s))


def _budgets(e: Economy, now_s: float) -> tuple[Economy, Allowed]:
    budget, store, caps = e.budget, e.store, e.caps
    window_w = heat_w = battery_w = math.inf
    smooth_window, smooth_heat = e.smooth_w
    if caps is not None and budget.power_w is not None:
        caps = caps.noted(budget.power_w, now_s)
        # what was saved is only spent ahead as far as the device is seen and its draw is known
        seen = now_s - e.energy.valid_s <= SEEN_S
        usual_w = e.energy.usual_w + 0.5 * e.energy.other_error_w if seen else math.inf
        window_w = window.allowed_w(e.energy, caps, usual_w, now_s)
        smooth_window = window_w if smooth_window is None else smooth_window + 0.25 * (window_w - smooth_window)
        if window_w > 0.9 * smooth_window:
            window_w = min(smooth_window, window_w + 0.03 * budget.power_w)
    if budget.temperature_c is not None:
        heat_w = thermal.allowed_w(e.heat, e.physics, budget.temperature_c)
        if math.isfinite(heat_w):
            smooth_heat = heat_w if smooth_heat is None else smooth_heat + 0.06 * (heat_w - smooth_heat)
            heat_w = min(smooth_heat, heat_w + 0.4)
    if budget.battery is not None:
        base_w = float(e.tables.idle_w[0]) + max(0.0, e.energy.other_w)
        if e.heat.junction_c is not None:
            base_w += e.tables.device.leakage_w_per_c * (e.heat.junction_c - 25.0)
        cheapest_j = min(joule(e, o.variant, 0) * o.times / o.frames for o in e.tables.options if e.allowed[o.variant])
        service_w = cheapest_j * e.cameras / e.period_s
        store = battery.plan(store, budget.battery, base_w, service_w, now_s)
        battery_w = store.allowed_w
    e = replace(e, caps=caps, store=store, smooth_w=(smooth_window, smooth_heat))
    return e, Allowed(window_w, heat_w, battery_w, store.safe)


def late_price(spending: Spending) -> float:
    """Price of a late frame beyond its lost accuracy: none while fewer are late than allowed."""
    share = spending.late / max(LATE_LEAST_FRAMES, spending.processed)
    excess = (share - LATE_ALLOWED) / LATE_FULL
    return 0.0 if excess < 0 else min(LATE_PRICE_MAX, LATE_SLOPE * excess)


# --- the fast path ----------------------------------------------------------------------------------------------------


def choose(
    e: Economy, age_s: float, period_s: float, frames: int, contrast: float | None, weight: float, last: int | None,
    clock: int, may_switch: bool,
) -> tuple[int | None, int, float, float]:  # fmt: skip
    """For the frames that wait: (index of the option or None to skip, clock, value, value of skipping)."""
    known, plan, pace = e.tables, e.plan, e.tempo
    run_at = plan.clock if may_switch and not known.device.held else clock
    if run_at != clock:
        age_s += known.device.clock_switch_ms / 1000
    difficulty = e.scene.predict(contrast)
    stall_s = known.device.switch_ms / 1000
    left_s = e.budget.deadline_ms / 1000 - age_s
    log_left, log_stalled = math.log(max(1e-4, left_s)), math.log(max(1e-4, left_s - stall_s))
    late, price, log_times = late_price(e.spending), e.price, known.log_times
    best, best_value = None, -math.inf
    variant = -1
    usual_s = log_usual = accuracy = cost = extra = settles = 0.0
    for i, option in enumerate(known.options):
        if not e.allowed[option.variant] or option.frames > frames:
            continue
        if option.variant != variant:
            variant = option.variant
            usual_s = float(known.latency_s[variant, run_at]) * math.exp(pace.log_factor(variant))
            log_usual = math.log(usual_s)
            accuracy = weight * (known.easy[variant] - known.slope[variant] * difficulty)
            cost = price * joule(e, variant, run_at)
            extra = TRY_WORTH if pace.runs[variant] < TRIES else 0.0
            settles = 0.0 if last is None else SETTLE_FRAMES * max(0.0, plan.home[variant] - plan.home[last])
        log_available = log_left - log_usual - log_times[i]
        on_time = pace.on_time(log_available)
        value = (on_time * (accuracy + late) - late) * option.frames - cost * option.times + extra
        value += plan.ahead(age_s + usual_s * option.times - period_s)
        if last is not None and variant != last:
            stalled = pace.on_time(log_available - log_left + log_stalled)
            loss = (on_time - stalled) * (accuracy + late) * option.frames
            value -= SWITCH_COST + max(0.0, loss - settles)
        if value > best_value:
            best, best_value = i, value
    skip_value = plan.ahead(age_s - period_s)
    if best is None or best_value <= skip_value:
        return None, run_at, best_value, skip_value
    return best, run_at, best_value, skip_value


def escalate(
    e: Economy, first: int, confidence: float, contrast: float | None, age_s: float, period_s: float, clock: int
) -> int | None:
    """The variant to run the same frame again on, if it gains more than its joules and its delay are worth."""
    known, plan = e.tables, e.plan
    difficulty = (1 - OBSERVED_SHARE) * e.scene.predict(contrast) + OBSERVED_SHARE * scene.observed(confidence)
    second = max(
        (i for i in range(len(known.names)) if e.allowed[i]), key=lambda i: known.easy[i] - known.slope[i] * difficulty
    )
    gained = (known.easy[second] - known.slope[second] * difficulty) - (
        known.easy[first] - known.slope[first] * difficulty
    )
    if second == first or gained <= 0:
        return None
    usual_s = float(known.latency_s[second, clock]) * math.exp(e.tempo.log_factor(second))
    stall_s = known.device.switch_ms / 1000
    left_s = e.budget.deadline_ms / 1000 - age_s - stall_s
    if left_s <= 0.6 * usual_s:
        return None
    on_time = e.tempo.on_time(math.log(left_s / usual_s))
    delay = plan.ahead(age_s + usual_s + stall_s - period_s) - plan.ahead(age_s - period_s)
    return second if on_time * gained - e.price * joule(e, second, clock) + delay > ESCALATE_GAIN else None
