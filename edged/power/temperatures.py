"""Temperatures of any Linux: thermal zones and hwmon sensors by name, in degrees Celsius; unknown is None."""

from __future__ import annotations

import errno
import re
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Final

from edged.power.sysfs_reader import SysfsReader

NO_TEMPERATURES: Final = "no temperature: this machine has no thermal zones and no hwmon temperature sensors"
PLAUSIBLE_C: Final = (-40.0, 150.0)
"""Sensors report absence as values like -256 degrees."""
ON_CHIP: Final = re.compile(r"(cpu|gpu|soc|tj|cv\d|pkg|package|coretemp|k10temp|junction|tctl|tdie)", re.IGNORECASE)
NOUGHT_C: Final = 0.2
"""A chip that runs is warmer than its surroundings, and passes 0 C in moments if ever. A sensor that reads no more than
this is dead, or its driver gives degrees where it should give thousandths."""


def read_temperatures(files: SysfsReader, missing: list[str]) -> dict[str, float | None]:
    """Every sensor by name; one that is there but does not answer is None."""
    readings: dict[str, float | None] = {}
    asleep: list[str] = []
    for zone in files.entries(files.path("sys/class/thermal"), "thermal_zone*"):
        name = unique(files.label(zone / "type") or zone.name, readings)
        if _asleep(files, zone / "temp"):
            readings[name] = None
            asleep.append(name)
        else:
            readings[name] = _celsius(files, zone / "temp", name, missing)
    for chip in files.entries(files.path("sys/class/hwmon"), "hwmon*"):
        chip_name = files.label(chip / "name") or chip.name
        for sensor in files.entries(chip, "temp*_input"):
            label = files.label(sensor.with_name(sensor.name.replace("_input", "_label")))
            name = f"{chip_name}/{label or sensor.name.removesuffix('_input')}"
            readings[unique(name, readings)] = _celsius(files, sensor, name, missing)
    if asleep:
        missing.append(f"no temperature while their part of the chip is powered off: {', '.join(asleep)}")
    if not readings:
        missing.append(NO_TEMPERATURES)
    return readings


def hottest(readings: Mapping[str, float | None]) -> float | None:
    return max((celsius for celsius in readings.values() if celsius is not None), default=None)


def unique(name: str, taken: Container[str]) -> str:
    """Sensors may share a name; each keeps its own line."""
    if name not in taken:
        return name
    n = 2
    while f"{name}#{n}" in taken:
        n += 1
    return f"{name}#{n}"


def _asleep(files: SysfsReader, path: Path) -> bool:
    """A zone of a unit that is powered off answers "try again", which is normal for a GPU at rest."""
    try:
        return not files.read(path).strip()
    except OSError as error:
        return error.errno == errno.EAGAIN


def plausible_c(what: str, celsius: float | None, name: str, missing: list[str]) -> float | None:
    """None, with the reason in `missing`, for what no sensor of that name can measure. `what`: how to name it."""
    low, high = PLAUSIBLE_C
    nought = celsius is not None and abs(celsius) < NOUGHT_C and ON_CHIP.search(name) is not None
    if celsius is None or (low <= celsius <= high and not nought):
        return celsius
    missing.append(f"{what} reads {celsius:g} C, which no working sensor {'of a chip ' if nought else ''}does")
    return None


def _celsius(files: SysfsReader, path: Path, name: str, missing: list[str]) -> float | None:
    milli = files.integer(path, missing)
    return None if milli is None else plausible_c(files.shown(path), milli / 1000, name, missing)
