"""The decision: `(state, observation, now) -> (state, Decision)`. Pure: no I/O, no clock; the engine loop calls it.

Two rhythms. `step` takes every observation and answers with the standing Decision (`standing`), the same object as
long as nothing changes. `choose` answers for the frames that wait: the economy's choice, which mixes variants so that
each millisecond, and where watts are known each joule, goes where it earns most.

When not all limits can be held, they give way in this order, last first: the frame rate, then accuracy (the floor only
when no working variant reaches it), then energy (only to keep the cheapest service while the store will survive it),
then power, then the deadline, and heat never while any action avoids it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from edged.clock import NS_PER_S
from edged.errors import EdgedError, UsageError
from edged.governor import explain, ingest, summary, vetoes
from edged.governor import state as economy
from edged.governor.device import sound
from edged.governor.estimators.latency import plausible_ms
from edged.governor.estimators.queueing import Lead
from edged.governor.fast_replace import replace
from edged.governor.messages import (
    BatchDone,
    Budget,
    BudgetChanged,
    Choice,
    ClockRange,
    Decision,
    Device,
    Number,
    Observation,
    Pinned,
    Sensed,
    ShadowDone,
    Skipped,
    Tick,
    Unvetoed,
    Variant,
    VariantLost,
    Vetoed,
    Waiting,
    Workload,
)
from edged.governor.planner import replan
from edged.governor.profile import MAX_BATCH, accuracy_of, checked, costs_of, rank
from edged.governor.standing import HOLD_S, LATE_CAP, SETTLE_S, State, afresh, index, reconsider

SCHEDULE_QUANTILE: Final = 0.9
"""What the scheduler is told: if a late frame costs as much as five good ones, a frame pays from 5 in 6 on time."""
FIRST_FPS: Final = 30.0
"""Until the cameras are counted."""
FLOOR_HINT: Final = "lower [limits] min_accuracy, or add a more accurate variant to the bundle"


def refusal(variants: Sequence[Variant], budget: Budget) -> str | None:
    """Why these variants cannot hold this budget (none reaches min_accuracy), or None. For `check` and `set`."""
    if any(explain.barred_by_floor(accuracy_of(v), budget) is None for v in variants):
        return None
    best = max((a for v in variants if (a := accuracy_of(v)) is not None), default=None)
    known = "no variant's accuracy is known" if best is None else f"the most accurate variant has {best:.3g}"
    return f"min_accuracy = {budget.min_accuracy:g} cannot be held: {known}"


def start(
    variants: Sequence[Variant], budget: Budget, now_ns: int, device: Device | None = None
) -> tuple[State, Decision]:
    """The first choice, from the profile alone. Follow it at once with a `Workload` of the configured cameras.

    Without a Device, budgets of power and energy are held from the first reading of power on, that of heat from the
    first temperature: by assumed watts that are learnt. `Decision.unheld` says which limits cannot be held.
    Raises UsageError if no variant reaches min_accuracy."""
    if (why := refusal(variants, budget)) is not None:
        raise UsageError(why, FLOOR_HINT)
    if device is not None and not sound(device):
        raise UsageError("the device profile is not one: a power or a heat constant is no positive number")
    ranked = tuple(sorted((checked(v) for v in variants), key=rank))
    n = len(ranked)
    known = economy.fresh(ranked, device or economy.UNKNOWN, budget, 1, FIRST_FPS)
    state = State(
        ranked, budget, Decision("", 1, "none", "", (), False), Lead(), known.latency.tail(budget.deadline_quantile),
        known.latency.tail(SCHEDULE_QUANTILE), 1, 0.0, costs_of(ranked, 1), (None,) * n, (None,) * n, None, 0, now_ns,
        None, (None,) * n, (HOLD_S,) * n, 0.0, now_ns, now_ns, known,
    )  # fmt: skip
    return afresh(_permitted(state), now_ns)


def step(state: State, observation: Observation, now_ns: int) -> tuple[State, Decision]:
    """One observation. The Decision is the very same object while nothing changed.

    Raises EdgedError when the last variant is lost; UsageError for a pin on a variant that is not there and for a
    budget that no variant can hold: the caller keeps its state, and nothing has changed.
    """
    match observation:
        case BatchDone():
            return reconsider(_learn(state, observation, now_ns), now_ns)
        case Workload():
            loaded = _load(state, observation, now_ns)
            planned = loaded if loaded.economy.planned else _tick(loaded, now_ns)
            return reconsider(planned, now_ns, restate=loaded.cameras != state.cameras)
        case BudgetChanged(budget):
            return afresh(_tick(_budgeted(state, budget, now_ns), now_ns), now_ns)
        case ClockRange(highest):
            ranged = replace(state, economy=ingest.clock_range(state.economy, highest))
            return reconsider(_tick(ranged, now_ns), now_ns)
        case Pinned(variant):
            pinned = None if variant is None else _pin(state, variant)
            forgiven = replace(state.economy, spending=state.economy.spending.forgiven())
            return afresh(_permitted(replace(state, pinned=pinned, economy=forgiven)), now_ns)
        case VariantLost(variant, why):
            return _lose(state, variant, why, now_ns)
        case Vetoed() | Unvetoed():
            return _veto(state, observation, now_ns)
        case Tick():
            return reconsider(_tick(state, now_ns), now_ns)
        case Skipped() | Sensed() | ShadowDone():
            return _noted(state, observation, now_ns), state.decision


def predict_ms(state: State, variant: str) -> tuple[float, ...]:
    """Service time of a batch of 1, 2, ... of this variant as now expected (9 in 10 are faster), for the scheduler.
    Empty while nothing is known."""
    i = index(state, variant)
    if i is None:
        return ()
    e = state.economy
    scale = math.exp(e.latency.log_factor(i)) * state.schedule_tail * e.tables.stretch(i, e.clock)
    return tuple([scale * ms for ms in state.variants[i].latency_ms])


def least_ms(state: State) -> float:
    """A service time that no frame undercuts, on any variant that may run: the profile's, or less where this device has
    proved quicker. However slow it may seem now, a frame with more time left than this is not late yet."""
    e = state.economy
    quickest = [
        variant.latency_ms[0] * math.exp(min(0.0, e.latency.log_factor(i))) * e.tables.stretch(i, e.clock)
        for i, variant in enumerate(state.variants)
        if e.allowed[i] and variant.latency_ms
    ]
    return min(quickest, default=0.0)


def choose(state: State, waiting: Waiting, now_ns: int) -> Choice:
    """What the frames that wait get: the fast path, before each batch. Tell a skip back as `Skipped`, a run as
    `BatchDone`. Of more frames than there are cameras the first are chosen for."""
    e = state.economy
    option, clock, value, skip_value = ingest.chosen(e, waiting, state.seconds(now_ns))
    if option is None:
        return Choice(None, 0, 0, clock, value, skip_value)
    return Choice(e.tables.names[option.variant], option.frames, option.batch, clock, value, skip_value)


def escalate(
    state: State, done: BatchDone, age_ms: float, period_ms: float, frame: int = 0, weight: float = 1.0
) -> str | None:
    """The variant to run a frame of this batch again on, after its BatchDone was told; None if it is not worth it."""
    if state.pinned is not None:
        return None
    again = ingest.escalated(state.economy, done, frame, weight, age_ms, period_ms)
    return None if again is None else state.economy.tables.names[again]


def variant_for(state: State, camera: str) -> str:
    """What runs on a camera's frame for which no choice was made: the decision's variant, unless it is vetoed there."""
    return vetoes.variant_for(state, camera)


def energy_j(state: State, variant: str, batch: int) -> float | None:
    """What a frame of such a batch costs above what the device draws at rest, as now estimated; None while nothing is
    known of the device's power."""
    e, i = state.economy, index(state, variant)
    if i is None or batch < 1 or not e.knows_power:
        return None
    return e.joule(i, e.clock) * e.tables.times(i, batch, batch) / batch


