"""The GPU as the kernel's devfreq shows it: where it is, its load, its clock, its ceiling and the clocks it has.

Files under a root in, numbers out. Used by the sampler and by the clock helper, each with its own `SysfsReader`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edged.power.sysfs_reader import SysfsReader, whole

GPU_NAME: Final = re.compile(r"(\d+\.)?(gpu|ga10b|gv11b)|gpu-gpc-0")
"""Orin on JetPack 6 and 5, Xavier, and Thor's graphics clusters."""
MOST_CLOCKS: Final = 64
HZ_PER_MHZ: Final = 1_000_000
FEW_CLOCKS: Final = 5
"""So many are enough to choose from where each has to be tried."""
SLOWEST: Final = 0.3  # as a share of the ceiling: below it nearly all power is that of idling


@dataclass(frozen=True)
class GpuReading:
    """Unknown is None. `mhz`: of now; `ceiling_mhz`: what it may reach."""

    percent: float | None
    mhz: float | None
    ceiling_mhz: float | None


def find_gpu(files: SysfsReader) -> Path | None:
    """The devfreq directory of the GPU; None if this machine has none."""
    for entry in files.entries(files.path("sys/class/devfreq"), "*"):
        if GPU_NAME.fullmatch(entry.name) or files.label(entry / "device/of_node/name") in ("gpu", "ga10b", "gv11b"):
            return entry
    return None


def read_gpu(files: SysfsReader, directory: Path, missing: list[str]) -> GpuReading:
    permille = files.integer(directory / "device/load", missing)
    if permille is not None and not 0 <= permille <= 1000:
        missing.append(f"{files.shown(directory / 'device/load')} reads {permille}, expected 0 to 1000")
        permille = None
    return GpuReading(
        percent=None if permille is None else permille / 10,
        mhz=_mhz(files.integer(directory / "cur_freq", missing)),
        ceiling_mhz=_mhz(files.integer(directory / "max_freq", missing)),
    )


def clocks_hz(files: SysfsReader, directory: Path) -> tuple[int, ...]:
    """The frequencies of this GPU in Hz, ascending; empty if it does not list them."""
    try:
        words = files.read(directory / "available_frequencies").split()
    except OSError:
        return ()
    known = {number for word in words[:MOST_CLOCKS] if (number := whole(word)) is not None and number > 0}
    return tuple(sorted(known))


def few_clocks_mhz(root: Path) -> tuple[float, ...]:
    """Some of the clocks of this machine's GPU, spread from SLOWEST to the ceiling in force; empty if it lists none."""
    files = SysfsReader(root)
    try:
        directory = find_gpu(files)
        if directory is None:
            return ()
        ceiling_mhz = read_gpu(files, directory, []).ceiling_mhz or math.inf
        listed = [hz / HZ_PER_MHZ for hz in clocks_hz(files, directory)]
    finally:
        files.close()
    settable = [mhz for mhz in listed if mhz <= ceiling_mhz]
    useful = [mhz for mhz in settable if mhz >= SLOWEST * settable[-1]]
    steps = min(FEW_CLOCKS, len(useful)) - 1
    return tuple([useful[round(i * (len(useful) - 1) / steps)] for i in range(steps + 1)]) if steps > 0 else ()


def _mhz(hz: int | None) -> float | None:
    return hz / HZ_PER_MHZ if hz is not None and hz > 0 else None
