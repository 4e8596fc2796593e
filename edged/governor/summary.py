"""What the economy says of whole variants, for the standing choice and its reasons: watts, limits and numbers. Pure."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from edged.governor.messages import Bound, Number
from edged.governor.state import UNKNOWN, Economy

LEARNT_ERROR: Final = 0.5
"""A guess whose error has become smaller than this share has been learnt: it is assumed no more."""


class Power(NamedTuple):
    """A variant with all frames on it: joules per frame, watts of the device; what is allowed, and which budget says
    so (infinite and "none" while none does). None where nothing is known of watts."""

    energy_j: float | None
    power_w: float | None
    allowed_w: float
    limit: Bound


def powers(e: Economy, frames_per_s: float) -> list[Power]:
    """By variant."""
    plan, n = e.plan, len(e.tables.names)
    if not e.knows_power and not e.knows_heat:
        return [Power(None, None, math.inf, "none")] * n
    allowed = plan.allowed
    battery_w = math.inf if allowed.safe and not plan.paced else allowed.battery_w
    limits: list[tuple[float, Bound]] = [(allowed.heat_w, "heat"), (allowed.window_w, "power"), (battery_w, "energy")]
    allowed_w, limit = min(limits, key=lambda x: x[0])
    if not math.isfinite(allowed_w):
        limit = "none"
    joules = [e.joule(i, plan.clock) for i in range(n)]
    return [Power(joule, plan.base_w + joule * frames_per_s, allowed_w, limit) for joule in joules]


def unheld(e: Economy) -> tuple[str, ...]:
    """The limits that are set and cannot be held, each with its reason."""
    budget, found = e.budget, []
    if not e.knows_power:
        why = "cannot be held: the device has no power sensor and no profile"
        if budget.power_w is not None:
            found.append(f"power_w = {budget.power_w:g} {why}")
        if budget.energy_wh is not None:
            found.append(f"energy_wh = {budget.energy_wh:g} {why}")
    if budget.temperature_c is not None and not e.knows_heat:
        found.append(f"temperature_c = {budget.temperature_c:g} cannot be held: no temperature has been read")
    if budget.battery is not None and e.store.charge is None:
        found.append("the battery's budget cannot be held: its charge has not been read")
    return tuple(found)


def numbers(e: Economy, now_s: float) -> tuple[Number, ...]:
    """What the plan was made of, with errors and ages."""
    found = [*_watts(e, now_s), *_allowances(e)]
    if e.heat.junction_c is not None:
        age_s = _age(now_s, e.heat.at_s)
        found.append(Number("junction", _round(e.heat.junction_c), "C", _round(e.heat.error_c), age_s))
    for i, name in enumerate(e.tables.names):
        slow, ran_s = math.exp(e.latency.log_factor(i)), e.latency.ran_s[i]
        ago_s = None if ran_s < 0 else _age(now_s, ran_s)
        error = _round(slow * e.latency.error(i))
        found.append(Number(f"latency of {name} against its profile", _round(slow), "x", error, ago_s))
        if e.device is not UNKNOWN:
            factor, doubt = e.energy.factor(i), _round(e.energy.error(i))
            told = "a guess" if e.tables.assumed[i] else "its profile"
            guessed = e.tables.assumed[i] and e.energy.error(i) > LEARNT_ERROR
            found.append(Number(f"energy of {name} against {told}", _round(factor), "x", doubt, ago_s, guessed))
    return tuple(found)


def _watts(e: Economy, now_s: float) -> list[Number]:
    if e.device is UNKNOWN:
        return []
    error_w, guess = _round(e.energy.other_error_w), e.device.assumed
    age_s = _age(now_s, e.energy.valid_s) if e.energy.metered else None
    book = e.energy.book
    window_s = max(1, min(round(now_s), len(book.seconds_j) - 1))
    mean_w = sum(book.seconds_j[-1 - window_s : -1]) / window_s
    return [
        Number("mean power over the window", _round(mean_w), "W", None, age_s, guess and not e.energy.metered),
        Number("drawn without frames", _round(e.plan.base_w), "W", error_w, age_s, guess and not e.energy.metered),
        Number("of that, another load", _round(e.energy.other_w), "W", error_w, age_s, guess),
        Number("price of a joule", _round(e.price), "frames/J"),
    ]


def _allowances(e: Economy) -> list[Number]:
    allowed = e.plan.allowed
    named = (
        ("allowed by the rolling mean", allowed.window_w),
        ("allowed by heat", allowed.heat_w),
        ("allowed by the energy that must last", allowed.battery_w),
    )
    found = [Number(name, _round(watts), "W") for name, watts in named if math.isfinite(watts)]
    if e.horizon is not None and e.knows_power:
        left_wh = e.horizon.left_j(e.energy.book.drawn_j) / 3600
        found.append(Number("energy spent in this horizon", _round(e.horizon.energy_j / 3600 - left_wh), "Wh"))
        found.append(Number("left of the horizon's energy", _round(left_wh), "Wh"))
    if e.store.charge is not None:
        found.append(Number("charge", _round(e.store.charge), ""))
    return found


def _age(now_s: float, then_s: float) -> float:
    return round(max(0.0, now_s - then_s), 1)


def _round(value: float) -> float:
    return float(f"{value:.4g}")