def numbers(state: State, now_ns: int) -> tuple[Number, ...]:
    """What is estimated and allowed now, as in `Decision.numbers`: for a status, once a second."""
    return summary.numbers(state.economy, state.seconds(now_ns))


# --- what is learnt ---------------------------------------------------------------------------------------------------


def _learn(state: State, done: BatchDone, now_ns: int) -> State:
    i = index(state, done.variant)
    if i is None or not 1 <= done.batch <= MAX_BATCH or not plausible_ms(done.service_ms):
        return state
    e, now_s = state.economy, state.seconds(now_ns)
    variants, costs = state.variants, state.costs
    if not variants[i].latency_ms:  # nothing was known of it until it ran here, pinned
        one = done.service_ms / done.batch / math.exp(e.latency.log_factor(i))
        told = replace(variants[i], latency_ms=tuple([one * k for k in range(1, done.batch + 1)]))
        variants = (*variants[:i], told, *variants[i + 1 :])
        costs = costs_of(variants, state.cameras)
        e = economy.adapted(e, variants, e.budget, e.cameras, now_s)
        return _permitted(replace(state, variants=variants, costs=costs, economy=ingest.batch_done(e, done, i, now_s)))
    e = ingest.batch_done(e, done, i, now_s)
    late = state.late
    if i == state.current and done.late >= 0:
        late = _late(late + min(done.late, done.batch) - (1 - state.budget.deadline_quantile) * done.batch)
    return replace(
        state,
        variants=variants,
        costs=costs,
        economy=e,
        lead=state.lead.add(done.lead_ms, state.cameras, 1000 * e.usual_s(i, e.clock)),
        tail=e.latency.tail(state.budget.deadline_quantile),
        schedule_tail=e.latency.tail(SCHEDULE_QUANTILE),
        late=late,
    )


