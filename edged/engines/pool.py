"""All variants of a bundle, resident and warm; the choice takes effect between two batches.

In: a verified bundle. Out: the input memory to fill, and the outputs of the variant that was selected when the batch
was submitted. Every engine is loaded, checked and warmed in `open` and freed in `close`; in between nothing is created
or freed, so a switch is the change of one reference. All calls come from the engine loop's thread.
"""

from __future__ import annotations

import logging
import platform
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from edged import clock
from edged.config import EngineConfig
from edged.engines.bundle import Bundle, model_tensors, select_file, verify_file
from edged.engines.engine import Engine, HostMemory, Outputs, Runtime
from edged.engines.manifest import VariantSpec
from edged.engines.runtimes import runtimes
from edged.engines.scaler import Scaler
from edged.errors import EdgedError, UsageError

log = logging.getLogger(__name__)

_WARM_RUNS = 2  # the first runs touch the memory, grow the arenas and capture the CUDA graphs
_TIMED_RUNS = 7
_TIMED_AT_LEAST = 3
_TIMED_BUDGET_MS = 100.0  # per batch size, so that a large model does not take minutes to start


class VariantError(EdgedError):
    """The runtime failed on a batch; `variant` is the one to retire. The frames of that batch have no result."""

    def __init__(self, variant: str, why: str) -> None:
        super().__init__(f"variant {variant} failed: {why}", "the daemon goes on with the other variants of the bundle")
        self.variant = variant
        self.why = why


