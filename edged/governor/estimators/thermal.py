"""How much power the temperature limit allows: sensed temperatures and powers in, watts for now out. Pure.

Two heat nodes and the air, as the profile has them (equation T1); a Kalman filter over the three temperatures. The
air's estimate absorbs the errors of the profile: a failed fan is hotter air. Allowed is the power that keeps the
junction below the limit at horizons from seconds to minutes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from edged.governor.messages import Device
from edged.governor.planner.options import Array

STEP_S: Final = 0.5
HORIZONS_S: Final = (4, 10, 20, 40, 80, 160)
SENSOR_VAR: Final = 0.15
DRIFT_PER_S: Final = (0.01, 0.001, 0.05)
"""Variance by which [junction, sink, air] deviate from the model; a fan that fails shows in the air."""
MARGIN_C: Final = 0.2
FIRST_SINK_C: Final = -4.0
FIRST_AIR_C: Final = 27.0


@dataclass(frozen=True)
class HeatModel:
    """One step: temperatures = `carry` @ temperatures + `per_w` * power. `free` and `gain`: the junction at each
    horizon as a row over the temperatures now, and per constant watt."""

    carry: Array
    per_w: Array
    free: Array
    gain: Array


@dataclass(frozen=True)
class Heat:
    """`mean`, `cov`: of [junction, sink, air]; None until a temperature was seen."""

    mean: Array | None
    cov: Array
    at_s: float

    @property
    def junction_c(self) -> float | None:
        return None if self.mean is None else float(self.mean[0])

    @property
    def error_c(self) -> float:
        return math.sqrt(max(0.0, float(self.cov[0, 0])))


def start() -> Heat:
    return Heat(None, np.diag([1.0, 25.0, 100.0]), 0.0)


def model(device: Device) -> HeatModel:
    cj, cs = device.junction_j_per_c, device.sink_j_per_c
    rjs, rsa = device.junction_sink_c_per_w, device.sink_air_c_per_w
    junction = [-1 / (cj * rjs), 1 / (cj * rjs), 0]
    sink = [1 / (cs * rjs), -1 / (cs * rjs) - 1 / (cs * rsa), 1 / (cs * rsa)]
    flow = np.array([junction, sink, [0, 0, 0]])
    carry, integral, fine_s = np.eye(3), np.zeros((3, 3)), STEP_S / 50
    for _ in range(50):
        integral = integral + carry * fine_s
        carry = carry @ (np.eye(3) + flow * fine_s)
    per_w = integral @ np.array([1 / cj, 0, 0])
    free, gain = [], []
    ahead, warmed = np.eye(3), np.zeros(3)
    for k in range(1, int(HORIZONS_S[-1] / STEP_S) + 1):
        warmed = carry @ warmed + per_w
        ahead = carry @ ahead
        if k * STEP_S in HORIZONS_S:
            free.append(ahead[0].copy())
            gain.append(float(warmed[0]))
    return HeatModel(carry, per_w, np.array(free), np.array(gain))


def sensed(heat: Heat, physics: HeatModel, power_w: float, temperature_c: float | None, now_s: float) -> Heat:
    """After `power_w` until now, and perhaps a reading of the junction."""
    if heat.mean is None:
        if temperature_c is None:
            return heat
        first = np.array([temperature_c, temperature_c + FIRST_SINK_C, FIRST_AIR_C])
        return replace(heat, mean=first, at_s=now_s)
    mean, cov, at_s = heat.mean, heat.cov, heat.at_s
    while at_s + STEP_S <= now_s:
        at_s += STEP_S
        mean = physics.carry @ mean + physics.per_w * power_w
        cov = physics.carry @ cov @ physics.carry.T + np.diag(DRIFT_PER_S) * STEP_S
    if temperature_c is not None:
        towards = cov[:, 0]
        gain = towards / (cov[0, 0] + SENSOR_VAR)
        mean = mean + gain * (temperature_c - mean[0])
        cov = cov - np.outer(gain, cov[0])
    return Heat(mean, cov, at_s)


def allowed_w(heat: Heat, physics: HeatModel, limit_c: float) -> float:
    """The greatest constant power that stays below the limit at every horizon; infinite while nothing is known."""
    if heat.mean is None:
        return math.inf
    target_c = limit_c - MARGIN_C - 0.5 * min(2.0, heat.error_c)
    return float(((target_c - physics.free @ heat.mean) / physics.gain).min())
