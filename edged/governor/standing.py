"""The standing choice: which variant runs when nothing is said of a particular batch. Pure.

Chosen is the most accurate variant whose time from capture to publish, at the deadline's quantile and with the waits of
frames for one another, fits the deadline, which leaves the engine some spare time, and whose power with all frames on
it the budgets allow. Down at once, on a predicted misfit or on late frames; up only with a margin, when the better
variant has fitted for a while, and ever more slowly for one that had to be left again soon after. If none fits, the
frame rate yields first: the one that costs least runs as often as it may.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from edged.clock import NS_PER_S
from edged.governor import explain
from edged.governor.dispatch import escalate
from edged.governor.estimators.queueing import Lead
from edged.governor.explain import BUSY_BOUND, Scene, View
from edged.governor.fast_replace import replace
from edged.governor.messages import Budget, Decision, Escalation, Variant
from edged.governor.profile import best_batch
from edged.governor.state import Economy
from edged.governor.summary import numbers, powers, unheld

UP_MARGIN: Final = 0.85
"""A better variant is taken up when it needs at most this share of the deadline and of the load bound."""
UP_POWER: Final = 0.97
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
SHARE_STEP: Final = 0.1
"""A share of frames that has moved by more is announced too."""


@dataclass(frozen=True)
class State:
    """All the governor knows; opaque to callers, except `decision`: the one in force.

    Variants go by index, most accurate first. `costs`: of each the warm milliseconds of one frame, of a frame of every
    camera, and per frame at best. `late`: late frames beyond those allowed. `fitting_ns`: since when each better
    variant has fitted. `rose_ns`: when the current one was taken up from a less accurate one. `vetoed`: why a variant
    may not run at all; `barred`: (camera, variant, why) of those that may not run on one camera.
    """

    variants: tuple[Variant, ...]
    budget: Budget
    decision: Decision
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
    begun_ns: int
    economy: Economy = field(compare=False)
    barred: tuple[tuple[str, int, str], ...] = ()

    def seconds(self, now_ns: int) -> float:
        """Since the start, as the economy counts."""
        return (now_ns - self.begun_ns) / NS_PER_S


def _views(state: State, now_ns: int) -> list[View]:
    budget, views = state.budget, []
    queue = _Queue.of(state.lead, budget.deadline_quantile)
    watts, clock = powers(state.economy, state.frames_per_s), state.economy.plan.clock
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
        usual = math.exp(state.economy.latency.log_factor(i)) * state.economy.tables.stretch(i, clock)
        predicted_ms = queue.predicted_ms(usual * cost[0], state.tail, cost[1] / cost[0] - 1)
        busy = usual * cost[2] * state.frames_per_s / 1000
        fits = predicted_ms <= budget.deadline_ms
        in_load = busy <= BUSY_BOUND
        views.append(View(variant.name, variant.accuracy, predicted_ms, busy, barred, fits, in_load, *watts[i]))
    return views


class _Queue(NamedTuple):
    """What comes before the service, usually and at the deadline's quantile: milliseconds, then services."""

    lead_ms: float
    late_lead_ms: float
    waiting: float | None
    long_wait: float | None

    @classmethod
    def of(cls, lead: Lead, q: float) -> _Queue:
        return cls(lead.quantile_ms(0.5) or 0.0, lead.quantile_ms(q) or 0.0, lead.waiting(0.5), lead.waiting(q))

    def predicted_ms(self, service_ms: float, tail: float, at_once: float) -> float:
        """Capture to publish at the deadline's quantile: usual times, and what goes beyond them as if each part went
        its own way. Until waits were seen, a frame is taken to wait for one of every other camera (`at_once`
        services). `tail`: the service at the quantile, in usual ones."""
        waiting, long_wait = self.waiting, self.long_wait
        if waiting is None or long_wait is None:
            waiting = long_wait = at_once
        beyond_ms = math.hypot(
            self.late_lead_ms - self.lead_ms, service_ms * (long_wait - waiting), service_ms * max(0.0, tail - 1)
        )
        return self.lead_ms + service_ms * (1 + waiting) + beyond_ms


def afresh(state: State, now_ns: int) -> tuple[State, Decision]:
    """Choose without regard to what ran before: at the start, and when a person or a loss changed the terms."""
    views = _views(state, now_ns)
    if state.pinned is not None:
        target = state.pinned
    else:
        allowed = _allowed(state, views)
        target = next((i for i in allowed if views[i].fits), _fastest(allowed, views))
    return _settle(replace(state, late=0.0), views, target, now_ns, afresh=True)


