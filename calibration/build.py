"""TensorRT plans on this device, from the explicit Q/DQ and FP16 graphs of a bundle: `edged-calibrate build BUNDLE`.

In: a bundle. Out: a plan for each variant, keyed by TensorRT's version and the device, and the manifest that names it
with its digest and with what the inspector says of its layers. Each file is whole or not there; a plan that is up to
date is not built again. Runs on the device itself, since a plan runs nowhere else; memory is checked before anything.

Strongly typed: the graph says which type each tensor has. TensorRT 10.3 may refuse that for INT8: then, on versions
that still have the flags, the same graph is built weakly typed, which is said.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import structs

from calibration.layers import complaint, read_layers
from edged.engines import trt as engine_room
from edged.engines.bundle import MANIFEST_NAME, Bundle, load_bundle, verify_file
from edged.engines.cuda import Gpu
from edged.engines.device_profile import device_name
from edged.engines.manifest import Built, EngineFile, InputSpec, Layers, Manifest, VariantSpec
from edged.errors import EdgedError

if TYPE_CHECKING:
    import tensorrt as trt
else:
    trt = engine_room.trt

WORKSPACE_BYTES: Final = 1 << 30
"""Scratch memory a tactic may use while it is timed."""
NEEDED_BYTES: Final = 1 << 30
"""Free memory besides the workspace: what the builder itself took for detectors of 3 to 30 M parameters, rounded up."""
TIMING_RUNS: Final = 4
"""Tactics are timed so often: with fewer, two builds of one graph choose differently."""

Advance = Callable[[str, int, int], None]
"""(phase, step, steps): called as TensorRT goes on."""


@dataclass(frozen=True)
class BuiltVariant:
    """What became of a variant: built, or up to date, or `why` not; with the warnings to tell."""

    name: str
    file: EngineFile | None
    why: str | None = None
    warnings: tuple[str, ...] = ()


def build_bundle(directory: Path, max_batch: int, advance: Advance, again: bool = False) -> list[BuiltVariant]:
    """Build what this device lacks. EdgedError if nothing can be built here; a variant that fails costs only itself."""
    if (missing := engine_room.why_not()) is not None:
        raise EdgedError(f"plans cannot be built here: {missing}", "run it on the device, with JetPack's TensorRT")
    bundle = load_bundle(directory)
    check_memory(_available_bytes(), WORKSPACE_BYTES + NEEDED_BYTES)
    gpu = Gpu()
    try:
        place = Place(engine_room.version(), ".".join(map(str, gpu.capability)), device_name())
        done = [_one(bundle, variant, place, min(max_batch, bundle.manifest.max_batch), advance, again)
                for variant in bundle.manifest.variants]  # fmt: skip
    finally:
        gpu.close()
    return done


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
            place.tensorrt, place.capability, place.device,
        ):  # fmt: skip
            return file
    return None


def _one(
    bundle: Bundle, variant: VariantSpec, place: Place, max_batch: int, advance: Advance, again: bool
) -> BuiltVariant:
    source, held = source_of(variant), plan_of(variant, place)
    if source is None:
        return BuiltVariant(variant.name, None, "the bundle has no ONNX file for TensorRT of it")
    if held is not None and held.built is not None and not again and _current(bundle, held, source, max_batch):
        return BuiltVariant(variant.name, held)
    try:
        content = verify_file(bundle, source)
        cache = bundle.directory / f"timing.{place.slug}.cache"
        plan, warnings = build_plan(content, bundle.manifest.input, max_batch, cache, advance)
        layers = inspect(plan)
    except EdgedError as error:
        return BuiltVariant(variant.name, None, error.message)
    said = complaint(variant.name, variant.precision, variant.sparse, layers)
    file = _keep(bundle.directory, variant.name, source, plan, place, max_batch, layers)
    return BuiltVariant(variant.name, file, None, (*warnings, *([said] if said else [])))


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


# --- TensorRT ---------------------------------------------------------------------------------------------------------


def build_plan(
    model: bytes, spec: InputSpec, max_batch: int, cache: Path, advance: Advance
) -> tuple[bytes, tuple[str, ...]]:
    """(the plan, warnings). EdgedError with TensorRT's last lines if neither way of building works."""
    said = engine_room.new_logger()
    try:
        builder = trt.Builder(said)
    except TypeError as error:  # what the binding makes of a null pointer
        raise EdgedError(f"TensorRT's builder does not start: {said.said()}", "see edged doctor") from error
    plan = _build(builder, said, model, spec, max_batch, cache, advance, weakly=False)
    if plan is not None:
        return plan, ()
    first = said.said()
    flags = trt.BuilderFlag
    if not (hasattr(flags, "INT8") and hasattr(flags, "FP16")):
        raise EdgedError(f"TensorRT cannot build it: {first}", "see the layers named; edged-calibrate sensitivity")
    said.clear()
    plan = _build(builder, said, model, spec, max_batch, cache, advance, weakly=True)
    if plan is None:
        raise EdgedError(f"TensorRT cannot build it, strongly typed ({first}) or weakly: {said.said()}")
    return plan, (f"built weakly typed, since this TensorRT refuses it strongly typed: {first}",)


