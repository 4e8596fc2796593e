"""ONNX Runtime whose batches take a given time: what a governor is told of them holds on a machine of any speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edged.engines.engine import Engine, HostMemory, ModelTensors, Outputs
from edged.engines.ort import OrtRuntime


class PacedRuntime(OrtRuntime):
    """`run_ms`: by the name of the variant, how long each of its batches takes at least."""

    def __init__(self, run_ms: Mapping[str, float]) -> None:
        super().__init__(1)
        self._run_ms = run_ms

    def load(self, content: bytes, file: str, tensors: ModelTensors, memory: HostMemory) -> Any:
        run_s = self._run_ms[Path(file).stem] / 1000
        return PacedEngine(super().load(content, file, tensors, memory), lambda: run_s)


class PacedEngine:
    """The engine it is given, but `collect` returns no sooner than `run_s()` after `submit`. `on_run` is told how long
    each batch took."""

    def __init__(
        self, engine: Engine, run_s: Callable[[], float], on_run: Callable[[float], None] = lambda took_s: None
    ) -> None:
        self._engine, self._run_s, self._on_run = engine, run_s, on_run
        self._submitted_s = 0.0
        self._took_s = 0.0

    def submit(self, lane: int, batch: int) -> None:
        self._submitted_s = time.monotonic()
        self._engine.submit(lane, batch)

    def collect(self, lane: int) -> Outputs:
        outputs = self._engine.collect(lane)
        time.sleep(max(0.0, self._submitted_s + self._run_s() - time.monotonic()))
        self._took_s = time.monotonic() - self._submitted_s
        self._on_run(self._took_s)
        return outputs

    def took_ms(self, lane: int) -> float:
        return self._took_s * 1000

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)
