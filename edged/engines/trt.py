"""TensorRT: plans built on this very device, each batch size of each lane a context and a CUDA graph.

In: the verified bytes of a plan. Out: an Engine over the GPU memory that all variants share: inputs, outputs, and the
activation memory too, since one stream orders all work and no two of them ever run at once. `load` may be called beside
batches that run; everything else comes from the engine loop's thread. TensorRT's destructors hold Python's lock for as
long as they take, so that freeing is never on the way of a frame. Every call's answer is checked, and TensorRT's last
lines are part of the error.

Only names that exist from 10.3 to 11.4 are used, so one code path serves them all; a test type-checks it against each.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from edged.engines import cuda
from edged.engines.cuda import CudaError, Gpu, Graph, device_of
from edged.engines.engine import HostMemory, ModelTensors, Outputs, TensorSpec
from edged.engines.gpu_memory import LANES, GpuEngine, GpuMemory
from edged.engines.manifest import EngineFile, InputSpec
from edged.engines.scaler import Target
from edged.errors import EdgedError

_import_error: ImportError | None = None
if TYPE_CHECKING:
    import tensorrt as trt
else:
    try:
        import tensorrt as trt
    except ImportError as error:  # why_not() says so
        trt, _import_error = None, error

BUILD: Final = "build it here: edged-calibrate build BUNDLE"
_LINES: Final = 5
_MAX_OUTPUT_BYTES: Final = 64 << 20  # of one frame

log = logging.getLogger(__name__)


def why_not() -> str | None:
    """What keeps TensorRT from working here, or None."""
    if isinstance(_import_error, ModuleNotFoundError):
        return (
            "TensorRT's Python package is not here (on a Jetson: apt install python3-libnvinfer, and a virtual "
            "environment that sees the system's packages)"
        )
    if _import_error is not None:
        return f"TensorRT's library does not load: {_import_error}"
    return cuda.why_not()


def version() -> str:
    """Of the library's Python package; a plan runs on exactly the version that built it."""
    return str(trt.__version__)


class TrtRuntime:
    """Loads plans. There is no silent fall-back: a plan of another version or device is refused unread."""

    name: Literal["tensorrt"] = "tensorrt"
    device: Literal["tensorrt"] = "tensorrt"
    lanes = LANES
    concurrent = False

    def __init__(self, gpu: Gpu | None = None) -> None:
        """Ask `why_not` first. EdgedError, and the GPU closed, if TensorRT does not start."""
        self._gpu = gpu or Gpu()
        self.machine = device_of(self._gpu)
        self._log = new_logger()
        try:
            self._runtime = trt.Runtime(self._log)
        except TypeError as error:  # what the binding makes of a null pointer
            self._gpu.close()
            raise EdgedError(f"TensorRT does not start: {self._log.report()}", "see edged doctor") from error

    def refuses(self, file: EngineFile, max_batch: int) -> str | None:
        built = file.built
        here = ".".join(map(str, self._gpu.capability))
        if built is None:
            return "is not built for this device yet"
        if built.tensorrt != version():
            return f"was built by TensorRT {built.tensorrt}; here is {version()}"
        if built.capability != here:
            return f"was built for compute capability {built.capability} ({built.device}); here is {here}"
        if built.device != self.machine:  # it would run, with kernels timed on another chip
            return f"was built on {built.device}; this is {self.machine}"
        if built.max_batch < max_batch:
            return f"was built for batches up to {built.max_batch}; [engine] max_batch is {max_batch}"
        return None

    def memory(self, spec: InputSpec, image: TensorSpec, max_batch: int) -> PlanMemory:
        return PlanMemory(self._gpu, Target.of(spec), self.lanes, max_batch, image)

    def load(self, content: bytes, file: str, tensors: ModelTensors, memory: HostMemory) -> TrtEngine:
        assert isinstance(memory, PlanMemory), "memory() made it"
        self._log.clear()
        engine = self._runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise EdgedError(f"{file}: TensorRT refuses the plan: {self._log.report()}", BUILD)
        outputs = _check_tensors(engine, file, tensors)
        try:
            memory.reserve(engine.device_memory_size_v2)
            return TrtEngine(engine, self._log, file, tensors.image, outputs, memory, len(content))
        except CudaError as error:
            raise EdgedError(f"{file}: no memory for what it computes in: {error.message}", error.hint) from error


