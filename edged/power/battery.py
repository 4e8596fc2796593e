"""The batteries that supply this machine, by the kernel's power_supply class: charge, capacity and draw, or why not.

Files under a root in, one `BatteryReading` of all batteries together out. Fuel gauges, chargers and UPS boards whose
driver registers a battery are read alike. Batteries of peripherals (scope "Device") are not this machine's. Formulas
and units: the kernel's Documentation/power/power_supply_class.rst (micro-units; sign of a current by `status`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edged.power.provider import BatteryReading
from edged.power.sysfs_reader import SysfsReader

J_PER_UWH: Final = 3600 / 1e6
MOST_OVERFULL: Final = 1.1
"""A gauge that has not learnt its battery yet may read a little above full."""
SIGNS: Final = {"Discharging": 1, "Charging": -1, "Full": 0, "Not charging": 0}


def read_battery(files: SysfsReader, missing: list[str]) -> BatteryReading | None:
    """None where there is no battery, and, with the reason in `missing`, where one does not report its charge or
    capacity."""
    charge_j = capacity_j = 0.0
    discharge_w: float | None = 0.0
    found = False
    for supply in files.entries(files.path("sys/class/power_supply"), "*"):
        if files.label(supply / "type") != "Battery" or files.label(supply / "scope") == "Device":
            continue
        if files.optional(supply / "present") == 0:
            continue
        energy = _energy_j(files, supply)
        if isinstance(energy, str):
            missing.append(f"battery {supply.name}: {energy}")
            return None
        found = True
        charge_j, capacity_j = charge_j + energy[0], capacity_j + energy[1]
        watts = _discharge_w(files, supply)
        if watts is None:
            missing.append(f"battery {supply.name} does not report the power drawn from it")
        discharge_w = None if watts is None or discharge_w is None else discharge_w + watts
    return BatteryReading(charge_j, capacity_j, discharge_w) if found else None


def _energy_j(files: SysfsReader, supply: Path) -> tuple[float, float] | str:
    """Charge and capacity, or why they are not known."""
    full = _first(files, supply, "energy_full", "energy_full_design")
    now = files.optional(supply / "energy_now")
    unit_j = J_PER_UWH
    if full is None:
        full = _first(files, supply, "charge_full", "charge_full_design")
        now = files.optional(supply / "charge_now")
        uv = _first(files, supply, "voltage_min_design", "voltage_now")
        if full is not None and (uv is None or uv <= 0):
            return "it counts its charge in Ah and does not report its voltage"
        unit_j = J_PER_UWH * (uv or 0) / 1e6
    if full is None or full <= 0:
        return "it does not report its capacity"
    if now is None:
        percent = files.optional(supply / "capacity")
        if percent is None or not 0 <= percent <= 100:
            return "it does not report its charge"
        now = full * percent // 100
    if not 0 <= now <= MOST_OVERFULL * full:
        return f"its charge reads {now} of {full}, which no working gauge does"
    return min(now, full) * unit_j, full * unit_j


def _discharge_w(files: SysfsReader, supply: Path) -> float | None:
    """Watts drawn from it, below 0 while it charges."""
    sign = SIGNS.get(files.label(supply / "status") or "")
    if sign == 0:
        return 0.0
    uw = files.optional(supply / "power_now")
    if uw is None:
        ua, uv = files.optional(supply / "current_now"), files.optional(supply / "voltage_now")
        uw = None if ua is None or uv is None or uv <= 0 else round(ua * uv / 1e6)
    if uw is None or sign is None:
        return None
    return sign * abs(uw) / 1e6  # drivers differ in the sign, and agree in the status


def _first(files: SysfsReader, supply: Path, *names: str) -> int | None:
    return next((value for name in names if (value := files.optional(supply / name)) is not None), None)