def reconsider(state: State, now_ns: int, restate: bool = False) -> tuple[State, Decision]:
    """Choose with hysteresis: down at once, up with a margin and after a hold. `restate`: what the sentences speak of
    has changed, if nothing else has."""
    views = _views(state, now_ns)
    current = state.current
    if state.pinned is not None:
        return _settle(state, views, current, now_ns, restate=restate)
    allowed = _allowed(state, views)
    failing = state.late >= LATE_LIMIT
    if views[current].fits and not failing:
        return _rise(state, views, allowed, now_ns, restate)
    fastest = _fastest(allowed, views)
    # Late although predicted to fit: only a faster variant can help.
    ahead = [i for i in allowed if i > current and (not failing or _faster(views[i], views[current]))]
    target = next((i for i in ahead if views[i].fits), current if failing and views[current].fits else fastest)
    if target < current and not _rested(state, target, now_ns):
        target = current
    return _settle(replace(state, fitting_ns=(None,) * len(views)), views, target, now_ns, restate=restate)


def _rise(state: State, views: list[View], allowed: list[int], now_ns: int, restate: bool) -> tuple[State, Decision]:
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
    return _settle(state, views, target, now_ns, restate=restate)


def _settle(
    state: State, views: list[View], target: int, now_ns: int, afresh: bool = False, restate: bool = False
) -> tuple[State, Decision]:
    """Make `target` the current variant, and a new Decision if there is something new to say."""
    old, moved = state.decision, target != state.current
    pinned = state.pinned is not None
    failed = views[state.current].name if state.late >= LATE_LIMIT else None
    bound = explain.bound(views, target, pinned, failed is not None)
    given, impossible = explain.yielded(views, target, state.economy.plan), unheld(state.economy)
    share = _frame_share(views[target], state.economy.plan.base_w)
    clock = None if state.economy.device.held else state.economy.plan.clock
    same = (bound, given, impossible, clock) == (old.bound, old.yielded, old.unheld, old.clock)
    same = same and abs(share - old.frame_share) <= SHARE_STEP
    if not (moved or afresh or restate) and (same or now_ns - state.restated_ns < RESTATE_S * NS_PER_S):
        return state, old
    scene = Scene(state.budget, state.cameras, state.frames_per_s)
    decision = Decision(
        views[target].name,
        best_batch(state.variants[target]),
        bound,
        explain.reason(views, target, scene, pinned, failed),
        explain.alternatives(views, target, scene),
        pinned,
        yielded=given,
        unheld=impossible,
        **_priced(state, views, target, now_ns),
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


def _priced(state: State, views: list[View], target: int, now_ns: int) -> dict[str, Any]:
    """What the economy adds to a Decision."""
    economy = state.economy
    plan = economy.plan
    return {
        "clock": None if economy.device.held else plan.clock,
        "price_per_j": float(f"{economy.price:.4g}"),
        "frame_share": _frame_share(views[target], plan.base_w),
        "escalation": _escalation(economy, target, state.seconds(now_ns)),
        "numbers": numbers(economy, state.seconds(now_ns)),
    }


def _frame_share(view: View, base_w: float) -> float:
    """Share of the frames that the budgets of watts let a variant run."""
    if view.power_w is None or view.in_power or view.power_w <= base_w:
        return 1.0
    return round(min(1.0, max(0.0, (view.allowed_w - base_w) / (view.power_w - base_w))), 3)


def _escalation(economy: Economy, target: int, now_s: float) -> Escalation | None:
    """Up to which confidence a frame of the standing variant is worth another run, if any is."""
    for confidence in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1):
        clock, age_s = economy.plan.clock, float(economy.tables.latency_s[target, economy.plan.clock])
        again = escalate(economy, target, confidence, "", 1.0, None, age_s, economy.round_s, clock, now_s)
        if again is not None:
            return Escalation(economy.tables.names[again], confidence)
    return None


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
    """The one to fall back on: of those that are in time, if power is all they lack, the cheapest; else the fastest."""
    if able := [i for i in allowed if views[i].in_time and views[i].in_load and not views[i].in_power]:
        return min(able, key=lambda i: (views[i].power_w or 0.0, i))
    return min(allowed, key=lambda i: (_ms(views[i]), i))


def _faster(a: View, b: View) -> bool:
    return _ms(a) < _ms(b)


def _ms(view: View) -> float:
    return math.inf if view.predicted_ms is None else view.predicted_ms


def _roomy(view: View, budget: Budget) -> bool:
    if not view.fits or _ms(view) > UP_MARGIN * budget.deadline_ms or view.busy > UP_MARGIN * BUSY_BOUND:
        return False
    return view.power_w is None or view.power_w <= UP_POWER * view.allowed_w


def index(state: State, name: str) -> int | None:
    return next((i for i, v in enumerate(state.variants) if v.name == name), None)
