"""A bundle's TensorRT plans for this device, from its explicit Q/DQ and FP16 graphs: `edged-calibrate build BUNDLE`.

In: a bundle. Out: a plan for each variant, keyed by TensorRT's version and the device, and the manifest that names it
with its digest and with what the inspector says of its layers. Each file is whole or not there; a plan that is up to
date is not built again, and beside the plans lie the times that the next build begins with. Runs on the device itself,
since a plan runs nowhere else; one build of a bundle at a time, and memory is checked before it begins.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol, TypeVar

import msgspec
from msgspec import structs

from edged.engines import trt as engine_room
from edged.engines.bundle import MANIFEST_NAME, Bundle, load_bundle, verify_file
from edged.engines.cuda import Gpu, device_of
from edged.engines.manifest import Built, EngineFile, Layers, VariantSpec
from edged.errors import EdgedError
from edged_calibration.tensorrt import timing
from edged_calibration.tensorrt.build_plan import WORKSPACE_BYTES, build_plan, inspect, write
from edged_calibration.tensorrt.inspect import complaint
from edged_calibration.tensorrt.lock import only_build
from edged_calibration.tensorrt.timing import Stopwatch

T = TypeVar("T")

LIMIT_S: Final = 3600.0
"""For one variant: minutes are usual, and `edged-build.service` lets all of them together take two hours."""
GRACE_S: Final = 30.0
"""For TensorRT to end a build that was cancelled: it looks between two steps."""
NEEDED_BYTES: Final = 1 << 30
"""Free memory besides the workspace, for the builder itself: an allowance, measured on no device yet."""


@dataclass(frozen=True)
class BuiltVariant:
    """What became of a variant. `file` is its plan if it is `built` now or up to date (`current`); else `why` says what
    is wrong (`failed`) or missing (`no source`)."""

    name: str
    outcome: Literal["built", "current", "failed", "no source"]
    file: EngineFile | None = None
    why: str | None = None
    warnings: tuple[str, ...] = ()


class Watcher(Protocol):
    """Where a build reports its progress."""

    def waits(self, pid: str) -> None:
        """That process builds the bundle already: nothing begins before it ends."""

    def begins(self, variant: str, number: int, count: int, stopwatch: Stopwatch) -> None:
        """Variant `number` of `count` is built from now on; the watch says how long it will take."""

    def advance(self, phase: str, step: int, steps: int) -> None:
        """TensorRT's own words for what it does. On threads of TensorRT's."""

    def ends(self) -> None:
        """This variant is done, or has failed."""


def build_bundle(
    directory: Path, max_batch: int, watcher: Watcher, again: bool = False, limit_s: float = LIMIT_S
) -> list[BuiltVariant]:
    """Build what this device lacks, after whoever builds it now. EdgedError if nothing can be built here; a variant
    that fails, or takes longer than `limit_s`, costs only itself."""
    if (missing := engine_room.why_not()) is not None:
        raise EdgedError(f"plans cannot be built here: {missing}", "run it on the device, with JetPack's TensorRT")
    load_bundle(directory)  # what is no bundle is not waited for
    with only_build(directory, watcher.waits):
        return _build_all(load_bundle(directory), max_batch, watcher, again, limit_s)


def _build_all(bundle: Bundle, max_batch: int, watcher: Watcher, again: bool, limit_s: float) -> list[BuiltVariant]:
    gpu = Gpu()
    try:
        check_memory(_available_bytes(), WORKSPACE_BYTES + NEEDED_BYTES)
        if not gpu.integrated:
            check_memory(gpu.free_bytes(), WORKSPACE_BYTES)
        place = Place(engine_room.version(), ".".join(map(str, gpu.capability)), device_of(gpu))
        job = _Job(bundle, place, min(max_batch, bundle.manifest.max_batch), watcher, again, limit_s)
        return [job.one(number, variant) for number, variant in enumerate(bundle.manifest.variants, 1)]
    finally:
        gpu.close()


@dataclass(frozen=True)
class Place:
    """Where plans run: nowhere else."""

    tensorrt: str
    capability: str
    device: str

    @property
    def slug(self) -> str:
        digest = hashlib.sha256(self.device.encode()).hexdigest()[:6]
        return f"trt{self.tensorrt}-sm{self.capability.replace('.', '')}-{digest}"


def check_memory(available: int | None, needed: int) -> None:
    """EdgedError before anything is begun that the kernel would end half-way."""
    if available is not None and available < needed:
        raise EdgedError(
            f"building needs about {needed >> 20} MiB of free memory; {available >> 20} MiB are free",
            "stop edged and the desktop first (systemctl stop edged; systemctl isolate multi-user.target), or add swap",
        )


def source_of(variant: VariantSpec) -> EngineFile | None:
    """The ONNX file that a variant's plans are built from."""
    return next((f for f in variant.files if f.runtime == "tensorrt" and f.built is None), None)


def plan_of(variant: VariantSpec, place: Place) -> EngineFile | None:
    """The plan that is there for this place."""
    for file in variant.files:
        built = file.built
        if built is not None and (built.tensorrt, built.capability, built.device) == (
            place.tensorrt,
            place.capability,
            place.device,
        ):
            return file
    return None


