"""A variant on its way from its file to a warm engine, and what that measured: latency, memory, time.

`VariantLoader.load` may run on another thread than the engine loop's where the runtime allows it; `warm` is a generator
of single runs, so that on a GPU the loop can make them one by one between its own batches.
"""

from __future__ import annotations

import platform
import statistics
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from edged import clock
from edged.engines.bundle import Bundle, model_tensors, select_file, verify_file
from edged.engines.engine import Engine, HostMemory, Outputs, Runtime
from edged.engines.manifest import EngineFile, VariantSpec
from edged.errors import EdgedError

_WARM_RUNS: Final = 2  # the first runs touch the memory, grow the arenas and capture the CUDA graphs
_TIMED_RUNS: Final = 7
_TIMED_AT_LEAST: Final = 3
_TIMED_BUDGET_MS: Final = 100.0  # per batch size, so that a large model does not take minutes to start


@dataclass(frozen=True)
class PoolVariant:
    """A variant as it is here. `accuracy` is that of the very file chosen, in the bundle's metric; None is unmeasured.

    `latency_ms[i]` is the warm median of submit + collect with a batch of i + 1; empty before the variant was loaded.
    `memory_mb`: what loading it takes and letting it go returns, without what all variants share; `load_s`: how long
    its last load took; both None before the first, the memory also where the runtime does not report it. `refused` is
    the reason why it cannot be selected, or None; then the rest may be unknown.
    """

    name: str
    precision: str
    sparse: bool
    accuracy: float | None = None
    latency_ms: tuple[float, ...] = ()
    runtime: str | None = None
    file: str | None = None
    refused: str | None = None
    sha256: str | None = None
    """of `file`"""
    file_mb: float | None = None
    memory_mb: float | None = None
    load_s: float | None = None
    resident: bool = False
    """it is loaded and warm, so it can run now"""


@dataclass(frozen=True)
class Loaded:
    """An engine that nothing runs on yet. `begun_ns`: when its load began."""

    name: str
    engine: Engine
    begun_ns: int
    latency_ms: tuple[float, ...] = ()
    """empty: it is not warm yet"""


class VariantLoader:
    def __init__(self, bundle: Bundle, runtime: Runtime, max_batch: int) -> None:
        self._bundle, self._runtime, self._max_batch = bundle, runtime, max_batch
        self._tensors = model_tensors(bundle.manifest)
        self._files: dict[str, EngineFile] = {}

    def memory(self) -> HostMemory:
        """What engines share. EdgedError if there is none."""
        spec = self._bundle.manifest.input
        memory = self._runtime.memory(spec, self._tensors.image, self._max_batch)
        memory.blank(spec.pad)
        return memory

    def describe(self, spec: VariantSpec) -> PoolVariant:
        """The variant before it is loaded, refused if it has no file for this place."""
        variant = PoolVariant(spec.name, spec.precision, spec.sparse)
        runtime = self._runtime
        try:
            file = select_file(
                spec, runtime.name, platform.machine(), lambda file: runtime.refuses(file, self._max_batch)
            )
        except EdgedError as error:
            return replace(variant, refused=error.message)
        self._files[spec.name] = file
        accuracy = file.accuracy.get(self._bundle.manifest.metric)
        return replace(
            variant,
            accuracy=accuracy,
            runtime=runtime.name,
            file=file.path,
            sha256=file.sha256,
            file_mb=file.bytes / 1e6,
        )

    def load(self, name: str, memory: HostMemory) -> Loaded:
        """Its verified file as an engine on `memory`, not warm yet. EdgedError for whatever is wrong with it."""
        begun_ns, file = clock.mono_ns(), self._files[name]
        content = verify_file(self._bundle, file)
        return Loaded(name, self._runtime.load(content, file.path, self._tensors, memory), begun_ns)

    def load_beside(self, name: str, last: bool) -> Loaded:
        """The same, and warm, on memory of its own: nothing of what runs meanwhile is touched. For a runtime that is
        `concurrent`. The engine is to be bound to the memory of the others. `last`: no other is left to be loaded."""
        memory = self.memory()
        loaded = self.load(name, memory)
        try:
            latency_ms = exhaust(warm(loaded.engine, self._max_batch))
            if last:
                loaded.engine.rest()
            return replace(loaded, latency_ms=latency_ms)
        except EdgedError:
            loaded.engine.close()
            raise
        finally:
            memory.close()


def warm(engine: Engine, max_batch: int) -> Generator[None, None, tuple[float, ...]]:
    """Run every batch size on every lane, a run at each step; returns the time in ms by batch size, of lane 0.
    EdgedError if the engine fails or gives nonsense.

    The time of batch 1 is its median, the others stand to it as the least times do: what else runs on the machine only
    ever adds, and these ratios decide for good whether batches pay."""
    median_ms, least_ms = [], []
    for batch in range(1, max_batch + 1):
        for _ in range(_WARM_RUNS):
            outputs = run(engine, 0, batch)
            yield
        for name, array in outputs.items():
            if not np.isfinite(array).all():
                raise EdgedError(f"output {name} is not finite for a plain grey picture: the engine is broken")
        times_ms: list[float] = []
        while len(times_ms) < _TIMED_AT_LEAST or (len(times_ms) < _TIMED_RUNS and sum(times_ms) < _TIMED_BUDGET_MS):
            start_ns = clock.mono_ns()
            run(engine, 0, batch)
            times_ms.append((clock.mono_ns() - start_ns) / clock.NS_PER_MS)
            yield
        median_ms.append(statistics.median(times_ms))
        least_ms.append(min(times_ms))
    for lane in range(1, engine.lanes):
        for batch in range(1, max_batch + 1):
            run(engine, lane, batch)
            yield
    return tuple([median_ms[0] * ms / least_ms[0] for ms in least_ms])


def exhaust(steps: Generator[None, None, tuple[float, ...]]) -> tuple[float, ...]:
    """All steps at once; what they return."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            returned: tuple[float, ...] = end.value
            return returned


def run(engine: Engine, lane: int, batch: int) -> Outputs:
    engine.submit(lane, batch)
    return engine.collect(lane)
