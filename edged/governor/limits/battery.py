"""How much power the store allows: charge, harvest and forecast in, watts out. Pure.

The mean power is a taut string between "never empty", under a pessimistic forecast, and "never overflowing": what the
sun would spill is better spent. The forecast is scaled by what the sun gave against what was foretold, as far as that
tells of the forecast and not of the clouds of the hour.
`safe` says that a rest from soon on would still be survived, so that the cheapest service may go on; only when it would
not are frames given up. While a sun is to come, which may do better than foretold, a store for minutes is safe too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from edged.governor.fast_replace import replace
from edged.governor.messages import Battery
from edged.governor.planner.options import Array

RESERVE: Final = 0.012
FULL: Final = 0.985
STEP_S: Final = 10.0
STEPS: Final = 720
"""The time ahead is looked at in steps of STEP_S, or in so many for a long one."""
NOW_FADE_S: Final = 90.0
"""How long the present sun is believed over the forecast."""
BLOCK_ERROR: Final = 0.35
"""Share by which one value of a forecast is usually wrong, on its own; BIAS: by which all of them are together."""
BIAS: Final = 0.06
BIAS_PRIOR: Final = (BLOCK_ERROR / BIAS) ** 2
"""So many values of a forecast must have come and gone to tell as much of its bias as was known before."""
COMPARE_BLOCKS: Final = 300.0
"""After so many values a comparison is forgotten: a dusty panel stays dusty, a season does not."""
RATIO_RANGE: Final = (0.5, 1.4)
GAUGE_STEP: Final = 0.004
PESSIMISM: Final = 1.3
SAFE_PESSIMISM: Final = 0.3
PLAN_EVERY_S: Final = 3.0
LONG_S: Final = 240.0
REST_S: Final = 150.0
"""Another load comes and goes: its mean over so long is what the time ahead will have of it."""


@dataclass(frozen=True)
class Store:
    """`charge` integrates between the gauge's coarse steps. `harvested`, `foretold`: fading sums, for their ratio.
    `begun_s`: when the battery was first told; its own times count from there. `rest_w`: drawn
    without frames, smoothed."""

    charge: float | None = None
    sun_w: float = 0.0
    harvested_j: float = 0.0
    foretold_j: float = 0.0
    ratio: float = 1.0
    planned_s: float = -math.inf
    allowed_w: float = math.inf
    safe: bool = True
    begun_s: float = 0.0
    rest_w: float | None = None


def sensed(
    store: Store, battery: Battery, charge: float, harvest_w: float, drawn_w: float, elapsed_s: float, now_s: float
) -> Store:
    capacity_j = battery.capacity_wh * 3600
    if store.charge is None or abs(charge - store.charge) > GAUGE_STEP:
        known = charge
    else:
        known = store.charge + (harvest_w - drawn_w) * elapsed_s / capacity_j
        known += 0.02 * elapsed_s * (charge - known)
    kept = math.exp(-elapsed_s / (COMPARE_BLOCKS * battery.forecast_step_s))
    harvested_j = kept * store.harvested_j + harvest_w * elapsed_s
    foretold_j = kept * store.foretold_j + forecast_w(battery, now_s - store.begun_s) * elapsed_s
    prior_j = _prior_j(battery)
    ratio = (harvested_j + prior_j) / (foretold_j + prior_j) if prior_j > 0 else 1.0
    return replace(store, charge=known, sun_w=harvest_w, harvested_j=harvested_j, foretold_j=foretold_j, ratio=ratio)


def forecast_w(battery: Battery, at_s: float) -> float:
    if not battery.forecast_w:
        return 0.0
    return battery.forecast_w[min(len(battery.forecast_w) - 1, max(0, int(at_s / battery.forecast_step_s)))]


def _prior_j(battery: Battery) -> float:
    """What must have been foretold for its comparison with the sun to count as much as the trust in the forecast."""
    if not battery.forecast_w:
        return 0.0
    return BIAS_PRIOR * battery.forecast_step_s * sum(battery.forecast_w) / len(battery.forecast_w)


def plan(store: Store, battery: Battery, idle_w: float, service_w: float, now_s: float) -> Store:
    """`idle_w`: drawn with no frame run; `service_w`: by the cheapest variant on all frames, above it."""
    if store.charge is None or now_s - store.planned_s <= PLAN_EVERY_S:
        return store
    rest_w = idle_w if store.rest_w is None else store.rest_w
    rest_w += min(1.0, (now_s - store.planned_s) / REST_S) * (idle_w - rest_w)
    capacity_j = battery.capacity_wh * 3600
    left_s = battery.until_s - (now_s - store.begun_s)
    step_s = max(STEP_S, left_s / STEPS)
    ahead_s = np.arange(step_s, max(step_s + 2.0, left_s), step_s)
    sun_j, error_j = _harvest(store, battery, ahead_s, step_s, now_s - store.begun_s)
    above_j = (store.charge - RESERVE) * capacity_j
    most_w = (above_j + np.maximum(0.0, sun_j - PESSIMISM * error_j)) / ahead_s
    least_w = (store.charge * capacity_j + sun_j - FULL * capacity_j) / ahead_s
    survive_j = above_j + np.maximum(0.0, sun_j - SAFE_PESSIMISM * error_j) - rest_w * np.maximum(0.0, ahead_s - 30.0)
    soon_w = float(survive_j[ahead_s >= 30].min() / 30.0) if (ahead_s >= 30).any() else math.inf
    needed_w = rest_w + service_w
    more_comes = len(sun_j) > 0 and sun_j[-1] > 0
    safe = soon_w > needed_w or (more_comes and above_j > needed_w * min(LONG_S, left_s))
    return replace(store, planned_s=now_s, allowed_w=max(0.0, _taut(most_w, least_w)), safe=safe, rest_w=rest_w)


def _harvest(store: Store, battery: Battery, ahead_s: Array, step_s: float, now_s: float) -> tuple[Array, Array]:
    """Joules expected up to each time ahead, and their standard error: within a value of the forecast it is one."""
    if not battery.forecast_w:
        return np.zeros(len(ahead_s)), np.zeros(len(ahead_s))
    now_counts = np.exp(-ahead_s / NOW_FADE_S)
    foretold = np.array(battery.forecast_w)
    block = np.minimum(len(foretold) - 1, ((now_s + ahead_s - step_s / 2) / battery.forecast_step_s).astype(int))
    ratio = min(RATIO_RANGE[1], max(RATIO_RANGE[0], store.ratio))
    sun_w = foretold[block] * ratio * (1 - now_counts) + store.sun_w * now_counts
    sun_j = np.cumsum(sun_w) * step_s
    together = max(1.0, battery.forecast_step_s / step_s)
    bias = BIAS * math.sqrt((prior_j := _prior_j(battery)) / max(1e-9, prior_j + store.foretold_j))
    error_j = np.sqrt(np.cumsum((BLOCK_ERROR * sun_w * step_s) ** 2) * together + (bias * sun_j) ** 2)
    return sun_j, error_j


def _taut(most_w: Array, least_w: Array) -> float:
    """The first direction of the shortest path between the two bounds."""
    upper, lower = math.inf, 0.0
    for most, least in zip(most_w.tolist(), least_w.tolist(), strict=True):
        if most < lower:
            return lower
        if least > upper:
            return upper
        upper, lower = min(upper, most), max(lower, least)
    return float(min(upper, max(lower, float(most_w[-1]))))
