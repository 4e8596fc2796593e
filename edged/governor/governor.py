"""The decision: `(state, observation, now) -> (state, Decision)`. Pure: no I/O, no clock; the engine loop calls it.

Chosen is the most accurate variant whose time from capture to publish, at the deadline's quantile and with one frame
of every camera to serve, fits the deadline, and which leaves the engine some spare time. Down at once, on a predicted
misfit or on late frames; up only with a margin, when the better variant has fitted for a while, and ever more slowly
for one that had to be left again soon after. The Decision is the same object as long as nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from edged.clock import NS_PER_S
from edged.errors import EdgedError, UsageError
from edged.governor import explain
from edged.governor.decision import (
    BatchDone,
    Budget,
    BudgetChanged,
    Decision,
    Observation,
    Pinned,
    Sensed,
    Skipped,
    Tick,
    Unvetoed,
    Variant,
    VariantLost,
    Vetoed,
    Workload,
)
from edged.governor.explain import BUSY_BOUND, Scene, View
from edged.governor.latency import Latency, Lead, factor, fresh, learn, plausible_ms, tail
from edged.governor.profile import MAX_BATCH, accuracy_of, best_batch, checked, costs_of, rank

UP_MARGIN: Final = 0.85
"""A better variant is taken up when it needs at most this share of the deadline and of the load bound."""
HOLD_S: Final = 5.0
"""How long a better variant must have fitted, and the last change be over, before it is taken up."""
HOLD_MAX_S: Final = 300.0
TRIAL_S: Final = 60.0
"""A variant left within this time after it was taken up had failed: its hold doubles. One that lasted starts afresh."""
LATE_LIMIT: Final = 3.0
"""Late frames beyond those the quantile allows before the variant is left."""
LATE_CAP: Final = 6.0
SETTLE_S: Final = 2.0
"""After a change, drops reported for the past second may still be those of the variant before."""
RESTATE_S: Final = 5.0
"""With the variant unchanged, a new bound is announced at most this often."""
SCHEDULE_QUANTILE: Final = 0.9
"""What the scheduler is told: if a late frame costs as much as five good ones, a frame pays from 5 in 6 on time."""
FLOOR_HINT: Final = "lower [limits] min_accuracy, or add a more accurate variant to the bundle"


@dataclass(frozen=True)
class State:
    """All the governor knows; opaque to callers, except `decision`: the one in force.

    Variants go by index, most accurate first. `costs`: of each the warm milliseconds of one frame, of a frame of every
    camera, and per frame at best. `late`: late frames beyond those allowed. `fitting_ns`: since when each better
    variant has fitted. `rose_ns`: when the current one was taken up from a less accurate one.
    """

    variants: tuple[Variant, ...]
    budget: Budget
    decision: Decision
    latency: Latency
    lead: Lead
    tail: float
    schedule_tail: float
    cameras: int
    frames_per_s: float
    costs: tuple[tuple[float, float, float] | None, ...]
    lost: tuple[str | None, ...]
    vetoed: tuple[str | None, ...]
    pinned: int | None
    current: int
    changed_ns: int
    rose_ns: int | None
    fitting_ns: tuple[int | None, ...]
    hold_s: tuple[float, ...]
    late: float
    restated_ns: int


def refusal(variants: Sequence[Variant], budget: Budget) -> str | None:
    """Why these variants cannot hold this budget (none reaches min_accuracy), or None. For `check` and `set`."""
    if any(explain.barred_by_floor(accuracy_of(v), budget) is None for v in variants):
        return None
    best = max((a for v in variants if (a := accuracy_of(v)) is not None), default=None)
    known = "no variant's accuracy is known" if best is None else f"the most accurate variant has {best:.3g}"
    return f"min_accuracy = {budget.min_accuracy:g} cannot be held: {known}"


def start(variants: Sequence[Variant], budget: Budget, now_ns: int) -> tuple[State, Decision]:
    """The first choice, from the warm latencies alone. Follow it at once with a `Workload` of the configured cameras.
    Raises UsageError if no variant reaches min_accuracy."""
    if (why := refusal(variants, budget)) is not None:
        raise UsageError(why, FLOOR_HINT)
    ranked = tuple(sorted((checked(v) for v in variants), key=rank))
    n = len(ranked)
    latency = fresh(n, now_ns)
    state = State(
        ranked, budget, Decision("", 1, "none", "", (), False), latency, Lead(),
        tail(latency, budget.deadline_quantile), tail(latency, SCHEDULE_QUANTILE),
        1, 0.0, costs_of(ranked, 1), (None,) * n, (None,) * n, None, 0, now_ns, None, (None,) * n, (HOLD_S,) * n, 0.0, now_ns,
    )  # fmt: skip
    return _afresh(state, now_ns)


def step(state: State, observation: Observation, now_ns: int) -> tuple[State, Decision]:
    """One observation. The Decision is the very same object while nothing changed.

    Raises EdgedError when the last variant is lost; UsageError for a pin on a variant that is not there and for a
    budget that no variant can hold: the caller keeps its state, and nothing has changed.
    """
    match observation:
        case BatchDone():
            return _choose(_learn(state, observation, now_ns), now_ns)
        case Workload():
            return _choose(_load(state, observation, now_ns), now_ns)
        case BudgetChanged(budget):
            working = [v for v, lost in zip(state.variants, state.lost, strict=True) if lost is None]
            if (refused := refusal(working, budget)) is not None:
                raise UsageError(refused, FLOOR_HINT)
            return _afresh(replace(state, budget=budget, tail=tail(state.latency, budget.deadline_quantile)), now_ns)
        case Pinned(variant):
            pinned = None if variant is None else _pin(state, variant)
            return _afresh(replace(state, pinned=pinned), now_ns)
        case VariantLost(variant, why):
            return _lose(state, variant, why, now_ns)
        case Vetoed(variant, why):
            return _veto(state, variant, why, now_ns)
        case Unvetoed(variant):
            return _veto(state, variant, None, now_ns)
        case Tick():
            return _choose(state, now_ns)
        case Skipped() | Sensed():
            return state, state.decision


def predict_ms(state: State, variant: str) -> tuple[float, ...]:
    """Service time of a batch of 1, 2, ... of this variant as now expected (9 in 10 are faster), for the scheduler.
    Empty while nothing is known."""
    i = _index(state, variant)
    if i is None:
        return ()
    scale = factor(state.latency, i, state.latency.ran_ns[i]) * state.schedule_tail
    return tuple([scale * ms for ms in state.variants[i].latency_ms])


# --- what is learnt ---------------------------------------------------------------------------------------------------


def _learn(state: State, done: BatchDone, now_ns: int) -> State:
    i = _index(state, done.variant)
    if i is None or not 1 <= done.batch <= MAX_BATCH:
        return state
    variants, costs = state.variants, state.costs
    warm = variants[i].latency_ms
    if not warm:  # nothing was known of it until it ran here, pinned
        if not plausible_ms(done.service_ms):
            return state
        one = done.service_ms / done.batch / factor(state.latency, i, now_ns)
        warm = tuple([one * k for k in range(1, done.batch + 1)])
        variants = (*variants[:i], replace(variants[i], latency_ms=warm), *variants[i + 1 :])
        costs = costs_of(variants, state.cameras)
    warm_ms = warm[done.batch - 1] if done.batch <= len(warm) else warm[-1] * done.batch / len(warm)
    latency = learn(state.latency, i, warm_ms, done.service_ms, now_ns)
    late = state.late
    if i == state.current and done.late >= 0:
        late = _late(late + min(done.late, done.batch) - (1 - state.budget.deadline_quantile) * done.batch)
    return replace(
        state,
        variants=variants,
        costs=costs,
        latency=latency,
        lead=state.lead.add(done.lead_ms, state.cameras),
        tail=tail(latency, state.budget.deadline_quantile),
        schedule_tail=tail(latency, SCHEDULE_QUANTILE),
        late=late,
    )


def _load(state: State, load: Workload, now_ns: int) -> State:
    cameras = max(1, load.cameras)
    fps = load.frames_per_s if math.isfinite(load.frames_per_s) and load.frames_per_s >= 0 else state.frames_per_s
    late = state.late
    if now_ns - state.changed_ns >= SETTLE_S * NS_PER_S and load.late > 0:
        late = _late(late + load.late - (1 - state.budget.deadline_quantile) * fps)
    costs = state.costs if cameras == state.cameras else costs_of(state.variants, cameras)
    return replace(state, cameras=cameras, frames_per_s=fps, late=late, costs=costs)


def _late(value: float) -> float:
    return min(max(0.0, value), LATE_CAP)


def _pin(state: State, variant: str) -> int:
    i = _index(state, variant)
    names = ", ".join(v.name for v, lost in zip(state.variants, state.lost, strict=True) if lost is None)
    if i is None:
        raise UsageError(f"there is no variant {variant!r} to pin", f"choose one of: {names}")
    if (why := state.lost[i]) is not None:
        raise UsageError(f"{variant} cannot be pinned: it stopped working: {why}", f"choose one of: {names}")
    if (why := state.vetoed[i]) is not None:
        raise UsageError(f"{variant} cannot be pinned: it is vetoed: {why}", f"choose one of: {names}")
    return i


def _lose(state: State, variant: str, why: str, now_ns: int) -> tuple[State, Decision]:
    i = _index(state, variant)
    if i is None or state.lost[i] is not None:
        return state, state.decision
    lost = (*state.lost[:i], why, *state.lost[i + 1 :])
    if all(lost):
        raise EdgedError(
            f"the last working variant, {variant}, stopped working: {why}", "see the events before this one"
        )
    return _afresh(replace(state, lost=lost, pinned=None if state.pinned == i else state.pinned), now_ns)


def _veto(state: State, variant: str, why: str | None, now_ns: int) -> tuple[State, Decision]:
    i = _index(state, variant)
    if i is None or (state.vetoed[i] is None) == (why is None):
        return state, state.decision
    vetoed = (*state.vetoed[:i], why, *state.vetoed[i + 1 :])
    return _afresh(replace(state, vetoed=vetoed, pinned=None if state.pinned == i else state.pinned), now_ns)


# --- how the choice is made -------------------------------------------------------------------------------------------


def _views(state: State, now_ns: int) -> list[View]:
    budget, lead_ms = state.budget, state.lead.quantile_ms(state.budget.deadline_quantile) or 0.0
    views = []
    for i, variant in enumerate(state.variants):
        lost, cost = state.lost[i], state.costs[i]
        vetoed = state.vetoed[i]
        if lost is not None:
            barred: str | None = f"it stopped working: {lost}"
        elif vetoed is not None:
            barred = f"it is vetoed: {vetoed}"
        else:
            barred = explain.barred_by_floor(variant.accuracy, budget)
        if cost is None:
            views.append(View(variant.name, variant.accuracy, None, 0.0, barred, False, True))
            continue
        usual = factor(state.latency, i, now_ns)
        # Of one frame of every camera the last waits for the others; not all of them hit the tail at once.
        predicted_ms = lead_ms + usual * (cost[1] + cost[0] * max(0.0, state.tail - 1))
        busy = usual * cost[2] * state.frames_per_s / 1000
        fits = predicted_ms <= budget.deadline_ms
        views.append(View(variant.name, variant.accuracy, predicted_ms, busy, barred, fits, busy <= BUSY_BOUND))
    return views


def _afresh(state: State, now_ns: int) -> tuple[State, Decision]:
    """Choose without regard to what ran before: at the start, and when a person or a loss changed the terms."""
    views = _views(state, now_ns)
    if state.pinned is not None:
        target = state.pinned
    else:
        allowed = _allowed(state, views)
        target = next((i for i in allowed if views[i].fits), _fastest(allowed, views))
    return _settle(replace(state, late=0.0), views, target, now_ns, afresh=True)


def _choose(state: State, now_ns: int) -> tuple[State, Decision]:
    """Choose with hysteresis: down at once, up with a margin and after a hold."""
    views = _views(state, now_ns)
    current = state.current
    if state.pinned is not None:
        return _settle(state, views, current, now_ns)
    allowed = _allowed(state, views)
    failing = state.late >= LATE_LIMIT
    if views[current].fits and not failing:
        return _rise(state, views, allowed, now_ns)
    fastest = _fastest(allowed, views)
    # Late although predicted to fit: only a faster variant can help.
    ahead = [i for i in allowed if i > current and (not failing or _faster(views[i], views[current]))]
    target = next((i for i in ahead if views[i].fits), current if failing and views[current].fits else fastest)
    if target < current and not _rested(state, target, now_ns):
        target = current
    return _settle(replace(state, fitting_ns=(None,) * len(views)), views, target, now_ns)


def _rise(state: State, views: list[View], allowed: list[int], now_ns: int) -> tuple[State, Decision]:
    """The current variant fits: take up a better one that has fitted for its hold and fits with a margin now."""
    since: list[int | None] = [None] * len(views)
    target = state.current
    for i in allowed:
        if i >= state.current:
            break
        before, roomy = state.fitting_ns[i], _roomy(views[i], state.budget)
        # The margin begins the wait and ends it; in between noise may eat into it without starting the wait anew.
        since[i] = now_ns if before is None and roomy else before if views[i].fits else None
        if before is not None and roomy and target == state.current and _rested(state, i, now_ns):
            target = i if now_ns - before >= state.hold_s[i] * NS_PER_S else target
    if (fitting_ns := tuple(since)) != state.fitting_ns:
        state = replace(state, fitting_ns=fitting_ns)
    return _settle(state, views, target, now_ns)


def _settle(state: State, views: list[View], target: int, now_ns: int, afresh: bool = False) -> tuple[State, Decision]:
    """Make `target` the current variant, and a new Decision if there is something new to say."""
    old, moved = state.decision, target != state.current
    pinned = state.pinned is not None
    failed = views[state.current].name if state.late >= LATE_LIMIT else None
    bound = explain.bound(views, target, pinned, failed is not None)
    if not (moved or afresh) and (bound == old.bound or now_ns - state.restated_ns < RESTATE_S * NS_PER_S):
        return state, old
    scene = Scene(state.budget, state.cameras, state.frames_per_s)
    decision = Decision(
        views[target].name,
        best_batch(state.variants[target]),
        bound,
        explain.reason(views, target, scene, pinned, failed),
        explain.alternatives(views, target, scene),
        pinned,
    )
    if decision == old:
        return state, old
    state = replace(state, decision=decision, restated_ns=now_ns)
    if moved:
        held = _hold_after(state, target, now_ns) if not afresh else state.hold_s
        rose = now_ns if target < state.current and not afresh else None
        none = (None,) * len(views)
        state = replace(state, current=target, changed_ns=now_ns, rose_ns=rose, fitting_ns=none, hold_s=held, late=0.0)
    return state, decision


def _hold_after(state: State, target: int, now_ns: int) -> tuple[float, ...]:
    """The holds after leaving the current variant for a less accurate one: longer if it had only just been taken up."""
    i = state.current
    if target < i:
        return state.hold_s
    ran_s = (now_ns - state.changed_ns) / NS_PER_S
    failed = state.rose_ns is not None and ran_s < TRIAL_S
    hold_s = min(2 * state.hold_s[i], HOLD_MAX_S) if failed else HOLD_S
    return (*state.hold_s[:i], hold_s, *state.hold_s[i + 1 :])


def _rested(state: State, target: int, now_ns: int) -> bool:
    return now_ns - state.changed_ns >= state.hold_s[target] * NS_PER_S


def _allowed(state: State, views: list[View]) -> list[int]:
    """Those that may run. If the floor forbids all that work, the most accurate of them that is not vetoed; if all of
    them are vetoed, the most accurate, since no result at all serves nobody."""
    if allowed := [i for i, view in enumerate(views) if view.barred is None]:
        return allowed
    working = [i for i, lost in enumerate(state.lost) if lost is None]
    return [next((i for i in working if state.vetoed[i] is None), working[0])]


def _fastest(allowed: list[int], views: list[View]) -> int:
    return min(allowed, key=lambda i: (_ms(views[i]), i))


def _faster(a: View, b: View) -> bool:
    return _ms(a) < _ms(b)


def _ms(view: View) -> float:
    return math.inf if view.predicted_ms is None else view.predicted_ms


def _roomy(view: View, budget: Budget) -> bool:
    return view.fits and _ms(view) <= UP_MARGIN * budget.deadline_ms and view.busy <= UP_MARGIN * BUSY_BOUND


# --- names ------------------------------------------------------------------------------------------------------------


def _index(state: State, name: str) -> int | None:
    return next((i for i, v in enumerate(state.variants) if v.name == name), None)