def _load(state: State, load: Workload, now_ns: int) -> State:
    cameras = max(1, load.cameras)
    fps = load.frames_per_s if math.isfinite(load.frames_per_s) and load.frames_per_s >= 0 else state.frames_per_s
    late = state.late
    if now_ns - state.changed_ns >= SETTLE_S * NS_PER_S and load.late > 0:
        late = _late(late + load.late - (1 - state.budget.deadline_quantile) * fps)
    costs, lead = state.costs, state.lead
    if cameras != state.cameras:
        costs, lead = costs_of(state.variants, cameras), lead.afresh()
    known = ingest.workload(state.economy, load, state.seconds(now_ns))
    return replace(state, cameras=cameras, frames_per_s=fps, late=late, costs=costs, lead=lead, economy=known)


def _budgeted(state: State, budget: Budget, now_ns: int) -> State:
    working = [v for v, lost in zip(state.variants, state.lost, strict=True) if lost is None]
    if (refused := refusal(working, budget)) is not None:
        raise UsageError(refused, FLOOR_HINT)
    if state.pinned is not None:
        _check_floor(state.variants[state.pinned], budget)
    e = state.economy
    known = economy.adapted(e, state.variants, budget, e.cameras, state.seconds(now_ns))
    if (budget.deadline_ms, budget.deadline_quantile) != (e.budget.deadline_ms, e.budget.deadline_quantile):
        known = replace(known, spending=known.spending.forgiven())
    return _permitted(replace(state, budget=budget, tail=e.latency.tail(budget.deadline_quantile), economy=known))


def _late(value: float) -> float:
    return min(max(0.0, value), LATE_CAP)


