"""The published Decision: what ran in the last second, what bound it, and how each variant stands. Pure.

It is made from the batches that ran, twice a second, and on each change of the terms from what would run next.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final, NamedTuple

from edged.governor.dispatch import choose
from edged.governor.messages import RELAX_ORDER, Alternative, Bound, Budget, Decision, Limit, Number, Waiting
from edged.governor.profile import best_batch
from edged.governor.state import State

ALL: Final = 0.98  # share of the results from which on a variant counts as the one that runs
MAIN_LEAD: Final = 0.15  # by so much of the results another variant must lead before the Decision names it
SHARE_STEP: Final = 0.1
RESTATE_S: Final = 5.0
"""A share that moved by SHARE_STEP is published at most this often; a new variant or limit at once."""
DROPPED: Final = 0.02
LIMITS: Final[dict[str, str]] = {"heat": "heat", "power": "the mean power", "energy": "the energy that must last"}


class _Ran(NamedTuple):
    """Of the last second: by variant its share of the results; results; frames dropped as late, to save."""

    shares: tuple[float, ...]
    results: int
    late: int
    saved: int

    @property
    def frame_share(self) -> float:
        offered = self.results + self.late + self.saved
        return round(self.results / offered, 3) if offered else 1.0


def decide(state: State, now_s: float, changed: bool = False) -> Decision:
    """The Decision in force now: the same object as before while nothing is new. `changed`: the terms have changed, so
    that what ran before tells nothing."""
    before, ran, names = state.decision, _NOTHING if changed else _ran(state), state.tables.names
    main = _main(state, ran, before, now_s, changed)
    bound, relaxed, unenforceable = _bound(state, ran, main), _relaxed(state, ran), _unenforceable(state)
    clock = None if state.device.fixed_clock else state.plan.clock
    terms = names[main], bound, relaxed, clock, unenforceable
    same = terms == (before.variant, before.bound, before.relaxed, before.clock, before.unenforceable)
    if same and not changed and not _moved(state, ran, now_s):
        return before
    decision = Decision(
        variant=names[main],
        max_batch=best_batch(state.variants[main]),
        bound=bound,
        reason=_reason(state, ran, main, bound),
        alternatives=tuple([_alternative(state, i, main, ran.shares) for i in range(len(names))]),
        pinned=state.pinned is not None,
        clock=clock,
        price_per_j=_round(state.price),
        frame_share=ran.frame_share,
        relaxed=relaxed,
        numbers=numbers(state, now_s),
        unenforceable=unenforceable,
    )
    if replace(decision, numbers=before.numbers) == before:
        return before
    state.decided_s = now_s
    return decision


def _moved(state: State, ran: _Ran, now_s: float) -> bool:
    """Whether the shares differ enough from what was published, long enough ago."""
    before = state.decision
    if not ran.results or now_s - state.decided_s < RESTATE_S:
        return False
    shares = [other.share for other in before.alternatives]
    moved = [abs(now - then) > SHARE_STEP for now, then in zip(ran.shares, shares, strict=True)]
    return any(moved) or abs(ran.frame_share - before.frame_share) > SHARE_STEP


_NOTHING: Final = _Ran((), 0, 0, 0)


def _ran(state: State) -> _Ran:
    counts = [sum(by) for by in zip(*[a.ran for a in state.activity], strict=True)]
    results = sum(counts)
    shares = tuple([round(n / results, 3) if results else 0.0 for n in counts])
    return _Ran(shares, results, sum([a.late for a in state.activity]), sum([a.saved for a in state.activity]))


def _main(state: State, ran: _Ran, before: Decision, now_s: float, changed: bool) -> int:
    """The variant that made most results, with hysteresis; before there are any, the one that would run next."""
    if changed or not before.variant:
        age_ms = state.wait_ms
        choice = choose(state, Waiting(1, age_ms, required=1), now_s)
        found = None if choice.variant is None else state.tables.index(choice.variant)
        return state.allowed.index(True) if found is None else found
    current = state.tables.index(before.variant)
    assert current is not None, "variants are never removed"
    if not ran.results:
        return current
    most = max(range(len(ran.shares)), key=lambda i: ran.shares[i])
    return most if ran.shares[most] > ran.shares[current] + MAIN_LEAD else current


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


def would_fit(state: State, i: int) -> bool:
    """Whether it could run on all frames within the limits, were it loaded and allowed."""
    return _misfit(state, i) is None


def predicted_ms(state: State, i: int) -> float | None:
    """Capture to result of a single frame, at the deadline's quantile; None if its latency is not known."""
    if not state.variants[i].latency_ms:
        return None
    tail = state.latency.tail(state.budget.deadline_quantile)
    return state.wait_ms + 1000 * state.service_s(i, state.plan.clock) * tail


