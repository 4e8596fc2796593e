"""Engines of an emulated GPU: how long a batch takes follows the ceiling of its clock, and not the machine's speed.

The inference itself is ONNX Runtime's. The time of all batches is counted in a file of the board, whose power follows
from it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edged.engines.engine import HostMemory, ModelTensors
from edged.engines.ort import OrtRuntime
from edged.power.gpu import clocks_hz, find_gpu
from edged.power.sysfs_reader import SysfsReader
from tests.support.models import center_model
from tests.support.paced import PacedEngine

MODELS = {"fine": center_model(-100.0), "fast": center_model(-90.0)}
RUN_MS = {"fine": 6.0, "fast": 3.0}
"""At the highest clock."""
BUSY = "engine_busy_ns"
"""Under the board's root: 8 bytes, little-endian."""

Load = Callable[[OrtRuntime, bytes, str, ModelTensors, HostMemory], Any]


def load_at_the_ceiling(root: Path) -> Load:
    """In the place of `OrtRuntime.load`, on the board under `root`, for MODELS."""
    files = SysfsReader(root)
    directory = find_gpu(files)
    assert directory is not None
    ceiling, top_hz = directory / "max_freq", clocks_hz(files, directory)[-1]
    files.close()
    plain = OrtRuntime.load
    busy = os.open(root / BUSY, os.O_RDWR | os.O_CREAT)
    busy_ns = int.from_bytes(os.pread(busy, 8, 0), "little")

    def count(took_s: float) -> None:
        nonlocal busy_ns
        busy_ns += round(1e9 * took_s)
        os.pwrite(busy, busy_ns.to_bytes(8, "little"), 0)

    def load(runtime: OrtRuntime, content: bytes, file: str, tensors: ModelTensors, memory: HostMemory) -> PacedEngine:
        run_ms = RUN_MS[Path(file).stem]
        engine = plain(runtime, content, file, tensors, memory)
        return PacedEngine(engine, lambda: run_ms / 1000 * top_hz / int(ceiling.read_text()), count)

    return load


def busy_s(root: Path) -> float:
    """How long the engines of that board have worked so far."""
    try:
        return int.from_bytes((root / BUSY).read_bytes(), "little") / 1e9
    except FileNotFoundError:
        return 0.0
