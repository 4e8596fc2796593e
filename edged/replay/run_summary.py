"""A run as figures over time: every call to the governor in, what a table and a plot show out. Pure.

`on_call` is the governor's hook: a simulated run, a recorded one and a counterfactual one are summarised the same way.
Times are seconds from the first call; power and temperature are what the sensors showed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edged.clock import NS_PER_S
from edged.governor.governor import Governor
from edged.governor.messages import (
    Answer,
    BatchDone,
    Budget,
    BudgetChanged,
    Decision,
    Request,
    Sensed,
    Skipped,
    Start,
    Variant,
    Workload,
)
from edged.power.energy_meter import EnergyMeter

Array = NDArray[np.floating[Any]]
LONGEST_HOLD_S: Final = 10.0
"""A reading stands for no longer: beyond it the power is unknown."""


class Ran(NamedTuple):
    """A batch: `latency_ms` is capture to publish of its oldest frame."""

    at_s: float
    variant: str
    frames: int
    latency_ms: float
    late: int


class Read(NamedTuple):
    at_s: float
    power_w: float | None
    temperature_c: float | None
    charge: float | None


class GivenUp(NamedTuple):
    at_s: float
    frames: int
    late: bool


@dataclass(frozen=True)
class Summary:
    """None where nothing is known. Shares are 0 to 1; `accuracy` is the mean over results on time, by the accuracy each
    variant has in the bundle, `service` the same over all frames offered."""

    seconds: float
    offered: int
    results: int
    on_time: float | None
    given_up: int
    dropped_late: int
    shares: Mapping[str, float]
    mean_w: float | None
    energy_wh: float | None
    over_power: float | None
    """share of the seconds in which the rolling mean was above the budget (2 % of tolerance)"""
    hottest_c: float | None
    lowest_charge: float | None
    accuracy: float | None
    service: float | None
    switches: int
    still: Mapping[str, float]
    """by camera with a motion gate: the share of its frames that were left out as still"""


@dataclass
class RunSummary:
    """`estimated`: its power and temperature are a model's."""

    name: str
    estimated: bool = False
    begun_ns: int | None = None
    variants: tuple[Variant, ...] = ()
    runs: list[Ran] = field(default_factory=list)
    readings: list[Read] = field(default_factory=list)
    given_up: list[GivenUp] = field(default_factory=list)
    still: list[tuple[float, str, float]] = field(default_factory=list)
    """when, a camera with a motion gate, and the share of its last second's frames that it left out"""
    budgets: list[tuple[float, Budget]] = field(default_factory=list)
    decisions: list[tuple[float, Decision]] = field(default_factory=list)
    end_s: float = 0.0

    def on_call(self, now_ns: int, request: Request, answer: Answer, governor: Governor) -> None:
        if self.begun_ns is None:
            self.begun_ns = now_ns
            self.variants = governor.state.variants
            self.budgets.append((0.0, governor.state.budget))
        at_s = (now_ns - self.begun_ns) / NS_PER_S
        self.end_s = max(self.end_s, at_s)
        match request:
            case BatchDone():
                latency_ms = request.wait_ms + request.service_ms
                self.runs.append(Ran(at_s, request.variant, request.batch, latency_ms, request.late))
            case Sensed():
                battery = request.battery
                charge = None if battery is None else battery.charge_j / battery.capacity_j
                self.readings.append(Read(at_s, request.power_w, request.temperature_c, charge))
            case Workload():
                self.still += [(at_s, camera, share) for camera, share in request.still]
            case Skipped():
                self.given_up.append(GivenUp(at_s, request.frames, request.late))
            case BudgetChanged(budget):
                self.budgets.append((at_s, budget))
            case Start():  # of another run: what it changed in the bundle stands beside what was
                known = {variant.name: variant for variant in (*self.variants, *request.variants)}
                self.variants = tuple(known.values())
                if request.budget != self.budgets[-1][1]:
                    self.budgets.append((at_s, request.budget))
        if isinstance(answer, Decision):
            self.decisions.append((at_s, answer))

    def sensed(self, key: str) -> tuple[Array, Array]:
        """Times and values of a field of the readings, where known."""
        known = [(r.at_s, value) for r in self.readings if (value := getattr(r, key)) is not None]
        return np.array([t for t, _ in known]), np.array([float(v) for _, v in known])

    def limit(self, key: str) -> tuple[Array, Array]:
        """A limit as steps: times of change, values (NaN where it is absent), and once more at the end."""
        values = [(t, getattr(b, key)) for t, b in self.budgets]
        values.append((self.end_s, values[-1][1] if values else None))
        return np.array([t for t, _ in values]), np.array([math.nan if v is None else float(v) for _, v in values])

    def by_second(self) -> Array:
        """Watts of each whole second, held from the last reading; NaN where there was none for long."""
        times, watts = self.sensed("power_w")
        seconds = np.arange(0.0, math.ceil(self.end_s)) + 0.5
        if not len(times) or not len(seconds):
            return np.full(len(seconds), math.nan)
        sums = np.zeros(len(seconds))
        counts = np.zeros(len(seconds))
        at = np.minimum(times.astype(int), len(seconds) - 1)
        np.add.at(sums, at, watts)
        np.add.at(counts, at, 1)
        last = np.searchsorted(times, seconds, side="right") - 1
        held = np.where((last >= 0) & (seconds - times[np.maximum(last, 0)] <= LONGEST_HOLD_S), watts[last], math.nan)
        return np.asarray(np.where(counts > 0, sums / np.maximum(counts, 1), held))

    def rolling(self) -> tuple[Array, Array]:
        """The mean power of the window that ends at each second; NaN before the first whole window."""
        watts = self.by_second()
        window = max(1, round(self.budgets[-1][1].power_window_s)) if self.budgets else 1
        if len(watts) < window:
            return np.arange(len(watts)) + 1.0, np.full(len(watts), math.nan)
        known = np.nan_to_num(watts)
        sums = np.cumsum(np.concatenate([[0.0], known]))
        counts = np.cumsum(np.concatenate([[0.0], np.isfinite(watts)]))
        count = counts[window:] - counts[:-window]
        means = np.where(count > window / 2, (sums[window:] - sums[:-window]) / np.maximum(count, 1), math.nan)
        return np.arange(len(watts)) + 1.0, np.concatenate([np.full(window - 1, math.nan), means])

    def summary(self) -> Summary:
        results = sum(run.frames for run in self.runs)
        late = sum(run.late for run in self.runs)
        given_up = sum(g.frames for g in self.given_up if not g.late)
        dropped = sum(g.frames for g in self.given_up if g.late)
        offered = results + given_up + dropped
        accuracy = {v.name: v.accuracy for v in self.variants}
        shares = {
            v.name: sum(run.frames for run in self.runs if run.variant == v.name) / max(1, results)
            for v in self.variants
        }
        known = [(run.frames - run.late, a) for run in self.runs if (a := accuracy.get(run.variant)) is not None]
        earned, timely = sum(n * a for n, a in known), sum(n for n, _ in known)
        celsius, charge = self.sensed("temperature_c")[1], self.sensed("charge")[1]
        switches = sum(a.variant != b.variant for a, b in pairwise(self.runs))
        energy_j, metered_s = self._metered()
        return Summary(
            seconds=self.end_s,
            offered=offered,
            results=results,
            on_time=(results - late) / results if results else None,
            given_up=given_up,
            dropped_late=dropped,
            shares=shares,
            mean_w=energy_j / metered_s if metered_s > 0 else None,
            energy_wh=energy_j / 3600 if metered_s > 0 else None,
            over_power=self._over_power(),
            hottest_c=float(celsius.max()) if len(celsius) else None,
            lowest_charge=float(charge.min()) if len(charge) else None,
            accuracy=earned / timely if timely else None,
            service=earned / offered if known and offered else None,
            switches=switches,
            still={camera: float(shares.mean()) for camera, (_, shares) in self.still_shares().items()},
        )

    def still_shares(self) -> dict[str, tuple[Array, Array]]:
        """By camera: times, and the share of the second before each that its motion gate left out."""
        by_camera: dict[str, list[tuple[float, float]]] = {}
        for at_s, camera, share in self.still:
            by_camera.setdefault(camera, []).append((at_s, share))
        return {camera: (np.array(points)[:, 0], np.array(points)[:, 1]) for camera, points in by_camera.items()}

    def _metered(self) -> tuple[float, float]:
        """Joules by the energy meter, and the seconds in which power was known."""
        meter = EnergyMeter(LONGEST_HOLD_S)
        for reading in self.readings:
            meter.add(int(reading.at_s * NS_PER_S), reading.power_w)
        if meter.total is None:
            return 0.0, 0.0
        passed_s = meter.total.read_ns / NS_PER_S - self.readings[0].at_s
        return meter.total.energy_j, passed_s - meter.total.gap_s

    def _over_power(self) -> float | None:
        """A step down has one window of grace, since the past cannot be changed."""
        at_s, rolling_w = self.rolling()
        changed_s, caps_w = self.limit("power_w")
        known = np.isfinite(rolling_w)
        if not known.any() or not np.isfinite(caps_w).any():
            return None
        window = self.budgets[-1][1].power_window_s
        over = 0
        for t, w in zip(at_s[known], rolling_w[known], strict=True):
            first = max(0, int(np.searchsorted(changed_s, t - window, side="right")) - 1)
            last = max(first + 1, int(np.searchsorted(changed_s, t, side="right")))
            in_force = caps_w[first:last]
            over += bool(np.isfinite(in_force).all() and w > 1.02 * in_force.max())
        return over / int(known.sum())
