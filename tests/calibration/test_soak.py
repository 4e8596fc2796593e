"""Thermal constants: those of a device of known constants are found again from what its sensors would read."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from edged import clock
from edged.engines.device_profile import Thermal
from edged.power.provider import Sample
from edged_calibration.profile.power_meter import PowerMeter
from edged_calibration.profile.soak import LOAD_SHARE, Point, fit_heat, soak

ORIN = Thermal(10.0, 90.0, 1.2, 4.5, 0.02)


def history(
    truth: Thermal, seconds: int, idle_w: float = 4.0, active_w: float = 8.0, noise_c: float = 0.1, step_c: float = 0.0
) -> list[Point]:
    """Readings once a second: idle in equilibrium before, loaded, then idle; power and heat as the model has them."""
    random = np.random.default_rng(3)
    rest_w = idle_w
    sink = 25 + truth.sink_air_c_per_w * rest_w
    junction = sink + truth.junction_sink_c_per_w * rest_w
    points = []
    for second in range(seconds):
        loaded = second < LOAD_SHARE * seconds
        energy_j = 0.0
        for _ in range(20):
            watts = idle_w + loaded * active_w + truth.leakage_w_per_c * (junction - 40)
            flow = (junction - sink) / truth.junction_sink_c_per_w
            junction += 0.05 * (watts - flow) / truth.junction_j_per_c
            sink += 0.05 * (flow - (sink - 25) / truth.sink_air_c_per_w) / truth.sink_j_per_c
            energy_j += 0.05 * watts
        read = junction + random.normal(0, noise_c)
        points.append(Point(second + 1.0, energy_j, round(read / step_c) * step_c if step_c else read, loaded))
    return points


@pytest.mark.parametrize(
    "truth",
    [ORIN, Thermal(20.0, 300.0, 0.6, 2.0, 0.0), Thermal(6.0, 45.0, 2.0, 6.0, 0.03)],
    ids=["small", "large", "hot"],
)
@pytest.mark.parametrize("step_c", [0.0, 0.5])
def test_the_constants_of_a_device_are_found_again(truth: Thermal, step_c: float) -> None:
    found, problem = fit_heat(history(truth, 3600, step_c=step_c))
    assert found is not None and not problem
    total = truth.junction_sink_c_per_w + truth.sink_air_c_per_w
    assert found.junction_sink_c_per_w + found.sink_air_c_per_w == pytest.approx(total, rel=0.02)
    assert found.junction_sink_c_per_w == pytest.approx(truth.junction_sink_c_per_w, rel=0.05)
    assert found.sink_j_per_c == pytest.approx(truth.sink_j_per_c, rel=0.05)
    assert found.junction_j_per_c == pytest.approx(truth.junction_j_per_c, rel=0.1)
    assert found.leakage_w_per_c == pytest.approx(truth.leakage_w_per_c, abs=0.004)


def unmetered(points: list[Point]) -> list[Point]:
    return [point._replace(power_w=None) for point in points]


def unrelated(points: list[Point]) -> list[Point]:
    return [point._replace(temperature_c=60 + 10 * (-1) ** (index // 100)) for index, point in enumerate(points)]


@pytest.mark.parametrize(
    ("points", "why"),
    [
        (history(ORIN, 120), "had not settled: a longer soak"),
        (history(ORIN, 40), "40 readings of power and temperature, 60 are needed"),
        (unmetered(history(ORIN, 1200)), "0 readings of power"),
        (history(ORIN, 1200, active_w=0.05), "the temperature changed by"),
        (unrelated(history(ORIN, 1200)), "two heat nodes are off by|does not follow the power"),
    ],
    ids=["too short", "hardly any", "no meter", "no heat", "another's heat"],
)
def test_what_a_soak_does_not_determine_has_a_reason(points: list[Point], why: str) -> None:
    found, problem = fit_heat(points)
    assert found is None
    assert re.search(why, problem), problem


class Device:
    name = "scripted"

    def read(self) -> Sample:
        return Sample(self.name, clock.mono_ns(), power_w=6.0, temperature_c=50.0)

    def close(self) -> None:
        pass


def test_a_soak_loads_and_then_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns, worked = [0], []

    def work() -> None:
        now_ns[0] += clock.NS_PER_S // 20
        worked.append(now_ns[0])

    def sleep(seconds: float) -> None:
        now_ns[0] += int(seconds * clock.NS_PER_S)

    monkeypatch.setattr(clock, "mono_ns", lambda: now_ns[0])
    monkeypatch.setattr(clock, "sleep_s", sleep)
    reported: list[Any] = []
    points = soak(work, PowerMeter(Device()), 100.0, lambda done, total: reported.append((done, total)))
    assert len(points) == 100 and sum(point.loaded for point in points) == 60
    assert all(point.power_w == pytest.approx(6.0) and point.temperature_c == 50.0 for point in points)
    assert worked[-1] <= 60 * clock.NS_PER_S and reported[-1] == (100, 100)