def _misfit(state: State, i: int) -> tuple[Bound, str] | None:
    """Why a variant cannot run on all frames, as a clause without its subject; None if it can."""
    needs_ms = predicted_ms(state, i)
    if needs_ms is None:
        return "deadline", "has no known latency"
    if needs_ms > state.budget.deadline_ms:
        return "deadline", f"would need {human_ms(needs_ms)} of {deadline(state)} {load(state)}"
    rate = state.cameras / state.offered_s
    known = state.tables.times[i]
    busy = min([times / k for k, times in enumerate(known, start=1)]) * state.service_s(i, state.plan.clock) * rate
    if busy > 1.0:
        return "load", f"would keep the engine {busy:.0%} busy {load(state)}"
    if (watts := _power_w(state, i)) is not None:
        allowed = state.plan.allowed
        lasting_w = math.inf if allowed.safe and not state.plan.paced else allowed.energy_w
        limits: dict[Bound, float] = {"heat": allowed.heat_w, "power": allowed.window_w, "energy": lasting_w}
        limit, allowed_w = min(limits.items(), key=lambda item: item[1])
        if watts > allowed_w:
            most = f"allows {human(allowed_w)} W" if allowed_w > 0 else "allows nothing"
            return limit, f"would draw {human(watts)} W {load(state)}, {LIMITS[limit]} {most}"
    return None


def _power_w(state: State, i: int) -> float | None:
    """Of the device with all frames on a variant; None while nothing is known of its power."""
    if not state.knows_power:
        return None
    return state.plan.base_w + state.joules(i, state.plan.clock) * state.cameras / state.offered_s


def _bound(state: State, ran: _Ran, main: int) -> Bound:
    """The constraint that keeps the most accurate variant that may run from running on all frames."""
    if state.pinned is not None:
        return "pin"
    late = ran.late > DROPPED * (ran.late + ran.results)
    if late and any(_floor_only(state, i) and _misfit(state, i) is None for i in range(len(state.variants))):
        return "accuracy"
    best = state.candidates.index(True)
    if best == main and (not ran.results or ran.shares[main] >= ALL) and not ran.late and not ran.saved:
        misfit = _misfit(state, main)
        return "none" if misfit is None or not state.price else misfit[0]
    if ran.saved and state.plan.bound != "none":
        return state.plan.bound
    misfit = _misfit(state, best)
    if misfit is not None:
        return misfit[0]
    return state.plan.bound if state.plan.bound != "none" else "load" if late or best != main else "none"


def _floor_only(state: State, i: int) -> bool:
    return unable(state, i) is None and barred(state, i) is not None


def _relaxed(state: State, ran: _Ran) -> tuple[Limit, ...]:
    """What is relaxed now, in RELAX_ORDER."""
    given: set[str] = set(state.unenforceable)
    if any(may and barred(state, i) is not None for i, may in enumerate(state.allowed)):
        given.add("accuracy")
    offered = ran.results + ran.late + ran.saved
    if ran.late + ran.saved > DROPPED * offered:
        given.add("frame_rate")
    if state.late_price > 1.0:
        given.add("deadline")
    return tuple([limit for limit in RELAX_ORDER if limit in given])


def _unenforceable(state: State) -> tuple[str, ...]:
    """The limits that are set and cannot be held, each with its reason."""
    blind = None if state.knows_power else "the device has no power sensor and no profile"
    unread = None if state.knows_heat else "no temperature has been read"
    limits = (
        ("power", "power_w", blind, "the device draws more with no frame at all"),
        ("energy", "energy_wh", blind, "the device draws more with no frame at all"),
        ("heat", "temperature_c", unread, "the device is hotter when idle"),
    )
    found = []
    for name, key, unknown, exceeded in limits:
        limit, why = getattr(state.budget, key), unknown or (exceeded if name in state.unenforceable else None)
        if limit is not None and why is not None:
            found.append(f"{key} = {limit:g} cannot be held: {why}")
    if state.store is not None and state.store.charge is None:
        found.append("the battery's budget cannot be held: its charge has not been read")
    return tuple(found)


def _alternative(state: State, i: int, main: int, shares: tuple[float, ...]) -> Alternative:
    variant, needs_ms, watts = state.variants[i], predicted_ms(state, i), _power_w(state, i)
    share = shares[i] if shares else 0.0
    why, misfit = barred(state, i), _misfit(state, i)
    fits = why is None and misfit is None
    better = [k for k in state.tables.dominated_by[i] if state.allowed[k]]
    if why is not None:
        verdict = f"may not run: {why}"
    elif better and not state.candidates[i]:
        verdict = f"never runs: {state.tables.names[better[0]]} is as accurate, as fast and as cheap or better"
    elif misfit is not None:
        verdict = f"{misfit[1]}, if it ran on all frames"
    else:
        verdict = f"fits on all frames with {human_ms(needs_ms)} of {deadline(state)}"
    made = f"made {share:.0%} of the results; " if share else "runs next; " if i == main and not shares else ""
    energy_j = round(state.joules(i, state.plan.clock), 5) if state.knows_power else None
    needs_ms, watts = (None if x is None else round(x, 2) for x in (needs_ms, watts))
    return Alternative(variant.name, variant.accuracy, needs_ms, fits, made + verdict, energy_j, watts, share)


