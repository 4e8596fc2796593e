"""Power rails of NVIDIA's modules: which there are, and which of them add up to the total. A table, and how to read it.

Rails come from INA3221 and INA238 monitors through hwmon, found by their names: the numbers of hwmon directories differ
from boot to boot. Files in, watts by rail out; unknown is None. A module that is not in the table has no total.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edged.power.sysfs_reader import SysfsReader
from edged.power.temperatures import unique


@dataclass(frozen=True)
class Module:
    """`board`: of the device tree's `nvidia,BOARD-SKU`; `skus` empty: all. The total is the sum of `total`; `parts`
    says that this sum is of what is measured, and that more is drawn that is not. `most_w`: what it cannot draw, well
    above its highest power mode with all that its input supplies."""

    name: str
    board: str
    skus: tuple[str, ...]
    rails: tuple[str, ...]
    total: tuple[str, ...]
    most_w: float
    parts: bool = False


_ORIN_SMALL: Final = ("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC")
_ORIN_AGX: Final = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO")
MODULES: Final = (
    Module("Jetson Orin NX", "p3767", ("0000", "0001", "0002"), _ORIN_SMALL, total=("VDD_IN",), most_w=80),
    Module("Jetson Orin Nano", "p3767", ("0003", "0004", "0005"), _ORIN_SMALL, total=("VDD_IN",), most_w=60),
    Module("Jetson AGX Orin", "p3701", (), _ORIN_AGX, total=_ORIN_AGX, most_w=150, parts=True),
    Module(
        "Jetson AGX Thor", "p3834", (), ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0", "VIN"), total=("VIN",), most_w=300
    ),
)
COMPATIBLE: Final = "proc/device-tree/compatible"
NOT_CONNECTED: Final = "NC"
LEAST_TOTAL_W: Final = 0.2
"""A module that runs Linux draws more; less is a dead monitor."""
FULL_SCALE_UV: Final = 163_800
"""Of the shunt's voltage, where the registers of INA3221 (13 bits of 40 uV) and INA238 (16 bits of 5 uV) end."""
FULL_SCALE_SHARE: Final = 0.999
"""Currents are rounded to whole steps."""
MOST_MV: Final = 100_000
FULL_SCALE_MV: Final = {"ina3221": 32_760, "ina238": 85_000}
"""Of the rail's voltage."""
PLAUSIBLE_W: Final = (-5.0, 1000.0)
"""A rail at rest may read a little below zero: the monitor's offset."""


def is_jetson(files: SysfsReader) -> bool:
    return any(word.startswith("nvidia,tegra") for word in compatible(files))


def find_module(files: SysfsReader) -> Module | None:
    """The module as the device tree names it; None if the table does not have it."""
    for word in compatible(files):
        named = re.fullmatch(r"nvidia,(p\d{4})-(\d{4})", word)
        for module in MODULES if named else ():
            if named and named[1] == module.board and (not module.skus or named[2] in module.skus):
                return module
    return None


def module_named(files: SysfsReader) -> str:
    """The device tree's name of the board, for a person."""
    return next(iter(compatible(files)), "a board without a device tree")


def read_rails(files: SysfsReader, missing: list[str]) -> dict[str, float | None]:
    """Watts of every rail that a monitor measures, by its label."""
    rails: dict[str, float | None] = {}
    for chip in files.entries(files.path("sys/class/hwmon"), "hwmon*"):
        for channel, label in _channels(files, chip):
            name = unique(label, rails)
            rails[name] = plausible_w(name, _power_w(files, chip, channel, name, missing), missing)
    return rails


def total_w(module: Module | None, rails: Mapping[str, float | None], missing: list[str]) -> tuple[float | None, bool]:
    """The device's watts, and whether that is an estimate; a sum with a part unknown is unknown."""
    if module is None:
        return None, False  # the caller that looked for the module reports it
    unknown = [name for name in module.total if rails.get(name) is None]
    if unknown:
        missing.append(f"no total power: {module.name} has it on {' + '.join(module.total)}; {unknown[0]} is unknown")
        return None, False
    watts = sum(value for name in module.total if (value := rails[name]) is not None)
    if watts < LEAST_TOTAL_W:
        missing.append(f"no total power: {' + '.join(module.total)} reads {watts:.2f} W, a running device draws more")
        return None, False
    if watts > module.most_w:
        missing.append(
            f"no total power: {' + '.join(module.total)} reads {watts:.0f} W, more than {module.name} can draw"
        )
        return None, False
    if module.parts:
        missing.append(f"the power is the sum of {module.name}'s rails; what it draws beside them is not measured")
    return watts, module.parts


def _channels(files: SysfsReader, chip: Path) -> Iterator[tuple[str, str]]:
    """The channels of a monitor that are wired: number and label."""
    kind = files.label(chip / "name")
    if kind == "ina238":  # has one channel and no label: Thor's carrier board has it on its input
        yield "1", "VIN"
    if kind != "ina3221":
        return
    for entry in files.entries(chip, "in*_label"):
        channel, label = entry.name.removeprefix("in").removesuffix("_label"), files.label(entry)
        if channel not in ("1", "2", "3"):  # the driver offers the sum of its shunt voltages as a seventh
            continue
        if label not in (None, NOT_CONNECTED) and files.optional(chip / f"in{channel}_enable") != 0:
            yield channel, str(label)


def _power_w(files: SysfsReader, chip: Path, channel: str, rail: str, missing: list[str]) -> float | None:
    microwatts = files.optional(chip / f"power{channel}_input")  # INA238 multiplies by itself
    needed = missing if microwatts is None else []
    mv = files.integer(chip / f"in{channel}_input", needed)
    ma = files.integer(chip / f"curr{channel}_input", needed) if mv is not None or microwatts is not None else None
    if (why := _implausible(files, chip, channel, mv, ma)) is not None:
        missing.append(f"no power of rail {rail}: {why}")
        return None
    if microwatts is not None:
        return microwatts / 1e6
    return None if mv is None or ma is None else mv * ma / 1e6


def _implausible(files: SysfsReader, chip: Path, channel: str, mv: int | None, ma: int | None) -> str | None:
    """Why these millivolts and milliamperes are no measurement."""
    if mv is not None and mv <= 0:
        return f"its voltage reads {mv / 1000:g} V, which no rail in use has: the monitor is off or dead"
    if mv is not None and mv >= FULL_SCALE_MV.get(files.label(chip / "name") or "", MOST_MV):
        return f"its voltage reads {mv / 1000:g} V, the end of the monitor's range: it may be more"
    shunt_uohm = files.optional(chip / f"shunt{channel}_resistor") or files.optional(chip / "shunt_resistor")
    if ma is None or shunt_uohm is None or shunt_uohm <= 0:
        return None
    if abs(ma) >= FULL_SCALE_SHARE * FULL_SCALE_UV * 1000 / shunt_uohm:
        return f"its current reads {ma / 1000:g} A, the end of the monitor's range: it may be more"
    return None


def plausible_w(rail: str, watts: float | None, missing: list[str]) -> float | None:
    """None, with the reason in `missing`, for what no monitor can measure."""
    low, high = PLAUSIBLE_W
    if watts is None or low <= watts <= high:
        return watts
    missing.append(f"rail {rail} reads {watts:g} W, which no working monitor does")
    return None


def compatible(files: SysfsReader) -> list[str]:
    """The device tree's names of the board, the most specific first; empty without a device tree."""
    try:
        words = files.read(files.path(COMPATIBLE)).strip("\n").split("\0")
    except OSError:
        return []
    return [word for word in words if word and word.isprintable()]
