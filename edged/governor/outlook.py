"""What the economy says of whole variants, for the standing choice and its reasons: watts, limits and numbers. Pure."""

from __future__ import annotations

import math
from typing import NamedTuple

from edged.governor.decision import Bound, Number
from edged.governor.economy import Economy, joule


class Power(NamedTuple):
    """A variant with all frames on it: joules per frame, watts of the device; what is allowed, and which budget says
    so (infinite and "none" while none does)."""

    energy_j: float
    power_w: float
    allowed_w: float
    limit: Bound


def powers(economy: Economy, frames_per_s: float) -> list[Power]:
    """By variant."""
    plan = economy.plan
    allowed = plan.allowed
    battery_w = math.inf if allowed.safe and plan.paced is False else allowed.battery_w
    limits: list[tuple[float, Bound]] = [(allowed.heat_w, "heat"), (allowed.window_w, "power"), (battery_w, "energy")]
    allowed_w, limit = min(limits, key=lambda x: x[0])
    found = []
    for i in range(len(economy.tables.names)):
        energy_j = joule(economy, i, plan.clock)
        found.append(
            Power(
                energy_j,
                plan.base_w + energy_j * frames_per_s,
                allowed_w,
                limit if math.isfinite(allowed_w) else "none",
            )
        )
    return found


def numbers(economy: Economy | None, now_s: float) -> tuple[Number, ...]:
    """What the plan was made of, with errors and ages."""
    if economy is None:
        return ()
    e, allowed = economy, economy.plan.allowed
    found = [
        Number(
            "without frames", _round(e.plan.base_w), "W", _round(e.energy.other_error_w), _age(now_s, e.energy.valid_s)
        ),
        Number("another load", _round(e.energy.other_w), "W", _round(e.energy.other_error_w)),
        Number("price of a joule", _round(e.price), "frames/J"),
    ]
    for name, watts in (
        ("allowed by the rolling window", allowed.window_w),
        ("allowed by the temperature limit", allowed.heat_w),
        ("allowed by the battery", allowed.battery_w),
    ):
        if math.isfinite(watts):
            found.append(Number(name, _round(watts), "W"))
    if e.heat.junction_c is not None:
        found.append(
            Number("junction", _round(e.heat.junction_c), "C", _round(e.heat.error_c), _age(now_s, e.heat.at_s))
        )
    for i, name in enumerate(e.tables.names):
        slow = math.exp(e.tempo.log_factor(i))
        ran_s = e.tempo.ran_s[i]
        age_s = None if ran_s < 0 else _age(now_s, ran_s)
        found.append(
            Number(f"latency of {name} against its profile", _round(slow), "x", _round(e.tempo.error(i)), age_s)
        )
    return tuple(found)


def _age(now_s: float, then_s: float) -> float:
    return round(max(0.0, now_s - then_s), 1)


def _round(value: float) -> float:
    return float(f"{value:.4g}")