@dataclass(frozen=True)
class _Job:
    bundle: Bundle
    place: Place
    max_batch: int
    watcher: Watcher
    again: bool
    limit_s: float

    def one(self, number: int, variant: VariantSpec) -> BuiltVariant:
        source, held = source_of(variant), plan_of(variant, self.place)
        if source is None:
            return BuiltVariant(variant.name, "no source", None, "the bundle has no ONNX file for TensorRT of it")
        if held is not None and not self.again and _current(self.bundle, held, source, self.max_batch):
            return BuiltVariant(variant.name, "current", held)
        record = self.bundle.directory / f"timing.{self.place.slug}.json"
        known = timing.load(record)
        stopwatch = Stopwatch(known.get(variant.name))
        self.watcher.begins(variant.name, number, len(self.bundle.manifest.variants), stopwatch)
        try:
            file, warnings = self._build(variant, source, stopwatch)
            write(record, timing.dump(known | {variant.name: stopwatch.times()}))
        except EdgedError as error:
            return BuiltVariant(variant.name, "failed", None, error.message)
        finally:
            self.watcher.ends()
        return BuiltVariant(variant.name, "built", file, None, warnings)

    def _build(
        self, variant: VariantSpec, source: EngineFile, stopwatch: Stopwatch
    ) -> tuple[EngineFile, tuple[str, ...]]:
        cancelled = threading.Event()

        def advance(phase: str, step: int, steps: int) -> bool:
            stopwatch.mark(phase, step, steps)
            self.watcher.advance(phase, step, steps)
            return not cancelled.is_set()

        content = verify_file(self.bundle, source)
        cache = self.bundle.directory / f"timing.{self.place.slug}.cache"

        def build() -> tuple[bytes, tuple[str, ...], Layers | None]:
            plan, warnings = build_plan(content, self.bundle.manifest.input, self.max_batch, cache, advance)
            return plan, warnings, inspect(plan)

        plan, warnings, layers = within(self.limit_s, build, cancelled)
        problem = complaint(variant.name, variant.precision, variant.sparse, layers)
        file = _keep(self.bundle.directory, variant.name, source, plan, self.place, self.max_batch, layers)
        return file, (*warnings, *([problem] if problem else []))


def within(limit_s: float, work: Callable[[], T], cancelled: threading.Event, grace_s: float = GRACE_S) -> T:
    """The result of `work`, which runs on a thread of its own. EdgedError if it takes longer than `limit_s`: it is then
    asked to end by `cancelled`, and left alone if it does not. Errors of `work` are raised here."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="tensorrt-build", daemon=True)
    thread.start()
    thread.join(limit_s)
    late = thread.is_alive()
    if late:
        cancelled.set()
        thread.join(grace_s)
    if late or thread.is_alive():
        ended = "it hangs" if thread.is_alive() else "it was cancelled"
        raise EdgedError(
            f"TensorRT did not finish in {limit_s / 60:.3g} min: {ended}",
            "stop what else runs on the device, then build again: what is done is kept",
        )
    if errors:
        raise errors[0]
    return results[0]


def _current(bundle: Bundle, plan: EngineFile, source: EngineFile, max_batch: int) -> bool:
    """Whether a plan is of this very source, for as large a batch, and whole."""
    built = plan.built
    if built is None or built.source != source.sha256 or built.max_batch < max_batch:
        return False
    try:
        verify_file(bundle, plan)
    except EdgedError:
        return False
    return True


# --- files ------------------------------------------------------------------------------------------------------------


def _keep(
    directory: Path, name: str, source: EngineFile, plan: bytes, place: Place, max_batch: int, layers: Layers | None
) -> EngineFile:
    """Write the plan, then the manifest that names it: whoever loads in between sees the bundle of before. What an
    earlier build left for this place goes at last."""
    digest = hashlib.sha256(plan).hexdigest()
    path = f"{name}.{place.slug}.{digest[:8]}.plan"
    write(directory / path, plan)
    built = Built(place.tensorrt, place.capability, place.device, source.sha256, max_batch, layers)
    file = EngineFile("tensorrt", path, digest, len(plan), source.accuracy, source.images, source.arch, built)
    manifest = load_bundle(directory).manifest
    old = [held for v in manifest.variants if v.name == name and (held := plan_of(v, place)) is not None]
    variants = [_with(v, file, old) if v.name == name else v for v in manifest.variants]
    text = msgspec.json.format(msgspec.json.encode(structs.replace(manifest, variants=variants)), indent=2) + b"\n"
    write(directory / MANIFEST_NAME, text)
    for gone in directory.glob(f"{name}.{place.slug}.????????.plan"):
        if gone.name != path:
            gone.unlink(missing_ok=True)
    return file


def _with(variant: VariantSpec, file: EngineFile, old: list[EngineFile]) -> VariantSpec:
    return structs.replace(variant, files=[*(f for f in variant.files if f not in old), file])


def _available_bytes() -> int | None:
    """Memory and swap that are free, by the kernel: on a Jetson the GPU's memory is the same."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    found = dict(re.findall(r"^(MemAvailable|SwapFree):\s+(\d+) kB$", text, re.MULTILINE))
    return sum(int(value) for value in found.values()) * 1024 if found else None