def _reason(state: State, ran: _Ran, main: int, bound: Bound) -> str:
    """What ran, and why not the most accurate variant on all frames."""
    names = state.tables.names
    if ran.results:
        order = sorted(range(len(names)), key=lambda i: -ran.shares[i])
        what = ", ".join([f"{names[i]} {ran.shares[i]:.0%}" for i in order if ran.shares[i] >= 0.005])
        text = f"{what} of {ran.results} results in the last second"
    else:
        text = f"{names[main]} runs next"
    if ran.saved and state.price > 0:
        text += f", {ran.saved} frames dropped to save energy"
    if ran.late:
        text += f", {ran.late} dropped as late"
    if bound == "pin":
        return f"{text}: pinned by an operator"
    if bound == "none":
        return f"{text}: the most accurate variant fits {deadline(state)} {load(state)}"
    if bound == "accuracy":
        spared = next(i for i in range(len(names)) if _floor_only(state, i) and _misfit(state, i) is None)
        return f"{text}: {names[spared]} would fit but {barred(state, spared)}"
    best = state.candidates.index(True)
    misfit = _misfit(state, best)
    if misfit is not None:
        return f"{text}: {names[best]} {misfit[1]}"
    if bound in LIMITS:
        return f"{text}: {LIMITS[bound]} is limited, a joule must gain {_round(state.price):g} accurate frames"
    return f"{text}: {names[best]} alone would leave later frames too little time"


def deadline(state: State) -> str:
    budget = state.budget
    return f"{human_ms(budget.deadline_ms)} at the {budget.deadline_quantile * 100:g} % quantile"


def load(state: State) -> str:
    cameras = f"with {state.cameras} camera{'' if state.cameras == 1 else 's'}"
    return f"{cameras} at {human(state.cameras / state.offered_s)} frames/s"


def human(value: float) -> str:
    """Three digits, and never an exponent."""
    return f"{value:.3g}" if 1e-3 <= abs(value) < 999.5 else f"{value:.0f}"


def human_ms(ms: float | None) -> str:
    """`8.24 ms`, `312 ms`, `2.97 s`, `18 min`."""
    if ms is None:
        return "an unknown time"
    if ms < 999.5:
        return f"{human(ms)} ms"
    return f"{human(ms / 1000)} s" if ms < 999_500 else f"{human(ms / 60_000)} min"


# --- the estimates behind it ------------------------------------------------------------------------------------------


def numbers(state: State, now_s: float) -> tuple[Number, ...]:
    """What the plan was made of, with errors and ages."""
    found = [*_watts(state, now_s), *_allowances(state)]
    if state.heat.junction_c is not None:
        age_s = _age(now_s, state.heat.at_s)
        found.append(Number("junction", _round(state.heat.junction_c), "C", _round(state.heat.error_c), age_s))
    for i, name in enumerate(state.tables.names):
        slow, ran_s = math.exp(state.latency.log_factor(i, state.clock)), state.latency.ran_s[i]
        ago_s = None if ran_s < 0 else _age(now_s, ran_s)
        error = _round(slow * state.latency.error(i))
        found.append(Number(f"latency of {name} against its profile", _round(slow), "x", error, ago_s))
        if not state.unmeasured:
            factor, error = state.power.factor(i, state.clock), _round(state.power.error(i, state.clock))
            reference = "a guess" if state.tables.assumed[i] else "its profile"
            guessed = state.tables.assumed[i] and not state.power.learnt(i, state.clock)
            found.append(Number(f"energy of {name} against {reference}", _round(factor), "x", error, ago_s, guessed))
    return tuple(found)


def _watts(state: State, now_s: float) -> list[Number]:
    if state.unmeasured:
        return []
    power, guess = state.power, state.device.assumed
    error_w = _round(power.background_error_w)
    age_s = _age(now_s, power.valid_s) if power.metered else None
    return [
        Number("drawn without frames", _round(state.plan.base_w), "W", error_w, age_s, guess and not power.metered),
        Number("of that, another load", _round(power.background_w), "W", error_w, age_s, guess),
        Number("price of a joule", _round(state.price), "frames/J"),
    ]


def _allowances(state: State) -> list[Number]:
    allowed = state.plan.allowed
    named = {"the rolling mean": allowed.window_w, "heat": allowed.heat_w}
    named["the energy that must last"] = allowed.energy_w
    found = [Number(f"allowed by {name}", _round(watts), "W") for name, watts in named.items() if math.isfinite(watts)]
    if state.quota is not None and state.knows_power:
        left_wh = state.quota.left_j(state.power.history.drawn_j) / 3600
        found.append(Number("energy spent in this horizon", _round(state.quota.energy_j / 3600 - left_wh), "Wh"))
        found.append(Number("left of the horizon's energy", _round(left_wh), "Wh"))
    if state.store is not None and state.store.charge is not None:
        found.append(Number("charge", _round(state.store.charge), ""))
    return found


def _age(now_s: float, then_s: float) -> float:
    return round(max(0.0, now_s - then_s), 1)


def _round(value: float) -> float:
    return float(f"{value:.4g}")
