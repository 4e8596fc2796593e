"""The governor hears of the sensors at even intervals: each sample once, and silence as silence."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from edged.clock import NS_PER_S
from edged.governor.messages import Battery, EnergyUse, Sensed
from edged.loop.gpu_clock import GpuClock
from edged.loop.sensor_feed import SensorFeed
from edged.power.provider import BatteryReading, Sample

S = NS_PER_S


class Sensor:
    """In the place of a Sampler."""

    interval_s = 1.0

    def __init__(self) -> None:
        self.sample = Sample("test", 0)

    def latest(self, now_ns: int) -> Sample:
        return self.sample


class Heard:
    """In the places of Steering and Budgets."""

    def __init__(self) -> None:
        self.gpu_clock = GpuClock([300.0, 600.0, 900.0])
        self.said: list[tuple[float, Sensed]] = []
        self.samples: list[Sample] = []

    def observe(self, said: Sensed, now_ns: int) -> None:
        self.said.append((now_ns / S, said))

    def sensed(self, sample: Sample, now_ns: int) -> None:
        self.samples.append(sample)

    def energy_use(self, now_ns: int) -> EnergyUse | None:
        return EnergyUse(100.0 * len(self.samples), 60.0)


def passed(seconds: float, samples: dict[float, Any]) -> Heard:
    """`samples`: when the sampler got what, watts or None for a sensor without an answer."""
    sensor, heard = Sensor(), Heard()
    senses = SensorFeed(sensor, heard, heard, 0)  # type: ignore[arg-type]
    for hundredths in range(round(seconds * 100)):
        now_ns = hundredths * S // 100
        for at_s, watts in samples.items():
            if abs(at_s * 100 - hundredths) < 0.5:
                sensor.sample = Sample("test", now_ns, watts, power_estimated=True, temperature_c=50.0)
        if now_ns >= senses.due_ns:
            senses.look(now_ns)
    return heard


@pytest.mark.parametrize(
    ("power_w", "estimated", "discharge_w", "harvest_w"),
    [
        (8.0, False, 8.0, 0.0),  # all from the battery
        (8.0, False, 3.0, 5.0),
        (8.0, False, -4.0, 12.0),  # it charges: the panel supplies the device too
        (8.0, False, 9.5, 0.0),  # what the battery's own electronics take is no harvest
        (8.0, True, 3.0, None),
        (None, False, 3.0, None),
        (8.0, False, None, None),
    ],
)
def test_a_battery_is_fed_to_the_governor_with_what_is_harvested(
    power_w: float | None, estimated: bool, discharge_w: float | None, harvest_w: float | None
) -> None:
    sensor, heard = Sensor(), Heard()
    feed = SensorFeed(sensor, heard, heard, 0)  # type: ignore[arg-type]
    battery = BatteryReading(7200.0, 18000.0, discharge_w)
    sensor.sample = Sample(
        "test", S, power_w, power_estimated=estimated, battery=battery, power_lag_s=0.1, power_mean_s=0.5
    )
    feed.look(S)
    ((_, said),) = heard.said
    assert said.battery == Battery(7200.0, 18000.0, harvest_w)
    assert (said.power_lag_s, said.power_mean_s) == (0.1, 0.5)


def test_each_sample_is_reported_once_and_soon() -> None:
    heard = passed(10, {n + 0.3: 5.0 + n for n in range(10)})
    told = [(at, said.power_w) for at, said in heard.said if said.power_w is not None]
    assert [watts for _, watts in told] == [5.0 + n for n in range(10)]
    assert all(at - (n + 0.3) <= 0.13 for n, (at, _) in enumerate(told))
    assert all(said.power_estimated and said.temperature_c == 50.0 for _, said in heard.said if said.power_w)


def test_silence_is_reported_at_even_intervals() -> None:
    heard = passed(10, {0.5: 7.0})
    quiet = [at for at, said in heard.said if said.power_w is None and said.temperature_c is None]
    assert len(quiet) >= 5
    gaps = [b - a for a, b in pairwise(quiet)]
    assert all(gap == pytest.approx(1.6, abs=0.11) for gap in gaps)


def test_a_sensor_without_an_answer_is_reported_as_unknown() -> None:
    heard = passed(4, {n + 0.3: None for n in range(4)})
    assert [said.power_w for _, said in heard.said] == [None] * len(heard.said) and len(heard.said) >= 4


def test_throttling_and_the_clock_of_the_ceiling_are_reported() -> None:
    sensor, heard = Sensor(), Heard()
    senses = SensorFeed(sensor, heard, heard, 0)  # type: ignore[arg-type]
    for n, (throttled, ceiling_mhz) in enumerate([(None, None), (False, 612.0), (True, 250.0), (True, 905.0)], 1):
        sensor.sample = Sample("test", n * S, throttled=throttled, gpu_ceiling_mhz=ceiling_mhz)
        senses.look(n * S)
    told = [(said.throttled, said.clock) for _, said in heard.said]
    assert told == [(False, None), (False, 1), (True, None), (True, 2)]


def test_the_energy_used_is_that_of_the_same_sample() -> None:
    heard = passed(4, {n + 0.3: 5.0 for n in range(4)})
    used = [said.energy.spent_j for _, said in heard.said if said.energy is not None and said.power_w is not None]
    assert used == [100.0 * n for n in range(1, 5)], "the monitor had each sample before the governor did"