class PlanMemory(GpuMemory):
    """Also the activation memory: as much as the largest plan wants, for all of them."""

    def __init__(self, gpu: Gpu, target: Target, lanes: int, max_batch: int, image: TensorSpec) -> None:
        super().__init__(gpu, target, lanes, max_batch, image)
        self._scratch = (0, 0)
        self._in_use = False
        self._outgrown = 0

    def reserve(self, size: int) -> None:
        """At least so much. CudaError if there is none, and then it stays what it was. What is in use already stays
        where it is, since graphs hold its address; the plans loaded from now on take the larger one."""
        address, held = self._scratch
        size = max(size, cuda.ALIGNMENT)
        if size <= held:
            return
        if held and not self._in_use:
            self._scratch = (0, 0)
            self.gpu.give_back(address)
        try:
            self._scratch = (self.gpu.device(size), size)
        except CudaError:
            if held and not self._in_use:
                self._scratch = (self.gpu.device(held), held)
            raise
        self._outgrown += held if self._in_use else 0
        self._in_use = False

    @property
    def held_bytes(self) -> int:
        return super().held_bytes + self._scratch[1] + self._outgrown

    @property
    def scratch(self) -> tuple[int, int]:
        """(address, size): fixed from the first time that it is asked for."""
        self._in_use = True
        return self._scratch


class TrtEngine(GpuEngine):
    """One plan, with a context and a graph per lane and batch size, made when that is first run: while warming."""

    def __init__(
        self,
        engine: trt.ICudaEngine,
        trt_log: Any,
        file: str,
        image: TensorSpec,
        outputs: tuple[TensorSpec, ...],
        memory: PlanMemory,
        plan_bytes: int,
    ) -> None:
        """`plan_bytes`: weights and kernels, which lie on the GPU as they lie in the file."""
        super().__init__(image, outputs, memory)
        self.memory_bytes: int | None = plan_bytes
        self._scratch: tuple[int, int] | None = None
        self._engine, self._log, self._file, self._plans = engine, trt_log, file, memory
        self._slots: dict[tuple[int, int], _Slot] = {}

    def submit(self, lane: int, batch: int) -> None:
        """Put the batch on the stream and return. The first of its kind also waits, to be captured."""
        slot = self._slots.get((lane, batch))
        if slot is None:
            slot = self._slots[lane, batch] = self._slot(lane, batch)
        self._fill(lane, batch)
        slot.run()
        self._submitted(lane, slot.outputs)

    def close(self) -> None:
        """Contexts before the engine, and all of it with the GPU at rest."""
        self._gpu.wait()
        for slot in self._slots.values():
            slot.close()
        self._slots.clear()
        self._close_events()
        del self._engine

    def _slot(self, lane: int, batch: int) -> _Slot:
        self._log.clear()
        context = self._engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise self._failed("cannot make a context")
        self._scratch = self._scratch or self._plans.scratch
        context.set_device_memory(*self._scratch)
        (image,) = self.inputs
        if not context.set_input_shape(image.name, (batch, *image.shape)):
            raise self._failed(f"does not take a batch of {batch}")
        addresses = {image.name: self._memory.scaler.inputs[lane]}
        copies, outputs = [], {}
        for spec in self.outputs:
            addresses[spec.name] = self._memory.device_output(lane, spec)
            outputs[spec.name] = self._memory.output(lane, spec)[:batch]
            copies.append((outputs[spec.name].ctypes.data, addresses[spec.name], outputs[spec.name].nbytes))
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise self._failed(f"does not take an address for {name}")
        if missing := context.infer_shapes():
            raise self._failed(f"does not know the shapes of {', '.join(missing)}")
        slot = _Slot(context, self._gpu, tuple(copies), MappingProxyType(outputs), self._failed)
        slot.capture(self._file)
        return slot

    def _failed(self, what: str) -> EdgedError:
        return EdgedError(f"{self._file}: TensorRT {what}: {self._log.report()}", BUILD)


