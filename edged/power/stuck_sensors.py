"""Sensors that keep one value whatever the load: their readings become unknown, with the reason. Pure state.

A sensor that is dead or whose driver hangs often repeats its last value. Whether it does is judged by the load: while
power or use changes for minutes, a working sensor on the chip cannot read the very same number. One thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from edged.clock import NS_PER_S
from edged.power.battery import MOST_OVERFULL
from edged.power.provider import BatteryReading
from edged.power.temperatures import ON_CHIP

STUCK_S: Final = 180.0
"""A chip's temperature follows its power within seconds."""
STUCK_ELSEWHERE_S: Final = 3600.0
"""Disks, boards and radios are far from the load, and their sensors are coarse."""
SMOOTH_S: Final = 10.0
"""Shorter changes of the load are left out: they hardly change a temperature."""
LOAD_CHANGE_W: Final = 1.0
LOAD_CHANGE_SHARE: Final = 0.2
LOAD_CHANGE_PERCENT: Final = 30.0
UNSEEN_SHARE: Final = 0.05
"""Of a battery's capacity; the coarsest gauges count in hundredths. What one reads above full comes to it."""
LONGEST_S: Final = 60.0
"""After a longer pause it is not known what was drawn."""


@dataclass(frozen=True)
class Load:
    """What the device does; unknown is None. `busy_percent`: use of the CPU or the GPU, whichever is higher."""

    power_w: float | None
    busy_percent: float | None


def busy_percent(*percents: float | None) -> float | None:
    return max((percent for percent in percents if percent is not None), default=None)


class _Smoothed:
    """A value through a low-pass filter of SMOOTH_S; unknown values leave it as it was."""

    def __init__(self) -> None:
        self.value: float | None = None
        self._at_ns = 0

    def add(self, value: float | None, now_ns: int) -> None:
        if value is None:
            return
        seconds, self._at_ns = max(0, now_ns - self._at_ns) / NS_PER_S, now_ns
        before = self.value
        self.value = value if before is None else before + (1 - math.exp(-seconds / SMOOTH_S)) * (value - before)


@dataclass
class _Range:
    low: float = math.inf
    high: float = -math.inf

    def add(self, value: float | None) -> None:
        if value is not None:
            self.low, self.high = min(self.low, value), max(self.high, value)


class _Unchanged:
    """One sensor since its value last changed, and how far the load went meanwhile."""

    def __init__(self, value: float, now_ns: int) -> None:
        self.value, self.since_ns = value, now_ns
        self.power_w, self.busy = _Range(), _Range()

    @property
    def load_changed(self) -> bool:
        watts = self.power_w.high - self.power_w.low
        return (
            watts >= max(LOAD_CHANGE_W, LOAD_CHANGE_SHARE * self.power_w.high)
            or self.busy.high - self.busy.low >= LOAD_CHANGE_PERCENT
        )


class StuckSensors:
    """`limit_s`: how long a sensor of that name may keep its value under a changing load."""

    def __init__(self, unit: str, limit_s: Callable[[str], float]) -> None:
        self._unit = unit
        self._limit_s = limit_s
        self._power_w, self._busy = _Smoothed(), _Smoothed()
        self._sensors: dict[str, _Unchanged] = {}

    def check(
        self, readings: Mapping[str, float | None], judged: Iterable[str], load: Load, now_ns: int, missing: list[str]
    ) -> dict[str, float | None]:
        """The readings, those of stuck sensors among `judged` as None."""
        self._power_w.add(load.power_w, now_ns)
        self._busy.add(load.busy_percent, now_ns)
        checked = dict(readings)
        for name in judged:
            value = readings.get(name)
            if value is None:
                self._sensors.pop(name, None)
                continue
            sensor = self._sensors.get(name)
            if sensor is None or sensor.value != value:
                sensor = self._sensors[name] = _Unchanged(value, now_ns)
            sensor.power_w.add(self._power_w.value)
            sensor.busy.add(self._busy.value)
            unchanged_s = (now_ns - sensor.since_ns) / NS_PER_S
            if unchanged_s >= self._limit_s(name) and sensor.load_changed:
                checked[name] = None
                read = f"{name} has read {value:g} {self._unit} for {unchanged_s / 60:.0f} minutes"
                missing.append(f"{read} while the load changed: the sensor is stuck")
        return checked


class StuckBattery:
    """A gauge whose charge stays the same while more is drawn than any gauge fails to see."""

    def __init__(self) -> None:
        self._charge_j: float | None = None
        self._drawn_j = 0.0
        self._at_ns = 0

    def check(self, battery: BatteryReading | None, now_ns: int, missing: list[str]) -> BatteryReading | None:
        seconds, self._at_ns = min(LONGEST_S, max(0, now_ns - self._at_ns) / NS_PER_S), now_ns
        if battery is None or battery.charge_j != self._charge_j:
            self._charge_j, self._drawn_j = None if battery is None else battery.charge_j, 0.0
            return battery
        self._drawn_j += max(0.0, battery.discharge_w or 0.0) * seconds
        above_full = MOST_OVERFULL - 1.0 if battery.charge_j >= battery.capacity_j else 0.0
        if self._drawn_j < (UNSEEN_SHARE + above_full) * battery.capacity_j:
            return battery
        drawn_wh = self._drawn_j / 3600
        missing.append(f"the battery's charge has not changed while {drawn_wh:.1f} Wh were drawn: its gauge is stuck")
        return None


def stuck_temperatures() -> StuckSensors:
    return StuckSensors("C", lambda name: STUCK_S if ON_CHIP.search(name) else STUCK_ELSEWHERE_S)


def stuck_rails() -> StuckSensors:
    return StuckSensors("W", lambda name: STUCK_S)
