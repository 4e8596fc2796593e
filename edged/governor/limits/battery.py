"""How much power the battery allows: its gauge, the harvest and a forecast in, watts out. Pure; it changes in place.

The mean power is a taut string (equation B1) between "never empty", under a pessimistic forecast, and "never
overflowing". The forecast is scaled by what was harvested against what was forecast. `safe`: idling from soon on would
still be survived, so the cheapest service may continue; only when it would not are frames dropped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from edged.governor.messages import Battery, BatteryBudget
from edged.governor.planner.options import Array

RESERVE: Final = 0.012
FULL: Final = 0.985
STEP_S: Final = 10.0
STEPS: Final = 720  # the time ahead is divided into steps of STEP_S, or into so many for a long one
NOW_FADE_S: Final = 90.0  # how long the present harvest is believed over the forecast
PART_ERROR: Final = 0.35
"""Share by which one value of a forecast is usually wrong, on its own; BIAS: by which all of them are together."""
BIAS: Final = 0.06
BIAS_PRIOR: Final = (PART_ERROR / BIAS) ** 2
"""So many values of a forecast must have passed to tell as much of its bias as was known before."""
COMPARE_PARTS: Final = 300.0
"""After so many values a comparison is forgotten: a dusty panel stays dusty, a season does not."""
RATIO_RANGE: Final = (0.5, 1.4)
GAUGE_STEP: Final = 0.004
PESSIMISM: Final = 1.3
SAFE_PESSIMISM: Final = 0.3
PLAN_EVERY_S: Final = 3.0
LONG_S: Final = 240.0
REST_S: Final = 150.0  # another load comes and goes: its mean over so long is what the time ahead will have of it


@dataclass(slots=True)
class Store:
    """`charge`: 0 to 1, integrated between the gauge's coarse steps; None until it was read. `harvested_j`,
    `forecast_j`: fading sums, for their ratio. `begun_s`: when the budget was set. `rest_w`: drawn without frames,
    smoothed. `allowed_w`, `safe`: the result."""

    budget: BatteryBudget
    begun_s: float
    capacity_j: float = 0.0
    charge: float | None = None
    harvest_w: float = 0.0
    harvested_j: float = 0.0
    forecast_j: float = 0.0
    planned_s: float = -math.inf
    allowed_w: float = math.inf
    safe: bool = True
    rest_w: float | None = None

    def sensed(self, battery: Battery, drawn_w: float, elapsed_s: float, now_s: float) -> None:
        if not (0 < battery.capacity_j < 1e12 and 0 <= battery.charge_j <= 1.5 * battery.capacity_j):
            return
        self.capacity_j, charge = battery.capacity_j, min(1.0, battery.charge_j / battery.capacity_j)
        self.harvest_w = battery.harvest_w if battery.harvest_w is not None and 0 <= battery.harvest_w < 1e6 else 0.0
        if self.charge is None or abs(charge - self.charge) > GAUGE_STEP:
            self.charge = charge
        else:
            self.charge += (self.harvest_w - drawn_w) * elapsed_s / self.capacity_j
            self.charge += 0.02 * elapsed_s * (charge - self.charge)
        if self.budget.harvest_w:
            kept = math.exp(-elapsed_s / (COMPARE_PARTS * self._part_s))
            self.harvested_j = kept * self.harvested_j + self.harvest_w * elapsed_s
            expected_w = float(self._forecast_w(np.array([now_s - self.begun_s]))[0])
            self.forecast_j = kept * self.forecast_j + expected_w * elapsed_s

    def plan(self, idle_w: float, service_w: float, now_s: float) -> None:
        """`idle_w`: drawn with no frame run; `service_w`: by the cheapest variant on all frames, above it."""
        if self.charge is None or now_s - self.planned_s <= PLAN_EVERY_S:
            return
        rest_w = idle_w if self.rest_w is None else self.rest_w
        rest_w += min(1.0, (now_s - self.planned_s) / REST_S) * (idle_w - rest_w)
        gone_s = now_s - self.begun_s
        left_s = self.budget.last_s - gone_s % self.budget.last_s
        step_s = max(STEP_S, left_s / STEPS)
        ahead_s = np.arange(step_s, max(step_s + 2.0, left_s), step_s)
        harvest_j, error_j = self._harvest(ahead_s, step_s, gone_s)
        above_j = (self.charge - RESERVE) * self.capacity_j
        most_w = (above_j + np.maximum(0.0, harvest_j - PESSIMISM * error_j)) / ahead_s
        least_w = ((self.charge - FULL) * self.capacity_j + harvest_j) / ahead_s
        survive_j = above_j + np.maximum(0.0, harvest_j - SAFE_PESSIMISM * error_j)
        survive_j = survive_j - rest_w * np.maximum(0.0, ahead_s - 30.0)
        soon_w = float(survive_j[ahead_s >= 30].min() / 30.0) if (ahead_s >= 30).any() else math.inf
        needed_w = rest_w + service_w
        more_comes = len(harvest_j) > 0 and harvest_j[-1] > 0
        self.safe = soon_w > needed_w or (more_comes and above_j > needed_w * min(LONG_S, left_s))
        self.planned_s, self.rest_w, self.allowed_w = now_s, rest_w, max(0.0, _taut(most_w, least_w))

    @property
    def _part_s(self) -> float:
        return self.budget.last_s / max(1, len(self.budget.harvest_w))

    def _forecast_w(self, at_s: Array) -> Array:
        values = np.array(self.budget.harvest_w)
        return np.asarray(values[np.minimum(len(values) - 1, (at_s % self.budget.last_s / self._part_s).astype(int))])

    def _harvest(self, ahead_s: Array, step_s: float, gone_s: float) -> tuple[Array, Array]:
        """Joules expected up to each time ahead, and their standard error. Without a forecast: none."""
        if not self.budget.harvest_w:
            return np.zeros(len(ahead_s)), np.zeros(len(ahead_s))
        prior_j = BIAS_PRIOR * self._part_s * sum(self.budget.harvest_w) / len(self.budget.harvest_w)
        ratio = (self.harvested_j + prior_j) / (self.forecast_j + prior_j) if prior_j > 0 else 1.0
        now_counts = np.exp(-ahead_s / NOW_FADE_S)
        expected_w = self._forecast_w(gone_s + ahead_s - step_s / 2) * min(RATIO_RANGE[1], max(RATIO_RANGE[0], ratio))
        harvest_w = expected_w * (1 - now_counts) + self.harvest_w * now_counts
        harvest_j = np.cumsum(harvest_w) * step_s
        together = max(1.0, self._part_s / step_s)
        bias = BIAS * math.sqrt(prior_j / max(1e-9, prior_j + self.forecast_j))
        error_j = np.sqrt(np.cumsum((PART_ERROR * harvest_w * step_s) ** 2) * together + (bias * harvest_j) ** 2)
        return harvest_j, error_j


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
