"""CPU use, CPU pressure and available memory, from /proc. Any Linux; unknown is None."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edged.power.sysfs_reader import SysfsReader


@dataclass(frozen=True)
class LoadReading:
    """`cpu_percent`: of all cores' time since the last reading; `cpu_pressure_percent`: of the last 10 s."""

    cpu_percent: float | None
    cpu_pressure_percent: float | None
    memory_available_mb: float | None


class CpuMemory:
    """Keeps the counters of the last reading, from which rates come."""

    def __init__(self, files: SysfsReader) -> None:
        self._files = files
        self._cpu: tuple[int, int] | None = None

    def read(self, missing: list[str]) -> LoadReading:
        return LoadReading(self._cpu_percent(missing), self._cpu_pressure(missing), self._memory_mb(missing))

    def _cpu_percent(self, missing: list[str]) -> float | None:
        text = self._files.text(self._files.path("proc/stat"), missing)
        if text is None:
            return None
        fields = text.split("\n", 1)[0].split()
        # user nice system idle iowait irq softirq steal; guest time that follows is counted in user already
        ticks = [int(f) for f in fields[1:9] if f.isdecimal()]
        if fields[:1] != ["cpu"] or len(ticks) < 5:
            missing.append("/proc/stat does not begin with the line of all CPUs")
            return None
        before, now = self._cpu, (sum(ticks), ticks[3] + ticks[4])
        self._cpu = now
        if before is None:
            missing.append("CPU use needs two readings; this is the first")
            return None
        total, idle = now[0] - before[0], now[1] - before[1]
        if total <= 0 or not 0 <= idle <= total:  # iowait may run backwards, as the kernel documents
            missing.append("/proc/stat did not advance since the last reading")
            return None
        return 100 * (total - idle) / total

    def _cpu_pressure(self, missing: list[str]) -> float | None:
        """Share of the last 10 s in which some task waited for a CPU."""
        absent = "/proc/pressure/cpu has no line 'some avg10='"
        return self._number("proc/pressure/cpu", r"^some avg10=(\d{1,3}\.\d+)", absent, missing)

    def _memory_mb(self, missing: list[str]) -> float | None:
        absent = "/proc/meminfo has no MemAvailable"
        kib = self._number("proc/meminfo", r"^MemAvailable:\s+(\d{1,15}) kB$", absent, missing)
        return None if kib is None else kib * 1024 / 1e6

    def _number(self, file: str, pattern: str, absent: str, missing: list[str]) -> float | None:
        """The number that the pattern finds in a file; `absent` is the reason where it finds none."""
        text = self._files.text(self._files.path(file), missing)
        if text is None:
            return None
        found = re.search(pattern, text, re.MULTILINE)
        if found is None:
            missing.append(absent)
            return None
        return float(found.group(1))
