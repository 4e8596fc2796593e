"""The variants of a bundle that are loaded and warm; the choice takes effect between two batches.

In: a verified bundle. Out: the input memory to fill, and the outputs of the variant that was selected when the batch
was submitted. A switch between resident variants creates and frees nothing: it is the change of one reference. What
is resident changes by `adopt` and `let_go` alone. All calls come from the engine loop's thread, except for `load`.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from edged import clock
from edged.config import EngineConfig
from edged.engines.bundle import Bundle
from edged.engines.engine import Engine, HostMemory, Outputs, Runtime
from edged.engines.loading import Loaded, PoolVariant, VariantLoader, exhaust, warm
from edged.engines.runtimes import runtimes
from edged.engines.scaler import Scaler
from edged.errors import EdgedError, UsageError

log = logging.getLogger(__name__)


class VariantError(EdgedError):
    """The runtime failed on a batch; `variant` is the one to retire. The frames of that batch have no result."""

    def __init__(self, variant: str, why: str) -> None:
        super().__init__(f"variant {variant} failed: {why}", "the daemon goes on with the other variants of the bundle")
        self.variant = variant
        self.why = why


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

    def __init__(self, bundle: Bundle, runtime: Runtime, max_batch: int, one_of_accuracy: float | None = None) -> None:
        """Load and warm every variant that can be, or, with `one_of_accuracy`, one variant, of at least that accuracy
        if there is one. NothingRunsError if none can; see `open` for the ordinary way in."""
        self.max_batch = min(max_batch, bundle.manifest.max_batch)
        self.device = runtime.device
        self.machine = runtime.machine
        self.concurrent = runtime.concurrent
        self._runtime = runtime
        self._loader = VariantLoader(bundle, runtime, self.max_batch)
        self._memory = self._loader.memory()
        self._engines: dict[str, Engine] = {}
        self._variants = {spec.name: self._loader.describe(spec) for spec in bundle.manifest.variants}
        self._in_flight: list[str | None] = [None] * runtime.lanes
        self._took_ms = [0.0] * runtime.lanes
        self._left = False
        self._load_all() if one_of_accuracy is None else self._load_one(one_of_accuracy)
        if not self._engines:
            self.close()
            raise NothingRunsError(bundle.directory, self.variants)
        reference = bundle.manifest.reference
        self._active = reference if reference in self._engines else next(iter(self._engines))
        if self._all_resident():
            self._engines[self._active].rest()

    @classmethod
    def open(cls, bundle: Bundle, config: EngineConfig, one_of_accuracy: float | None = None) -> Pool:
        """The variants of the bundle on the configured device, warm: all, or one as for the constructor. A variant that
        cannot run is refused with its reason in `variants`; EdgedError if none can. `auto` goes on to the next runtime
        if none of them runs on one."""
        failed: EdgedError | None = None
        for runtime in runtimes(config, bundle.manifest):
            if failed is not None:
                log.warning("next is %s, since: %s", runtime.device, failed.message)
            try:
                return cls(bundle, runtime, config.max_batch, one_of_accuracy)
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

    # ---- what is resident ------------------------------------------------------------------------------------------

    @property
    def resident(self) -> list[str]:
        """What can run now."""
        return [variant.name for variant in self._variants.values() if variant.refused is None and variant.resident]

    @property
    def shared_mb(self) -> float:
        """What all variants share: the inputs and outputs, and on TensorRT the memory that they compute in."""
        return self._memory.held_bytes / 1e6

    def load(self, name: str) -> Loaded:
        """An engine of a variant that is not resident, for `adopt`; from any one thread. It is warm where the runtime
        is `concurrent`. EdgedError if it cannot be had."""
        if not self.concurrent:
            return self._loader.load(name, self._memory)
        return self._loader.load_beside(name, self._all_resident(but=name))

    def warm(self, loaded: Loaded) -> Generator[None, None, tuple[float, ...]]:
        """Single runs, while nothing is in flight, until it is warm; returns its latencies."""
        return warm(loaded.engine, self.max_batch)

    def adopt(self, loaded: Loaded, latency_ms: tuple[float, ...]) -> PoolVariant:
        """A warm engine is resident from now on."""
        engine, name = loaded.engine, loaded.name
        engine.bind(self._memory)
        self._engines[name] = engine
        held = engine.memory_bytes
        self._variants[name] = replace(
            self._variants[name],
            latency_ms=latency_ms,
            memory_mb=None if held is None else held / 1e6,
            load_s=(clock.mono_ns() - loaded.begun_ns) / clock.NS_PER_S,
            resident=True,
        )
        return self._variants[name]

    def let_go(self, name: str) -> Engine | None:
        """A variant is not resident any more: its engine, to be closed. None, and nothing changed, while a batch of it
        is in flight. EdgedError for the last one."""
        others = [other for other in self.resident if other != name]
        if not others:
            raise EdgedError(f"{name} is the only variant that is loaded")
        if name in self._in_flight:
            return None
        self._variants[name] = replace(self._variants[name], resident=False)
        if self._active == name:
            self._active = self._fastest(others)
        return self._engines.pop(name)

    def refuse(self, name: str, why: str) -> None:
        """A variant that is not resident cannot be loaded."""
        self._variants[name] = replace(self._variants[name], refused=why)

    def retire(self, name: str, why: str) -> str:
        """Never run `name` again; returns what is active now. A retired active variant is replaced by the fastest one
        left, until the governor decides. EdgedError if none is left. Its memory is freed in `close`, not here."""
        self.refuse(name, why)
        usable = self.resident
        if not usable:
            raise EdgedError(
                f"no variant is left to run: {name}, the last one, failed: {why}",
                "restart edged; `edged check` tries all",
            )
        if self._active == name:
            self._active = self._fastest(usable)
        return self._active

    def leave(self) -> None:
        """Free nothing in `close`: a load that does not end still uses what all engines share."""
        self._left = True

    def close(self) -> None:
        """Free every engine. Only when the engine loop has ended."""
        if self._left:
            return
        for engine in self._engines.values():
            free(engine)
        self._engines.clear()
        free(self._memory)

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _known_usable(self, name: str) -> str:
        known = self._variants.get(name)
        if known is None or known.refused is not None or not known.resident:
            why = "is not in the bundle"
            if known is not None:
                why = "is not loaded" if known.refused is None else f"is refused: {known.refused}"
            raise UsageError(f"variant {name!r} {why}", f"select one of: {', '.join(self.resident)}")
        return name

    def _all_resident(self, but: str | None = None) -> bool:
        """Whether all that can run, but one, are loaded. Only then do engines rest: before, what the next one takes is
        measured by how the process grows, and planned for on top of the most that the others take."""
        return all(v.resident or v.refused is not None for v in self._variants.values() if v.name != but)

    def _fastest(self, names: list[str]) -> str:
        return min(names, key=lambda name: self._variants[name].latency_ms[0])

    def _load_all(self) -> None:
        """All are loaded before the first runs: only then is it known how much memory they can share."""
        loaded = [self._first_load(name) for name in self._variants]
        for one in loaded:
            if one is not None:
                self._first_warm(one)

    def _load_one(self, least_accuracy: float) -> None:
        """The smallest file first: of one model it is the quickest as a rule, and always takes the least memory."""

        def order(variant: PoolVariant) -> tuple[bool, float]:
            return (variant.accuracy or 0.0) < least_accuracy, variant.file_mb or 0.0

        for name in [variant.name for variant in sorted(self._variants.values(), key=order)]:
            one = self._first_load(name)
            if one is not None and self._first_warm(one):
                return

    def _first_load(self, name: str) -> Loaded | None:
        """Whatever is wrong with a variant is a reason to refuse it, not to stop."""
        if self._variants[name].refused is not None:
            return None
        try:
            return self._loader.load(name, self._memory)
        except EdgedError as error:
            self.refuse(name, error.message)
            return None

    def _first_warm(self, loaded: Loaded) -> bool:
        try:
            self.adopt(loaded, exhaust(self.warm(loaded)))
        except EdgedError as error:
            free(loaded.engine)
            self.refuse(loaded.name, error.message)
            return False
        return True


def free(held: Engine | HostMemory) -> None:
    try:
        held.close()
    except EdgedError as error:  # a GPU in a fault frees nothing any more: the end of the process does
        log.warning("not freed: %s", error.message)
