"""The Decision: what ran in the last second and what bound it; and how each variant stands. Pure.

It is made from the batches that ran, twice a second, and on each change of the terms from what would run next. The
daemon puts it into words (`edged/loop/decision_message.py`).
"""

from __future__ import annotations

import math
from typing import Final

from edged.governor.dispatch import choose
from edged.governor.messages import (
    RELAX_ORDER,
    Bound,
    Budget,
    Decision,
    Limit,
    Misfit,
    Unenforceable,
    Waiting,
)
from edged.governor.profile import best_batch
from edged.governor.state import LIMIT_KEYS, Activity, State

ALL: Final = 0.98  # share of the results from which on a variant counts as the one that runs
MAIN_LEAD: Final = 0.15  # by so much of the results another variant must lead before the Decision names it
SHARE_STEP: Final = 0.1
RESTATE_S: Final = 5.0
"""A share that moved by SHARE_STEP is published at most this often; a new variant or limit at once."""
DROPPED: Final = 0.02


def decide(state: State, now_s: float, changed: bool = False) -> Decision:
    """The Decision in force now: the same object as before while nothing is new. `changed`: the terms have changed, so
    that what ran before tells nothing."""
    before, names = state.decision, state.tables.names
    ran = Activity([0] * len(names)) if changed else _last_second(state)
    main = _next(state, now_s) if changed or not before.variant else _main(state, ran)
    (bound, wanted), relaxed, unenforceable = _bound(state, ran, main), _relaxed(state, ran), _unenforceable(state)
    clock = None if state.device.fixed_clock else state.plan.clock
    terms = names[main], bound, relaxed, clock, unenforceable
    same = terms == (before.variant, before.bound, before.relaxed, before.clock, before.unenforceable)
    if same and not changed and not _moved(state, ran, now_s):
        return before
    state.decided_s = now_s
    return Decision(
        variant=names[main],
        max_batch=best_batch(state.variants[main]),
        bound=bound,
        wanted=names[wanted],
        pinned=state.pinned is not None,
        clock=clock,
        price_per_j=state.price,
        results=ran.results,
        late=ran.late,
        saved=ran.saved,
        frame_share=ran.frame_share,
        shares=tuple([(name, ran.share(i)) for i, name in enumerate(names) if ran.share(i)]),
        relaxed=relaxed,
        unenforceable=unenforceable,
    )


def _moved(state: State, ran: Activity, now_s: float) -> bool:
    """Whether the shares differ enough from what was published, long enough ago."""
    before, shares = state.decision, dict(state.decision.shares)
    if not ran.results or now_s - state.decided_s < RESTATE_S:
        return False
    moved = [abs(ran.share(i) - shares.get(name, 0.0)) for i, name in enumerate(state.tables.names)]
    return max(*moved, abs(ran.frame_share - before.frame_share)) > SHARE_STEP


def _last_second(state: State) -> Activity:
    before, now = state.activity
    ran = [a + b for a, b in zip(before.ran, now.ran, strict=True)]
    return Activity(ran, before.late + now.late, before.saved + now.saved)


def _next(state: State, now_s: float) -> int:
    """The variant that would run next."""
    choice = choose(state, Waiting(1, state.wait_ms, required=1), now_s)
    found = None if choice.variant is None else state.tables.index(choice.variant)
    return state.allowed.index(True) if found is None else found


def _main(state: State, ran: Activity) -> int:
    """The variant that made most results, with hysteresis."""
    current = state.tables.names.index(state.decision.variant)
    most = max(range(len(ran.ran)), key=ran.share)
    return most if ran.share(most) > ran.share(current) + MAIN_LEAD else current


def barred_by_floor(accuracy: float | None, budget: Budget) -> str | None:
    """Why the accuracy floor forbids a variant, or None."""
    if budget.min_accuracy <= 0 or (accuracy is not None and accuracy >= budget.min_accuracy):
        return None
    known = "is unknown" if accuracy is None else f"{accuracy:.3g} is below the floor"
    return f"its accuracy {known}, min_accuracy is {budget.min_accuracy:g}"


