"""How much memory can still be had before the kernel kills, and how long tasks wait for it. Any Linux; unknown is None.

The machine's own figures, and those of each control group (version 2, or 1 as on JetPack 5) that this process is in:
the tightest counts. Pages of files that were not used lately count as free, since the kernel takes them first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_AVERAGE: Final = re.compile(r"^full avg10=(\d{1,3}\.\d+)", re.MULTILINE)
_MB: Final = 1e6


@dataclass(frozen=True)
class MemoryReading:
    """`total_mb`: of the machine, or what the tightest group allows. `stalled_percent`: of the last ten seconds in
    which all tasks waited for memory."""

    available_mb: float | None
    total_mb: float | None
    stalled_percent: float | None


@dataclass(frozen=True)
class _Files:
    limits: tuple[str, ...]
    usage: str
    reclaimable: str


_VERSION_1: Final = _Files(("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2: Final = _Files(("memory.max", "memory.high"), "memory.current", "inactive_file")


class MemoryReader:
    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._groups = _groups_of(root)

    def read(self) -> MemoryReading:
        meminfo = _text(self._root / "proc/meminfo")
        available_mb, machine_mb = _meminfo_mb(meminfo, "MemAvailable"), _meminfo_mb(meminfo, "MemTotal")
        total_mb = machine_mb
        for directory, files in self._groups:
            limits = [limit for name in files.limits if (limit := _number(_text(directory / name))) is not None]
            used = _number(_text(directory / files.usage))
            if not limits or used is None or (machine_mb is not None and min(limits) >= _MB * machine_mb):
                continue
            found = re.search(rf"^{files.reclaimable} (\d+)$", _text(directory / "memory.stat"), re.MULTILINE)
            left_mb = (min(limits) - used + (int(found.group(1)) if found else 0)) / _MB
            available_mb = left_mb if available_mb is None else min(available_mb, left_mb)
            total_mb = min(limits) / _MB if total_mb is None else min(total_mb, min(limits) / _MB)
        return MemoryReading(available_mb, total_mb, self._stalled())

    def _stalled(self) -> float | None:
        pressures = [self._root / "proc/pressure/memory", *(group / "memory.pressure" for group, _ in self._groups)]
        found = [float(match.group(1)) for path in pressures if (match := _AVERAGE.search(_text(path)))]
        return max(found, default=None)


def _groups_of(root: Path) -> list[tuple[Path, _Files]]:
    """This process's groups that account for memory, the innermost first."""
    found = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            tree, files = root / "sys/fs/cgroup", _VERSION_2
        elif "memory" in controllers.split(","):
            tree, files = root / "sys/fs/cgroup/memory", _VERSION_1
        else:
            continue
        inner = tree / path.lstrip("/")
        for directory in (inner, *inner.parents):
            if (directory / files.usage).exists():
                found.append((directory, files))
            if directory == tree:
                break
    return found


def _meminfo_mb(text: str, name: str) -> float | None:
    found = re.search(rf"^{name}:\s+(\d{{1,15}}) kB$", text, re.MULTILINE)
    return None if found is None else int(found.group(1)) * 1024 / _MB


def _number(text: str) -> int | None:
    """None for "max", which is no limit, and for what cannot be read."""
    return int(text) if text.strip().isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
