"""Any Linux machine: files under /proc and /sys in, a `Sample` out.

CPU use, CPU pressure and memory exist everywhere; temperatures where hwmon or thermal zones exist; power where the
processor counts its energy (RAPL). Runs on the sampler's thread. What cannot be read is None with a sentence, never 0.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from edged import clock
from edged.power.battery import read_battery
from edged.power.cpu_memory import CpuMemory
from edged.power.provider import Sample, counter_mean_s
from edged.power.rails import PLAUSIBLE_W, plausible_w
from edged.power.stuck_sensors import Load, StuckBattery, stuck_temperatures
from edged.power.sysfs_reader import SysfsReader
from edged.power.temperatures import hottest, read_temperatures, unique

NO_POWER: Final = "no power: this machine has no power meter that edged knows (no RAPL in /sys/class/powercap)"
RAPL_GAP_S: Final = 600.0
"""After a longer pause the counter may have wrapped more than once: no power from it."""
RAPL_ZONE: Final = re.compile(r"intel-rapl:\d+(:\d+)?")
"""Packages, the platform, and their parts; `intel-rapl-mmio` counts the same package again."""


class HostProvider:
    """Reads the tree under `root`; keeps the counters of the last read, from which rates come."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._files = SysfsReader(root)
        self._load = CpuMemory(self._files)
        self._stuck = stuck_temperatures()
        self._stuck_battery = StuckBattery()
        self._interval_s = 0.0
        self._energy: dict[str, tuple[int, int]] = {}  # rail -> (microjoules, when)

    @property
    def name(self) -> str:
        return "host"

    def close(self) -> None:
        self._files.close()

    def read(self) -> Sample:
        missing: list[str] = []
        load = self._load.read(missing)
        temperatures = read_temperatures(self._files, missing)
        rails = self._rails(missing)
        power, estimated = _total(rails, missing)
        now_ns = clock.mono_ns()
        temperatures = self._stuck.check(temperatures, temperatures, Load(power, load.cpu_percent), now_ns, missing)
        return Sample(
            provider=self.name,
            mono_ns=now_ns,
            power_w=power,
            power_estimated=estimated,
            power_lag_s=0.0,
            power_mean_s=counter_mean_s(self._interval_s),
            rails_w=rails,
            temperature_c=hottest(temperatures),
            temperatures_c=temperatures,
            cpu_percent=load.cpu_percent,
            memory_available_mb=load.memory_available_mb,
            cpu_pressure_percent=load.cpu_pressure_percent,
            battery=self._stuck_battery.check(read_battery(self._files, missing), now_ns, missing),
            missing=tuple(missing),
        )

    def _rails(self, missing: list[str]) -> dict[str, float | None]:
        """Mean watts of every RAPL zone since the last read: "package-0", "package-0/core", "psys"."""
        zones = self._files.entries(self._files.path("sys/class/powercap"), "intel-rapl:*")
        rails: dict[str, float | None] = {}
        names: dict[str, str] = {}
        for zone in zones:  # sorted: a package comes before its parts
            if not RAPL_ZONE.fullmatch(zone.name):
                continue
            own = self._files.label(zone / "name") or zone.name
            parent = names.get(zone.name.rpartition(":")[0])
            names[zone.name] = unique(f"{parent}/{own}" if parent else own, rails)
            rails[names[zone.name]] = self._zone_w(zone, names[zone.name], missing)
        if not rails:
            missing.append(NO_POWER)
        return rails

    def _zone_w(self, zone: Path, rail: str, missing: list[str]) -> float | None:
        now_uj = self._files.integer(zone / "energy_uj", missing)
        before = self._energy.pop(rail, None)
        if now_uj is None:
            return None
        now_ns = clock.mono_ns()
        self._energy[rail] = (now_uj, now_ns)
        self._interval_s = 0.0 if before is None else max(0.0, (now_ns - before[1]) / clock.NS_PER_S)
        if before is None:
            missing.append(f"power of {rail} needs two readings; this is the first")
            return None
        used_uj, gap_s = now_uj - before[0], (now_ns - before[1]) / clock.NS_PER_S
        if gap_s > RAPL_GAP_S or gap_s <= 0:
            missing.append(f"power of {rail}: {gap_s:.0f} s since the last reading, the counter may have wrapped")
            return None
        if used_uj < 0:  # the counter starts again from 0 after its range
            span_uj = self._files.integer(zone / "max_energy_range_uj", missing)
            if span_uj is None or not 0 <= (used_uj + span_uj) / 1e6 / gap_s <= PLAUSIBLE_W[1]:
                missing.append(f"power of {rail}: the energy counter ran backwards")
                return None
            used_uj += span_uj
        if used_uj == 0 and "/" not in rail:  # a part may be powered off, a processor that reads its counter is not
            missing.append(f"power of {rail}: the energy counter has not advanced for {gap_s:.1f} s")
            return None
        return plausible_w(rail, used_uj / 1e6 / gap_s, missing)


def _total(rails: dict[str, float | None], missing: list[str]) -> tuple[float | None, bool]:
    """The machine's watts, and whether they are an estimate: without a platform meter, the processor's share alone."""
    if rails.get("psys") is not None:
        return rails["psys"], False
    packages = {name: w for name, w in rails.items() if "/" not in name and name != "psys"}
    known = [w for w in packages.values() if w is not None]
    if not packages or len(known) < len(packages):
        return None, False
    missing.append(f"no platform meter: the power is that of {' + '.join(packages)} alone, the machine draws more")
    return sum(known), True
