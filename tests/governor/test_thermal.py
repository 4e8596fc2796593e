"""The heat model and what it allows: the limit is approached from below and not passed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edged.governor.estimators import thermal
from edged.governor.messages import Device

DEVICE = Device((5.0,))
PHYSICS = thermal.model(DEVICE)
AIR_C = 30.0


class Plant:
    """The same two nodes, integrated finely."""

    def __init__(self, air_c: float = AIR_C, junction_c: float = 40.0, resistance: float = 1.0) -> None:
        self.junction_c, self.sink_c, self.air_c = junction_c, junction_c - 4.0, air_c
        self.resistance = DEVICE.sink_air_c_per_w * resistance

    def run(self, watts: float, seconds: float) -> None:
        for _ in range(int(seconds / 0.02)):
            flow_w = (self.junction_c - self.sink_c) / DEVICE.junction_sink_c_per_w
            out_w = (self.sink_c - self.air_c) / self.resistance
            self.junction_c += 0.02 * (watts - flow_w) / DEVICE.junction_j_per_c
            self.sink_c += 0.02 * (flow_w - out_w) / DEVICE.sink_j_per_c


def held(plant: Plant, limit_c: float, seconds: int) -> tuple[float, thermal.Heat]:
    """The hottest of a plant that draws all that is allowed."""
    heat, hottest_c, watts = thermal.start(), 0.0, 8.0
    for step in range(seconds * 2):
        now_s = step / 2
        plant.run(watts, 0.5)
        heat = thermal.sensed(heat, PHYSICS, watts, plant.junction_c if step % 2 else None, now_s)
        watts = min(40.0, max(0.0, thermal.allowed_w(heat, PHYSICS, limit_c)))
        hottest_c = max(hottest_c, plant.junction_c)
    return hottest_c, heat


def test_the_horizons_say_what_constant_power_leads_to() -> None:
    for horizon_s, free, gain in zip(thermal.HORIZONS_S, PHYSICS.free, PHYSICS.gain, strict=True):
        plant = Plant(AIR_C, 40.0)
        plant.run(8.0, horizon_s)
        assert float(free @ np.array([40.0, 36.0, AIR_C]) + gain * 8.0) == pytest.approx(plant.junction_c, abs=0.3)
    assert list(PHYSICS.gain) == sorted(PHYSICS.gain)


@pytest.mark.parametrize("air_c", [20.0, 35.0, 45.0])
@pytest.mark.parametrize("resistance", [0.8, 1.0, 1.4])
def test_the_limit_is_approached_and_not_passed(air_c: float, resistance: float) -> None:
    plant = Plant(air_c, 60.0, resistance)
    hottest_c, heat = held(plant, 80.0, 900)
    assert hottest_c <= 80.5
    assert plant.junction_c >= 77.5
    assert heat.error_c < 1.0


def test_a_failing_fan_looks_like_hotter_air() -> None:
    plant = Plant(30.0, 60.0)
    _, before = held(plant, 80.0, 600)
    plant.resistance *= 1.3
    hottest_c, heat = held(plant, 80.0, 600)
    assert hottest_c <= 81.0
    assert before.mean is not None and heat.mean is not None and heat.mean[2] > before.mean[2] + 3


def test_nothing_is_known_before_a_reading_and_silence_grows_the_doubt() -> None:
    heat = thermal.start()
    assert heat.junction_c is None and math.isinf(thermal.allowed_w(heat, PHYSICS, 80.0))
    heat = thermal.sensed(heat, PHYSICS, 8.0, 50.0, 0.0)
    silent = thermal.sensed(heat, PHYSICS, 8.0, None, 60.0)
    assert silent.error_c > heat.error_c
    assert thermal.allowed_w(silent, PHYSICS, 80.0) < math.inf


def test_a_fan_that_is_well_again_is_believed_within_minutes() -> None:
    plant = Plant(30.0, 60.0, 1.4)
    heat, watts = thermal.start(), 5.0
    for step in range(1800):
        if step == 1200:
            plant.resistance /= 1.4
        plant.run(watts, 0.5)
        heat = thermal.sensed(heat, PHYSICS, watts, plant.junction_c if step % 2 else None, step / 2)
        watts = min(40.0, max(0.0, thermal.allowed_w(heat, PHYSICS, 80.0)))
    steady_w = (80.0 - 30.0) / (DEVICE.junction_sink_c_per_w + DEVICE.sink_air_c_per_w)
    assert watts > 0.97 * steady_w
