"""One TensorRT plan from one ONNX graph, and what the inspector says of it. The builder's half of TensorRT.

In: the graph's bytes, the input, the largest batch, the kept times of kernels. Out: the plan's bytes, with warnings.

Strongly typed: the graph says which type each tensor has. TensorRT 10.3 may refuse that for INT8: then, on versions
that still have the flags, the same graph is built weakly typed, with a warning.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edged import files
from edged.engines import trt as engine_room
from edged.engines.manifest import InputSpec, Layers
from edged.errors import EdgedError
from edged_calibration.tensorrt.inspect import read_layers

if TYPE_CHECKING:
    import tensorrt as trt
else:
    trt = engine_room.trt

WORKSPACE_BYTES: Final = 1 << 30
"""Scratch memory a tactic may use while it is timed."""
TIMING_RUNS: Final = 4
"""Tactics are timed so often: with fewer, two builds of one graph choose differently."""

Advance = Callable[[str, int, int], bool]
"""(phase, step, steps) -> whether to go on: called as TensorRT goes on. It is asked between two steps."""


def build_plan(
    model: bytes, spec: InputSpec, max_batch: int, cache: Path, advance: Advance
) -> tuple[bytes, tuple[str, ...]]:
    """(the plan, warnings). EdgedError with TensorRT's last lines if neither way of building works."""
    trt_log = engine_room.new_logger()
    try:
        builder = trt.Builder(trt_log)
    except TypeError as error:  # what the binding makes of a null pointer
        raise EdgedError(f"TensorRT's builder does not start: {trt_log.report()}", "see edged doctor") from error
    plan = _build(builder, trt_log, model, spec, max_batch, cache, advance, weakly=False)
    if plan is not None:
        return plan, ()
    first = trt_log.report()
    flags = trt.BuilderFlag
    if not (hasattr(flags, "INT8") and hasattr(flags, "FP16")):
        raise EdgedError(f"TensorRT cannot build it: {first}", "see the layers named; edged-calibrate sensitivity")
    trt_log.clear()
    plan = _build(builder, trt_log, model, spec, max_batch, cache, advance, weakly=True)
    if plan is None:
        raise EdgedError(f"TensorRT cannot build it, strongly typed ({first}) or weakly: {trt_log.report()}")
    return plan, (f"built weakly typed, since this TensorRT refuses it strongly typed: {first}",)


def _build(
    builder: trt.Builder,
    trt_log: Any,
    model: bytes,
    spec: InputSpec,
    max_batch: int,
    cache: Path,
    advance: Advance,
    weakly: bool,
) -> bytes | None:
    creation = 0 if weakly else 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(creation)
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    if network is None or config is None or profile is None:
        raise EdgedError(f"TensorRT's builder gives nothing to build with: {trt_log.report()}")
    parser = trt.OnnxParser(network, trt_log)
    if not parser.parse(model):
        problems = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise EdgedError(f"TensorRT cannot read the graph: {problems or trt_log.report()}")
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)  # off by default: without it no kernel is sparse
    if weakly:
        for name in ("FP16", "INT8"):
            config.set_flag(getattr(trt.BuilderFlag, name))
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.avg_timing_iterations = TIMING_RUNS
    config.progress_monitor = _monitor(advance)
    _set_timings(config, cache)
    side = (spec.height, spec.width, 3) if spec.layout == "NHWC" else (3, spec.height, spec.width)
    profile.set_shape(spec.name, (1, *side), (1, *side), (max_batch, *side))
    if config.add_optimization_profile(profile) < 0:
        raise EdgedError(f"TensorRT does not take batches of 1 to {max_batch} of {spec.name}: {trt_log.report()}")
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        return None
    held = config.get_timing_cache()
    timed = None if held is None else held.serialize()
    if timed is not None:
        write(cache, bytes(memoryview(timed)))
    return bytes(memoryview(plan))


def _set_timings(config: trt.IBuilderConfig, cache: Path) -> None:
    """The times of an earlier build; none if there are none, or none that this TensorRT takes."""
    try:
        known = cache.read_bytes() if cache.is_file() else b""
    except OSError as error:
        raise EdgedError(f"{cache}: cannot be read: {error.strerror}", "mind who owns it, or remove it") from error
    for content in (known, b"") if known else (b"",):
        timings = config.create_timing_cache(content)
        if timings is not None and config.set_timing_cache(timings, False):
            return
    raise EdgedError("TensorRT gives no timing cache to build with")


def inspect(plan: bytes) -> Layers | None:
    """What its layers really are. EdgedError if the plan that was just built does not load."""
    trt_log = engine_room.new_logger()
    runtime = trt.Runtime(trt_log)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EdgedError(f"the plan that was built does not load: {trt_log.report()}")
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
            return advance(phase_name, step + 1, self._steps.get(phase_name, step + 1))

        def phase_finish(self, phase_name: str) -> None:
            steps = self._steps.pop(phase_name, 1)
            advance(phase_name, steps, steps)

    return Monitor()


def write(path: Path, content: bytes) -> None:
    """Whole or not at all. EdgedError where it cannot be written."""
    try:
        files.write_atomic(path, content)
    except OSError as error:
        raise EdgedError(
            f"{path}: cannot be written: {error.strerror}", "free some space, or mind who owns it"
        ) from error
