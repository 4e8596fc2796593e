"""The plant: joules spent in, power, heat, throttle, charge and late, coarse sensor readings out. Pure.

Two heat nodes (junction, sink) and the air; above THROTTLE_C the clock falls to its lowest until THROTTLE_OFF_C, above
SHUTDOWN_C the device is off for a minute, an empty battery turns it off for half of one. The power sensor answers late
and averaged, quantised, with gain and noise, and is sometimes silent; the temperature comes once a second at best.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from edged.simulate.scenario import Truth
from edged.simulate.tables import (
    LEAKAGE_W_PER_C,
    SHUTDOWN_C,
    STEP_S,
    THROTTLE_C,
    THROTTLE_OFF_C,
)

OFF_W: Final = 0.25
CHARGE_STEPS: Final = 500.0
"""The battery's gauge shows fifths of a percent."""


@dataclass(frozen=True)
class Reading:
    """What the sensors say at `at_s`; None is unknown. `still`: the share of the frames that the cameras' motion gates
    leave out just now; None without gates."""

    at_s: float
    power_w: float | None
    temperature_c: float | None
    charge: float | None
    sun_w: float
    still: float | None = None

    @property
    def valid(self) -> bool:
        return self.power_w is not None


@dataclass
class Counts:
    throttles: int = 0
    shutdowns: int = 0
    brownouts: int = 0


@dataclass
class Log:
    """What happened, per step; the score is computed from it."""

    power_w: np.ndarray[tuple[int], np.dtype[np.float64]]
    junction_c: np.ndarray[tuple[int], np.dtype[np.float64]]
    throttled: np.ndarray[tuple[int], np.dtype[np.bool_]]
    counts: Counts = field(default_factory=Counts)


class Plant:
    """One device through one scenario. `clock` is what was requested, `running_clock` what it runs at."""

    def __init__(self, truth: Truth, clock: int) -> None:
        self._truth = truth
        n = truth.steps
        self.log = Log(np.zeros(n), np.zeros(n), np.zeros(n, dtype=bool))
        self.clock = self.running_clock = clock
        self.throttled = False
        self.off_until_s = -1.0
        self._step = 0
        self._active_j = [0.0] * (n + 2000)
        self._junction_c, self._sink_c = truth.junction_c, truth.sink_c
        self._capacity_j = truth.battery["cap_wh"] * 3600.0 if truth.battery else None
        self._store_j = self._capacity_j * truth.battery["soc0"] if truth.battery and self._capacity_j else 0.0
        self._smooth_w = truth.idle_w[clock]
        self._smoothed_w: list[float] = []
        self._every = max(1, round(1.0 / truth.sensor["hz"] / STEP_S))
        self._lag = round(truth.sensor["lag"] / STEP_S)
        self._gain = 1.0 - math.exp(-STEP_S / max(1e-6, truth.sensor["tau"]))

    def set_clock(self, clock: int) -> None:
        self.clock = self.running_clock = clock

    def spend(self, begin_s: float, end_s: float, energy_j: float) -> None:
        """Energy of an inference, spread evenly over its time."""
        active = self._active_j
        last = min(int(end_s / STEP_S), len(active) - 1)
        first = min(int(begin_s / STEP_S), last)
        if first == last or end_s <= begin_s:
            active[first] += energy_j
            return
        rate_w = energy_j / (end_s - begin_s)
        active[first] += rate_w * ((first + 1) * STEP_S - begin_s)
        for k in range(first + 1, last):
            active[k] += rate_w * STEP_S
        active[last] += rate_w * (end_s - last * STEP_S)

    def advance(self, to_s: float) -> Iterator[Reading]:
        """Lets time pass; a reading whenever the sensors give one."""
        truth = self._truth
        while self._step < truth.steps and (self._step + 1) * STEP_S <= to_s:
            k = self._step
            power_w = self._power_w(k)
            self._warm(k, power_w)
            if self._capacity_j is not None:
                self._charge(k, power_w)
            self._protect(k)
            self._smooth_w += self._gain * (power_w - self._smooth_w)
            self._smoothed_w.append(self._smooth_w)
            self._step += 1
            if k % self._every == 0 and k >= self._lag:
                yield self._reading(k)

    def _power_w(self, k: int) -> float:
        truth = self._truth
        if self.off_until_s > k * STEP_S:
            power_w = OFF_W
        else:
            leakage_w = LEAKAGE_W_PER_C * (self._junction_c - 25.0)
            active_w = self._active_j[k] / STEP_S
            power_w = float(truth.idle_w[self.running_clock] + truth.corunner_w[k] + leakage_w + active_w)
        self.log.power_w[k], self.log.junction_c[k] = power_w, self._junction_c
        return power_w

    def _warm(self, k: int, power_w: float) -> None:
        truth = self._truth
        flow_w = (self._junction_c - self._sink_c) / truth.junction_sink
        self._junction_c += STEP_S * (power_w - flow_w) / truth.junction_j_per_c
        to_air_w = (self._sink_c - truth.ambient_c[k]) / truth.sink_air[k]
        self._sink_c += STEP_S * (flow_w - to_air_w) / truth.sink_j_per_c

    def _charge(self, k: int, power_w: float) -> None:
        assert self._capacity_j is not None
        self._store_j = min(self._capacity_j, self._store_j + (self._truth.sun_w[k] - power_w) * STEP_S)
        if self._store_j <= 0.0:
            self._store_j = 0.0
            if self.off_until_s <= k * STEP_S:
                self.log.counts.brownouts += 1
            self.off_until_s = k * STEP_S + 30.0

    def _protect(self, k: int) -> None:
        if self._junction_c >= SHUTDOWN_C:
            self.log.counts.shutdowns += 1
            self.off_until_s = k * STEP_S + 60.0
        if not self.throttled and self._junction_c >= THROTTLE_C:
            self.throttled = True
            self.log.counts.throttles += 1
        elif self.throttled and self._junction_c < THROTTLE_OFF_C:
            self.throttled = False
        self.log.throttled[k] = self.throttled
        self.running_clock = 0 if self.throttled else self.clock

    def _reading(self, k: int) -> Reading:
        truth, sensor = self._truth, self._truth.sensor
        power_w = temperature_c = charge = None
        if not truth.silent[k]:
            raw_w = self._smoothed_w[k - self._lag] * truth.sensor_gain
            raw_w *= 1.0 + sensor["noise"] * truth.power_noise[k]
            power_w = round(raw_w / sensor["lsb"]) * sensor["lsb"]
            if k % 10 == 0:
                temperature_c = round((self._junction_c + truth.temperature_noise[k]) * 2) / 2
        if self._capacity_j is not None:
            charge = round(self._store_j / self._capacity_j * CHARGE_STEPS) / CHARGE_STEPS
        sun_w = float(truth.sun_w[k]) if truth.battery else 0.0
        still = float(truth.still[k]) if truth.gated else None
        return Reading((k + 1) * STEP_S, power_w, temperature_c, charge, sun_w, still)