def _pin(state: State, variant: str) -> int:
    i = index(state, variant)
    names = ", ".join(v.name for v, lost in zip(state.variants, state.lost, strict=True) if lost is None)
    if i is None:
        raise UsageError(f"there is no variant {variant!r} to pin", f"choose one of: {names}")
    if (why := state.lost[i]) is not None:
        raise UsageError(f"{variant} cannot be pinned: it stopped working: {why}", f"choose one of: {names}")
    if (why := state.vetoed[i]) is not None:
        raise UsageError(f"{variant} cannot be pinned: it is vetoed: {why}", f"choose one of: {names}")
    _check_floor(state.variants[i], state.budget)
    return i


def _check_floor(variant: Variant, budget: Budget) -> None:
    """The floor holds for an operator too: it is there to be lowered, not to be passed by unawares."""
    if (barred := explain.barred_by_floor(accuracy_of(variant), budget)) is not None:
        raise UsageError(
            f"{variant.name} cannot be pinned: {barred}", "lower [limits] min_accuracy, or let go of the pin, first"
        )


def _lose(state: State, variant: str, why: str, now_ns: int) -> tuple[State, Decision]:
    i = index(state, variant)
    if i is None or state.lost[i] is not None:
        return state, state.decision
    lost = (*state.lost[:i], why, *state.lost[i + 1 :])
    if all(lost):
        raise EdgedError(
            f"the last working variant, {variant}, stopped working: {why}", "see the events before this one"
        )
    working = [v for v, gone in zip(state.variants, lost, strict=True) if gone is None]
    if (refused := refusal(working, state.budget)) is not None:
        raise EdgedError(f"{variant} stopped working: {why}; of the others, {refused}", FLOOR_HINT)
    return afresh(_permitted(replace(state, lost=lost, pinned=None if state.pinned == i else state.pinned)), now_ns)


def _veto(state: State, said: Vetoed | Unvetoed, now_ns: int) -> tuple[State, Decision]:
    after = vetoes.heard(state, said)
    if after is state:
        return state, state.decision
    if said.camera is not None:
        return _permitted(after), state.decision
    return afresh(_permitted(after), now_ns)


# --- the economy ------------------------------------------------------------------------------------------------------


def _noted(state: State, observation: Skipped | Sensed | ShadowDone, now_ns: int) -> State:
    if isinstance(observation, Skipped):
        return replace(state, economy=ingest.skipped(state.economy, observation))
    if isinstance(observation, ShadowDone):
        i = index(state, observation.variant)
        if i is None or not 1 <= observation.batch <= MAX_BATCH:
            return state
        return replace(state, economy=economy.shadowed(state.economy, i, observation.batch, state.seconds(now_ns)))
    return replace(state, economy=ingest.sensed(state.economy, observation, state.seconds(now_ns)))


def _tick(state: State, now_ns: int) -> State:
    """Plans afresh if it is time."""
    e, now_s = state.economy, state.seconds(now_ns)
    if now_s - e.planned_s < replan.REPLAN_S:
        return state
    # what was asked for counts as the clock: until a batch has run at it there is no other word of it
    clock = e.clock if e.device.held else min(e.plan.clock, e.highest)
    return replace(state, economy=replan.replan(e, now_s, clock, True))


def _permitted(state: State) -> State:
    """The economy with what may run now: the pinned one; else what works, is not vetoed and reaches the floor; else the
    one that stands in for them all."""
    n = len(state.variants)
    able = [
        state.lost[i] is None and state.vetoed[i] is None and bool(state.variants[i].latency_ms)
        and explain.barred_by_floor(state.variants[i].accuracy, state.budget) is None
        for i in range(n)
    ]  # fmt: skip
    if state.pinned is not None:
        able = [i == state.pinned for i in range(n)]
    elif not any(able):
        working = [i for i in range(n) if state.lost[i] is None]
        stand_in = next((i for i in working if state.vetoed[i] is None), working[0])
        able = [i == stand_in for i in range(n)]
    allowed = tuple(able)
    apart = vetoes.allowed_on(state, allowed)
    return replace(state, economy=replace(state.economy, allowed=allowed, allowed_apart=apart))