class _Slot:
    """One batch size on one lane. A context belongs to its graph: changing it afterwards is undefined."""

    def __init__(
        self,
        context: trt.IExecutionContext,
        gpu: Gpu,
        copies: tuple[tuple[int, int, int], ...],
        outputs: Outputs,
        failed: Callable[[str], EdgedError],
    ) -> None:
        self.outputs = outputs
        self._context, self._gpu, self._copies, self._failed = context, gpu, copies, failed
        self._graph: Graph | None = None

    def capture(self, file: str) -> None:
        """Once as it is, which settles what is settled late; then as a graph. A plan that cannot be captured (it has
        loops) runs without one."""
        self._enqueue()
        self._gpu.wait()
        try:
            self._graph = self._gpu.capture(self._enqueue)
        except EdgedError as error:
            log.warning("%s runs without a CUDA graph, which costs time: %s", file, error.message)

    def run(self) -> None:
        if self._graph is not None:
            self._graph.launch()
        else:
            self._enqueue()

    def close(self) -> None:
        if self._graph is not None:
            self._graph.close()
        del self._context

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._gpu.stream):
            raise self._failed("cannot run it")
        for to, source, size in self._copies:
            self._gpu.copy(to, source, size)


def _check_tensors(engine: trt.ICudaEngine, file: str, tensors: ModelTensors) -> tuple[TensorSpec, ...]:
    """The plan's tensors against the manifest's; the outputs as the plan has them."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    if inputs != [tensors.image.name]:
        raise EdgedError(f"{file}: its inputs are {', '.join(inputs) or 'none'}; expected {tensors.image.name}", BUILD)
    _check_tensor(engine, file, tensors.image, (tensors.image.dtype,))
    found = []
    for spec in tensors.outputs:
        if spec.name not in names:
            raise EdgedError(f"{file}: it has no output {spec.name}, which the decoder reads", BUILD)
        found.append(_check_tensor(engine, file, spec, ("float32", "float16")))
    return tuple(found)


def _check_tensor(engine: trt.ICudaEngine, file: str, spec: TensorSpec, dtypes: tuple[str, ...]) -> TensorSpec:
    """The tensor as it is: its dtype, and the sides that the manifest leaves open."""
    shape = tuple(engine.get_tensor_shape(spec.name))
    try:
        dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(spec.name))).name
    except TypeError:  # bf16 and fp8 have no type in NumPy
        dtype = str(engine.get_tensor_dtype(spec.name))
    fits = len(shape) == len(spec.shape) + 1 and all(
        want in (-1, have) for have, want in zip(shape[1:], spec.shape, strict=True)
    )
    if dtype not in dtypes or not fits or any(side < 1 for side in shape[1:]):
        raise EdgedError(
            f"{file}: {spec.name} is {dtype} {list(shape)}; expected {' or '.join(dtypes)} {['N', *spec.shape]}", BUILD
        )
    if int(np.prod(shape[1:])) * 4 > _MAX_OUTPUT_BYTES:
        raise EdgedError(f"{file}: {spec.name} is {list(shape)}, too much a frame", "choose a smaller model")
    return TensorSpec(spec.name, dtype, shape[1:])


def new_logger() -> Any:
    """An ILogger that keeps the last errors and, apart from them, the last kinds of warnings with how often each came.
    Its base class is only there when TensorRT is."""

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: deque[str] = deque(maxlen=_LINES)
            self._warnings: dict[str, int] = {}

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            line = " ".join(msg.split())[:300]
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self._errors.append(line)
            elif severity == trt.ILogger.WARNING:
                self._warnings[line] = self._warnings.pop(line, 0) + 1  # the last one last
                if len(self._warnings) > _LINES:
                    del self._warnings[next(iter(self._warnings))]

        def clear(self) -> None:
            self._errors.clear()
            self._warnings.clear()

        def report(self) -> str:
            """The errors; where there are none, the warnings."""
            warnings = [line if count == 1 else f"{line} ({count} times)" for line, count in self._warnings.items()]
            return "; ".join(self._errors or warnings) or "it does not say why"

    return Log()