def unable(state: State, i: int) -> str | None:
    """Why a variant cannot run whatever the limits are, or None."""
    if (lost := state.lost[i]) is not None:
        return f"it stopped working: {lost}"
    veto = state.vetoed[i]
    return state.away[i] if veto is None else f"it is vetoed: {veto}"


def barred(state: State, i: int) -> str | None:
    """Why a variant may not run, or None."""
    return unable(state, i) or barred_by_floor(state.variants[i].accuracy, state.budget)


def predicted_ms(state: State, i: int) -> float | None:
    """Capture to result of a single frame, at the deadline's quantile; None if its latency is not known."""
    if not state.variants[i].latency_ms:
        return None
    tail = state.latency.tail(state.budget.deadline_quantile)
    return state.wait_ms + 1000 * state.service_s(i, state.plan.clock) * tail


def misfit(state: State, i: int) -> Misfit | None:
    """Why a variant could not run on all frames within the limits, were it loaded and allowed; None if it could."""
    deadline_ms, needs_ms = state.budget.deadline_ms, predicted_ms(state, i)
    if needs_ms is None or needs_ms > deadline_ms:
        return Misfit("deadline", needs_ms, deadline_ms)
    per_frame = min([times / k for k, times in enumerate(state.tables.times[i], start=1)])
    busy = per_frame * state.service_s(i, state.plan.clock) * state.frames_per_s
    if busy > 1.0:
        return Misfit("load", busy, 1.0)
    watts, allowed = power_w(state, i), state.plan.allowed
    lasting_w = math.inf if allowed.safe and not state.plan.paced else allowed.energy_w
    limits: dict[Bound, float] = {"heat": allowed.heat_w, "power": allowed.window_w, "energy": lasting_w}
    limit = min(limits, key=lambda name: limits[name])
    return None if watts is None or watts <= limits[limit] else Misfit(limit, watts, limits[limit])


def power_w(state: State, i: int) -> float | None:
    """Of the device with all frames on a variant; None while nothing is known of its power."""
    return state.plan.base_w + state.joules(i, state.plan.clock) * state.frames_per_s if state.knows_power else None


def dominated_by(state: State, i: int) -> str | None:
    """The variant that always runs in its place, or None."""
    better = [k for k in state.tables.dominated_by[i] if state.allowed[k]]
    return state.tables.names[better[0]] if better and not state.candidates[i] else None


def _bound(state: State, ran: Activity, main: int) -> tuple[Bound, int]:
    """The constraint that keeps a variant from running on all frames, and that variant: the most accurate one that may
    run or, for the accuracy floor, one that would do better."""
    best = state.candidates.index(True)
    if state.pinned is not None:
        return "pin", best
    late = ran.late > DROPPED * (ran.late + ran.results)
    if late:
        for i in range(len(state.variants)):
            if unable(state, i) is None and barred(state, i) is not None and misfit(state, i) is None:
                return "accuracy", i
    kept_by = misfit(state, best)
    if best == main and (not ran.results or ran.share(main) >= ALL) and not ran.late and not ran.saved:
        return "none" if kept_by is None or not state.price else kept_by.bound, best
    if ran.saved and state.plan.bound != "none":
        return state.plan.bound, best
    if kept_by is not None:
        return kept_by.bound, best
    return state.plan.bound if state.plan.bound != "none" else "load" if late or best != main else "none", best


def _relaxed(state: State, ran: Activity) -> tuple[Limit, ...]:
    """What is relaxed now, in RELAX_ORDER."""
    given: set[str] = set(state.unenforceable)
    if any(may and barred(state, i) is not None for i, may in enumerate(state.allowed)):
        given.add("accuracy")
    if ran.late + ran.saved > DROPPED * ran.offered:
        given.add("frame_rate")
    if state.late_price > 1.0:
        given.add("deadline")
    return tuple([limit for limit in RELAX_ORDER if limit in given])


def _unenforceable(state: State) -> tuple[Unenforceable, ...]:
    """The limits that are set and cannot be held."""
    found: list[Unenforceable] = []
    for name, key in LIMIT_KEYS.items():
        measured = state.knows_heat if name == "heat" else state.knows_power
        if getattr(state.budget, key) is not None and (not measured or name in state.unenforceable):
            found.append(name)
    if state.store is not None and state.store.charge is None:
        found.append("battery")
    return tuple(found)
