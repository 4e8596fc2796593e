"""A Jetson read directly: files under a root in, a `Sample` with rails, temperatures, GPU and throttle events out.

Nothing but reads: no tool is started, nothing is written, no privilege is needed. A sensor that vanishes is unknown
until it is back; the rest is read on. Runs on the sampler's thread, 1 to 10 times a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edged import clock
from edged.power.battery import read_battery
from edged.power.cpu_memory import CpuMemory
from edged.power.gpu import GpuReading, find_gpu, read_gpu
from edged.power.provider import Sample
from edged.power.rails import find_module, module_named, plausible_w, read_rails, total_w
from edged.power.stuck_sensors import Load, StuckBattery, busy_percent, stuck_rails, stuck_temperatures
from edged.power.sysfs_reader import SysfsReader
from edged.power.temperatures import hottest, plausible_c, read_temperatures
from edged.power.throttle import read_events, read_throttled

JUDGED_W: Final = 1.0
"""A rail of less power moves by less than its monitor's step."""


@dataclass(frozen=True)
class ExternalReadings:
    """Rails and temperatures, by whom and when they were read."""

    provider: str
    mono_ns: int
    rails_w: Mapping[str, float | None]
    temperatures_c: Mapping[str, float | None]


class SysfsProvider:
    """Reads the tree under `root`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._files = SysfsReader(root)
        self._load = CpuMemory(self._files)
        self._module = find_module(self._files)
        self._seen: set[str] = set()
        self._stuck_rails, self._stuck_temperatures = stuck_rails(), stuck_temperatures()
        self._stuck_battery = StuckBattery()

    @property
    def name(self) -> str:
        return "sysfs"

    def close(self) -> None:
        self._files.close()

    def read(self) -> Sample:
        return self.read_beside(None)

    def read_beside(self, external: ExternalReadings | None) -> Sample:
        """With rails and temperatures from another source, where there is one."""
        missing: list[str] = []
        load = self._load.read(missing)
        if external is None:
            temperatures = read_temperatures(self._files, missing)
            external = ExternalReadings(self.name, clock.mono_ns(), read_rails(self._files, missing), temperatures)
        else:
            temperatures = {name: plausible_c(name, c, name, missing) for name, c in external.temperatures_c.items()}
        gpu = self._gpu(missing)
        busy = busy_percent(load.cpu_percent, gpu.percent)
        sane = {name: plausible_w(name, watts, missing) for name, watts in external.rails_w.items()}
        judged = [name for name in (self._module.total if self._module else ()) if (sane.get(name) or 0) >= JUDGED_W]
        sane = self._stuck_rails.check(sane, judged, Load(None, busy), external.mono_ns, missing)
        rails = self._with_absent(sane, missing)
        power, estimated = total_w(self._module, rails, missing)
        temperatures = self._stuck_temperatures.check(
            temperatures, temperatures, Load(power, busy), external.mono_ns, missing
        )
        return Sample(
            provider=external.provider,
            mono_ns=external.mono_ns,
            power_w=power,
            power_estimated=estimated,
            rails_w=rails,
            temperature_c=hottest(temperatures),
            temperatures_c=temperatures,
            cpu_percent=load.cpu_percent,
            memory_available_mb=load.memory_available_mb,
            cpu_pressure_percent=load.cpu_pressure_percent,
            gpu_percent=gpu.percent,
            gpu_mhz=gpu.mhz,
            gpu_ceiling_mhz=gpu.ceiling_mhz,
            throttled=read_throttled(self._files),
            throttle_events=read_events(self._files, missing),
            battery=self._stuck_battery.check(read_battery(self._files, missing), external.mono_ns, missing),
            missing=tuple(missing),
        )

    def _with_absent(self, rails: Mapping[str, float | None], missing: list[str]) -> dict[str, float | None]:
        """With None for what the module has, or had a while ago, and does not show now."""
        if self._module is None:
            missing.append(f"no total power: {module_named(self._files)} is not a module whose rails edged knows")
        expected = self._seen | set(self._module.rails if self._module else ())
        absent = sorted(expected - rails.keys())
        if absent:
            missing.append(f"no sensor for {', '.join(absent)}")
        self._seen |= rails.keys()
        return {**rails, **dict.fromkeys(absent)}

    def _gpu(self, missing: list[str]) -> GpuReading:
        directory = find_gpu(self._files)
        if directory is None:
            missing.append("no GPU in /sys/class/devfreq")
            return GpuReading(None, None, None)
        return read_gpu(self._files, directory, missing)