@dataclass(frozen=True)
class PoolVariant:
    """A variant as loaded here. `accuracy` is that of the very file chosen, in the bundle's metric; None is unmeasured.

    `latency_ms[i]` is the warm median of submit + collect with a batch of i + 1. `refused` is the reason why it cannot
    be selected, or None; then `latency_ms` may be empty and `accuracy`, `file`, `sha256`, `runtime` unknown.
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


class NothingRunsError(UsageError):
    """No variant runs here; `variants` says why, of each."""

    def __init__(self, directory: Path, variants: tuple[PoolVariant, ...]) -> None:
        why = "; ".join(f"{variant.name}: {variant.refused}" for variant in variants)
        super().__init__(
            f"no variant of bundle {directory} runs here: {why}", "fix one of these, or choose another bundle"
        )
        self.variants = variants


class Pool:
    """Resident engines behind one pair of calls: fill `input_buffer(lane)`, `submit`, `collect`."""

    def __init__(self, bundle: Bundle, runtime: Runtime, max_batch: int) -> None:
        """Load and warm every variant that can be. NothingRunsError if none can; see `open` for the ordinary way in."""
        self.max_batch = min(max_batch, bundle.manifest.max_batch)
        self.device = runtime.device
        self.machine = runtime.machine
        self._runtime = runtime
        self._tensors = model_tensors(bundle.manifest)
        self._memory = runtime.memory(bundle.manifest.input, self._tensors.image, self.max_batch)
        self._engines: dict[str, Engine] = {}
        self._variants: dict[str, PoolVariant] = {}
        self._in_flight: list[str | None] = [None] * runtime.lanes
        self._took_ms = [0.0] * runtime.lanes
        self._memory.blank(bundle.manifest.input.pad)
        # All are loaded before the first runs: only then is it known how much memory they can share.
        for spec in bundle.manifest.variants:
            self._variants[spec.name] = self._load(bundle, spec)
        for name, engine in list(self._engines.items()):
            self._warm(name, engine)
        if not self._engines:
            self.close()
            raise NothingRunsError(bundle.directory, self.variants)
        reference = bundle.manifest.reference
        self._active = reference if reference in self._engines else next(iter(self._engines))

    @classmethod
    def open(cls, bundle: Bundle, config: EngineConfig) -> Pool:
        """All variants of the bundle on the configured device, warm. A variant that cannot run is refused with its
        reason in `variants`; EdgedError if none can. `auto` goes on to the next runtime if none of them runs on one."""
        failed: EdgedError | None = None
        for runtime in runtimes(config, bundle.manifest):
            if failed is not None:
                log.warning("next is %s, since: %s", runtime.device, failed.message)
            try:
                return cls(bundle, runtime, config.max_batch)
            except EdgedError as error:
                # A GPU that is there may still compute nothing: cuDNN missing, too old a chip, no room left.
                failed = error
        assert failed is not None, "there is always a runtime to try"
        raise failed

    @property
    def variants(self) -> tuple[PoolVariant, ...]:
        """In the order of the manifest, the refused ones too."""
        return tuple(self._variants.values())

    @property
    def digests(self) -> dict[str, str]:
        """Variant -> SHA-256 of the file that runs, of those that can run."""
        return {v.name: v.sha256 for v in self._variants.values() if v.refused is None and v.sha256 is not None}

    @property
    def active(self) -> str:
        """The variant that the next submit runs."""
        return self._active

    @property
    def lanes(self) -> int:
        """How many batches may be in flight at once."""
        return self._runtime.lanes

    def input_buffer(self, lane: int) -> NDArray[np.uint8]:
        """(max_batch, ...) as the manifest's input is, one memory for all variants; write it between collect and
        submit."""
        return self._memory.input(lane)

    @property
    def scaler(self) -> Scaler | None:
        """Where pictures go instead of `input_buffer` on a GPU; what was put there is what the next submit runs."""
        return self._memory.scaler

    def picture(self, lane: int, index: int) -> NDArray[np.uint8]:
        """(height, width, 3), BGR: frame `index` of the lane's last batch as the model saw it; until the next one."""
        return self._memory.picture(lane, index)

    def select(self, name: str) -> None:
        """Let `name` run from the next submit on; batches in flight finish on the variant they started with."""
        self._active = self._known_usable(name)

    def submit(self, lane: int, batch: int, variant: str | None = None) -> str:
        """Start the first `batch` frames of the lane and return the name of what runs them: the active variant, or for
        this batch alone `variant`, which must be usable. VariantError if the runtime refuses; the lane is then free."""
        if not 1 <= batch <= self.max_batch:
            raise EdgedError(f"a batch of {batch} does not fit in 1..{self.max_batch}")
        if self._in_flight[lane] is not None:
            raise EdgedError(f"lane {lane} is still in flight: collect it before the next submit")
        name = self._active if variant is None else self._known_usable(variant)
        try:
            self._engines[name].submit(lane, batch)
        except EdgedError as error:
            raise VariantError(name, error.message) from error
        self._in_flight[lane] = name
        return name

    def collect(self, lane: int) -> Outputs:
        """Wait for the lane; its outputs stay valid until its next submit. VariantError if the inference failed."""
        name = self._in_flight[lane]
        if name is None:
            raise EdgedError(f"lane {lane} has nothing to collect: submit first")
        self._in_flight[lane] = None
        engine = self._engines[name]
        try:
            outputs = engine.collect(lane)
            self._took_ms[lane] = engine.took_ms(lane)
            return outputs
        except EdgedError as error:
            raise VariantError(name, error.message) from error

    def took_ms(self, lane: int) -> float:
        """How long the batch last collected from the lane was at work, without what it waited behind another lane's."""
        return self._took_ms[lane]

    def run_alone(self, lane: int, index: int, variant: str) -> Outputs:
        """Frame `index` of the lane's last batch once more, alone, on `variant`, to its end; the outputs of one frame.
        VariantError if that fails; the lane's input is as it was in any case."""
        with self._memory.alone(lane, index):
            self.submit(lane, 1, variant)
            return self.collect(lane)

    def retire(self, name: str, why: str) -> str:
        """Never run `name` again; returns what is active now. A retired active variant is replaced by the fastest one
        left, until the governor decides. EdgedError if none is left. Its memory is freed in `close`, not here."""
        self._variants[name] = replace(self._variants[name], refused=why)
        usable = self._usable()
        if not usable:
            raise EdgedError(
                f"no variant is left to run: {name}, the last one, failed: {why}",
                "restart edged; `edged check` tries all",
            )
        if self._active == name:
            self._active = min(usable, key=lambda other: self._variants[other].latency_ms[0])
        return self._active

    def close(self) -> None:
        """Free every engine. Only when the engine loop has ended."""
        for engine in self._engines.values():
            _free(engine)
        self._engines.clear()
        _free(self._memory)

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _known_usable(self, name: str) -> str:
        known = self._variants.get(name)
        if known is None or known.refused is not None:
            why = f"is refused: {known.refused}" if known else "is not in the bundle"
            raise UsageError(f"variant {name!r} {why}", f"select one of: {', '.join(self._usable())}")
        return name

    def _usable(self) -> list[str]:
        return [variant.name for variant in self._variants.values() if variant.refused is None]

    def _load(self, bundle: Bundle, spec: VariantSpec) -> PoolVariant:
        """Load one variant; whatever is wrong with it is a reason to refuse it, not to stop."""
        variant = PoolVariant(spec.name, spec.precision, spec.sparse)
        runtime = self._runtime
        try:
            file = select_file(
                spec, runtime.name, platform.machine(), lambda file: runtime.refuses(file, self.max_batch)
            )
            accuracy = file.accuracy.get(bundle.manifest.metric)
            variant = replace(variant, accuracy=accuracy, runtime=runtime.name, file=file.path, sha256=file.sha256)
            content = verify_file(bundle, file)
            self._engines[spec.name] = runtime.load(content, file.path, self._tensors, self._memory)
        except EdgedError as error:
            return replace(variant, refused=error.message)
        return variant

    def _warm(self, name: str, engine: Engine) -> None:
        """Run every batch size on every lane; a variant that fails is refused."""
        try:
            latency_ms = tuple(_warm(engine, lane=0, batch=batch) for batch in range(1, self.max_batch + 1))
            for lane in range(1, self.lanes):
                for batch in range(1, self.max_batch + 1):
                    _run(engine, lane, batch)
        except EdgedError as error:
            _free(engine)
            del self._engines[name]
            self._variants[name] = replace(self._variants[name], refused=error.message)
            return
        self._variants[name] = replace(self._variants[name], latency_ms=latency_ms)


def _warm(engine: Engine, lane: int, batch: int) -> float:
    """Run a batch size until it is warm; its median time in ms. EdgedError if the engine fails or gives nonsense."""
    for _ in range(_WARM_RUNS):
        outputs = _run(engine, lane, batch)
    for name, array in outputs.items():
        if not np.isfinite(array).all():
            raise EdgedError(f"output {name} is not finite for a plain grey picture: the engine is broken")
    times_ms: list[float] = []
    while len(times_ms) < _TIMED_AT_LEAST or (len(times_ms) < _TIMED_RUNS and sum(times_ms) < _TIMED_BUDGET_MS):
        start_ns = clock.mono_ns()
        _run(engine, lane, batch)
        times_ms.append((clock.mono_ns() - start_ns) / clock.NS_PER_MS)
    return statistics.median(times_ms)


def _free(held: Engine | HostMemory) -> None:
    try:
        held.close()
    except EdgedError as error:  # a GPU in a fault frees nothing any more: the end of the process does
        log.warning("not freed: %s", error.message)


def _run(engine: Engine, lane: int, batch: int) -> Outputs:
    engine.submit(lane, batch)
    return engine.collect(lane)