def _build(
    builder: trt.Builder, said: Any, model: bytes, spec: InputSpec, max_batch: int, cache: Path, advance: Advance,
    weakly: bool,
) -> bytes | None:  # fmt: skip
    creation = 0 if weakly else 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(creation)
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    if network is None or config is None or profile is None:
        raise EdgedError(f"TensorRT's builder gives nothing to build with: {said.said()}")
    parser = trt.OnnxParser(network, said)
    if not parser.parse(model):
        told = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise EdgedError(f"TensorRT cannot read the graph: {told or said.said()}")
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)  # off by default: without it no kernel is sparse
    if weakly:
        for name in ("FP16", "INT8"):
            config.set_flag(getattr(trt.BuilderFlag, name))
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.avg_timing_iterations = TIMING_RUNS
    config.progress_monitor = _monitor(advance)
    timings = config.create_timing_cache(cache.read_bytes() if cache.is_file() else b"")
    config.set_timing_cache(timings, False)
    side = (spec.height, spec.width, 3) if spec.layout == "NHWC" else (3, spec.height, spec.width)
    profile.set_shape(spec.name, (1, *side), (1, *side), (max_batch, *side))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        return None
    held = config.get_timing_cache()
    timed = None if held is None else held.serialize()
    if timed is not None:
        _write(cache, bytes(memoryview(timed)))
    return bytes(memoryview(plan))


def inspect(plan: bytes) -> Layers | None:
    """What its layers really are. EdgedError if the plan that was just built does not load."""
    said = engine_room.new_logger()
    runtime = trt.Runtime(said)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EdgedError(f"the plan that was built does not load: {said.said()}")
    inspector = engine.create_engine_inspector()
    if inspector is None:
        return None
    return read_layers(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _monitor(advance: Advance) -> Any:
    class Monitor(trt.IProgressMonitor):
        """Called on threads of TensorRT's; a phase may lie within another."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            advance(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            advance(phase_name, step + 1, self._steps.get(phase_name, step + 1))
            return True

        def phase_finish(self, phase_name: str) -> None:
            steps = self._steps.pop(phase_name, 1)
            advance(phase_name, steps, steps)

    return Monitor()


# --- files ------------------------------------------------------------------------------------------------------------


def _keep(
    directory: Path, name: str, source: EngineFile, plan: bytes, place: Place, max_batch: int, layers: Layers | None
) -> EngineFile:
    """Write the plan, then the manifest that names it: whoever loads in between sees the bundle of before."""
    digest = hashlib.sha256(plan).hexdigest()
    path = f"{name}.{place.slug}.{digest[:8]}.plan"
    _write(directory / path, plan)
    built = Built(place.tensorrt, place.capability, place.device, source.sha256, max_batch, layers)
    file = EngineFile("tensorrt", path, digest, len(plan), source.accuracy, source.images, source.arch, built)
    manifest = load_bundle(directory).manifest
    old = [held for v in manifest.variants if v.name == name and (held := plan_of(v, place)) is not None]
    variants = [_with(v, file, old) if v.name == name else v for v in manifest.variants]
    _write_manifest(directory, structs.replace(manifest, variants=variants))
    for gone in old:
        if gone.path != path and re.fullmatch(r"[A-Za-z0-9._-]+\.plan", gone.path):
            (directory / gone.path).unlink(missing_ok=True)
    return file


def _with(variant: VariantSpec, file: EngineFile, old: list[EngineFile]) -> VariantSpec:
    return structs.replace(variant, files=[*(f for f in variant.files if f not in old), file])


def _write_manifest(directory: Path, manifest: Manifest) -> None:
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    _write(directory / MANIFEST_NAME, text)


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all. EdgedError where it cannot be written."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise EdgedError(
            f"{path}: cannot be written: {error.strerror}", "free some space, or mind who owns it"
        ) from error


def _available_bytes() -> int | None:
    """Memory and swap that are free, by the kernel: on a Jetson the GPU's memory is the same."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    found = dict(re.findall(r"^(MemAvailable|SwapFree):\s+(\d+) kB$", text, re.MULTILINE))
    return sum(int(value) for value in found.values()) * 1024 if found else None
