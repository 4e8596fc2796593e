"""Engines whose speed follows the clock ceiling of an emulated GPU: ONNX Runtime on the CPU, made slower below the top.

What a lower clock adds is spent computing, so that the time of the process stays the GPU's busy time; it counts as time
on the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from edged.engines.ort import OrtEngine
from edged.power.gpu import clocks_hz, find_gpu
from edged.power.sysfs_reader import SysfsReader


def submit_at_the_ceiling(root: Path) -> Callable[[OrtEngine, int, int], None]:
    """In the place of `OrtEngine.submit`, on the board under `root`."""
    files = SysfsReader(root)
    directory = find_gpu(files)
    assert directory is not None
    ceiling, top_hz = directory / "max_freq", clocks_hz(files, directory)[-1]
    files.close()
    plain = OrtEngine.submit

    def submit(engine: OrtEngine, lane: int, batch: int) -> None:
        begun_s = perf_counter()
        plain(engine, lane, batch)
        end_s = begun_s + (perf_counter() - begun_s) * top_hz / int(ceiling.read_text())
        while perf_counter() < end_s:
            continue
        engine._took_ms = 1000 * (perf_counter() - begun_s)

    return submit
