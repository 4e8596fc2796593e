"""A Decision of the governor in words, as it is published: facts in, sentences and numbers for people out. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from edged.bus import schema
from edged.governor import explain
from edged.governor.messages import Decision, Misfit, Unenforceable
from edged.governor.state import LIMIT_KEYS, State

LIMITS: Final = {"heat": "heat", "power": "the mean power", "energy": "the energy that must last"}
UNMEASURED: Final = {
    "power": "the device has no power sensor and no profile",
    "energy": "the device has no power sensor and no profile",
    "heat": "no temperature has been read",
}
EXCEEDED: Final = {
    "power": "the device draws more with no frame at all",
    "energy": "the device draws more with no frame at all",
    "heat": "the device is hotter when idle",
}
LEAST_SHARE: Final = 0.005  # of the results, for a variant to be named


def decision_message(decision: Decision, state: State, now_s: float, clocks_mhz: Sequence[float]) -> schema.Decision:
    """`state`: that of the governor as it decided. `clocks_mhz`: what the numbers of the clocks mean; empty where there
    is but one."""
    clock = decision.clock
    return schema.Decision(
        variant=decision.variant,
        max_batch=decision.max_batch,
        bound=decision.bound,
        reason=reason(decision, state),
        alternatives=[_alternative(decision, state, i) for i in range(len(state.variants))],
        pinned=decision.pinned,
        clock_mhz=clocks_mhz[clock] if clock is not None and clock < len(clocks_mhz) else None,
        price_per_j=_round(decision.price_per_j),
        frame_share=decision.frame_share,
        yielded=list(decision.relaxed),
        unheld=[unheld(limit, state) for limit in decision.unenforceable],
        shares=dict(decision.shares),
        numbers=numbers(state, now_s),
    )


def reason(decision: Decision, state: State) -> str:
    """What ran, and why not the most accurate variant on all frames."""
    bound, wanted, i = decision.bound, decision.wanted, state.tables.names.index(decision.wanted)
    text = f"{decision.variant} runs next"
    if decision.results:
        ran = sorted(decision.shares, key=lambda named: -named[1])
        what = ", ".join([f"{name} {share:.0%}" for name, share in ran if share >= LEAST_SHARE])
        text = f"{what} of {decision.results} results in the last second"
    if decision.saved and decision.price_per_j > 0:
        text += f", {decision.saved} frames dropped to save energy"
    if decision.late:
        text += f", {decision.late} dropped as late"
    if bound == "pin":
        return f"{text}: pinned by an operator"
    if bound == "none":
        return f"{text}: the most accurate variant fits {_deadline(state)} {_load(state)}"
    if bound == "accuracy":
        return f"{text}: {wanted} would fit but {explain.barred(state, i)}"
    if (misfit := explain.misfit(state, i)) is not None:
        return f"{text}: {wanted} {clause(misfit, state)}"
    if bound in LIMITS:
        price = f"{_round(decision.price_per_j):g}"
        return f"{text}: {LIMITS[bound]} is limited, a joule must gain {price} accurate frames"
    return f"{text}: {wanted} alone would leave later frames too little time"


def unheld(limit: Unenforceable, state: State) -> str:
    """Which limit cannot be held, and why."""
    if limit == "battery":
        return "the battery's budget cannot be held: its charge has not been read"
    measured = state.knows_heat if limit == "heat" else state.knows_power
    why = (EXCEEDED if measured else UNMEASURED)[limit]
    return f"{LIMIT_KEYS[limit]} = {getattr(state.budget, LIMIT_KEYS[limit]):g} cannot be held: {why}"


def _alternative(decision: Decision, state: State, i: int) -> schema.Alternative:
    """How a variant stands."""
    name, share = state.tables.names[i], dict(decision.shares).get(state.tables.names[i], 0.0)
    barred, misfit, needs_ms = explain.barred(state, i), explain.misfit(state, i), explain.predicted_ms(state, i)
    if barred is not None:
        text = f"may not run: {barred}"
    elif (other := explain.dominated_by(state, i)) is not None:
        text = f"never runs: {other} is as accurate, as fast and as cheap or better"
    elif misfit is not None:
        text = f"{clause(misfit, state)}, if it ran on all frames"
    else:
        text = f"fits on all frames with {human_ms(needs_ms)} of {_deadline(state)}"
    if share:
        text = f"made {share:.0%} of the results; {text}"
    elif name == decision.variant and not decision.results:
        text = f"runs next; {text}"
    watts = explain.power_w(state, i)
    return schema.Alternative(
        variant=name,
        accuracy=state.variants[i].accuracy,
        predicted_ms=None if needs_ms is None else round(needs_ms, 2),
        fits=barred is None and misfit is None,
        verdict=text,
        energy_mj=round(1000 * state.joules(i, state.plan.clock), 2) if state.knows_power else None,
        power_w=None if watts is None else round(watts, 2),
    )


def clause(misfit: Misfit, state: State) -> str:
    """Why a variant cannot run on all frames, without the subject."""
    if misfit.needs is None:
        return "has no known latency"
    if misfit.bound == "deadline":
        return f"would need {human_ms(misfit.needs)} of {_deadline(state)} {_load(state)}"
    if misfit.bound == "load":
        return f"would keep the engine {misfit.needs:.0%} busy {_load(state)}"
    allows = f"allows {human(misfit.allowed)} W" if misfit.allowed > 0 else "allows nothing"
    return f"would draw {human(misfit.needs)} W {_load(state)}, {LIMITS[misfit.bound]} {allows}"


def _deadline(state: State) -> str:
    budget = state.budget
    return f"{human_ms(budget.deadline_ms)} at the {budget.deadline_quantile * 100:g} % quantile"


def _load(state: State) -> str:
    cameras = f"with {state.cameras} camera{'' if state.cameras == 1 else 's'}"
    return f"{cameras} at {human(state.frames_per_s)} frames/s"


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


def numbers(state: State, now_s: float) -> list[schema.Number]:
    """What the plan was made of, with errors and ages."""
    found = [*_watts(state, now_s), *_allowances(state)]
    if state.heat.junction_c is not None:
        age_s = _age(now_s, state.heat.at_s)
        found.append(_number("junction", state.heat.junction_c, "C", state.heat.error_c, age_s))
    for i, name in enumerate(state.tables.names):
        slow, ran_s = math.exp(state.latency.log_factor(i, state.clock)), state.latency.ran_s[i]
        ago_s = None if ran_s < 0 else _age(now_s, ran_s)
        found.append(_number(f"latency of {name} against its profile", slow, "x", slow * state.latency.error(i), ago_s))
        if not state.unmeasured:
            reference = "a guess" if state.tables.assumed[i] else "its profile"
            guessed = state.tables.assumed[i] and not state.power.learnt(i, state.clock)
            factor, error = state.power.factor(i, state.clock), state.power.error(i, state.clock)
            found.append(_number(f"energy of {name} against {reference}", factor, "x", error, ago_s, guessed))
    return found


def _watts(state: State, now_s: float) -> list[schema.Number]:
    if state.unmeasured:
        return []
    power, guess = state.power, state.device.assumed
    error_w, age_s = power.background_error_w, _age(now_s, power.valid_s) if power.metered else None
    return [
        _number("drawn without frames", state.plan.base_w, "W", error_w, age_s, guess and not power.metered),
        _number("of that, another load", power.background_w, "W", error_w, age_s, guess),
        _number("price of a joule", state.price, "frames/J"),
    ]


def _allowances(state: State) -> list[schema.Number]:
    allowed = state.plan.allowed
    watts = {"power": allowed.window_w, "heat": allowed.heat_w, "energy": allowed.energy_w}
    names = LIMITS | {"power": "the rolling mean"}
    found = [_number(f"allowed by {names[key]}", w, "W") for key, w in watts.items() if math.isfinite(w)]
    if state.quota is not None and state.knows_power:
        left_wh = state.quota.left_j(state.power.history.drawn_j) / 3600
        found.append(_number("energy spent in this horizon", state.quota.energy_j / 3600 - left_wh, "Wh"))
        found.append(_number("left of the horizon's energy", left_wh, "Wh"))
    if state.store is not None and state.store.charge is not None:
        found.append(_number("charge", state.store.charge, ""))
    return found


def _number(
    name: str,
    value: float,
    unit: str,
    error: float | None = None,
    age_s: float | None = None,
    assumed: bool = False,
) -> schema.Number:
    return schema.Number(name, _round(value), unit, None if error is None else _round(error), age_s, assumed)


def _age(now_s: float, then_s: float) -> float:
    return round(max(0.0, now_s - then_s), 1)


def _round(value: float) -> float:
    return float(f"{value:.4g}")
