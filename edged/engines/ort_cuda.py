"""ONNX Runtime on CUDA: sessions that work on our memory and our stream, each batch size a CUDA graph.

In: pictures put to the scaler (or the host's input buffer), a batch size. Out: outputs in pinned host memory. A batch
is one kernel launch for the pictures, one graph launch for the model, one copy for each output and one event, in order
on one stream: `submit` returns at once, `collect` sleeps until the event. All calls come from one thread.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
import onnxruntime as ort

from edged.engines import cuda
from edged.engines.cuda import CudaError, Gpu
from edged.engines.engine import HostMemory, ModelTensors, Outputs, TensorSpec
from edged.engines.gpu_memory import LANES, GpuEngine, GpuMemory
from edged.engines.manifest import EngineFile, InputSpec
from edged.engines.onnx_file import check_self_contained
from edged.engines.ort import EXPORT, FATAL, check_declared, first_line, one_line, open_session, probe, session_options
from edged.engines.scaler import Target
from edged.errors import EdgedError

_PROVIDER: Final = "CUDAExecutionProvider"


class OrtCudaRuntime:
    """Loads ONNX files for the GPU. There is no silent fall-back: what cannot compute there is refused."""

    name: Literal["onnxruntime"] = "onnxruntime"
    device: Literal["cuda"] = "cuda"
    lanes = LANES
    concurrent = False

    def __init__(self, threads: int) -> None:
        """Ask `why_not` first."""
        ort.disable_telemetry_events()
        self._threads = threads
        self._gpu = Gpu()
        self.machine = cuda.device_of(self._gpu)

    def refuses(self, file: EngineFile, max_batch: int) -> str | None:
        return None

    def memory(self, spec: InputSpec, image: TensorSpec, max_batch: int) -> GpuMemory:
        return GpuMemory(self._gpu, Target.of(spec), self.lanes, max_batch, image)

    def load(self, content: bytes, file: str, tensors: ModelTensors, memory: HostMemory) -> OrtCudaEngine:
        assert isinstance(memory, GpuMemory), "memory() made it"
        check_self_contained(content, file)
        free = self._gpu.free_bytes()
        session = self._session(content, file)
        check_declared(session, file, tensors, memory.max_batch)
        outputs = probe(session, file, tensors, memory.max_batch, _run_options(graph=-1))  # captured by nobody
        try:
            held = max(0, free - self._gpu.free_bytes())
            return OrtCudaEngine(session, tensors.image, outputs, memory, held)
        except CudaError as error:
            raise EdgedError(f"{file}: no memory on cuda for its batches: {error.message}", error.hint) from error

    def _session(self, content: bytes, file: str) -> ort.InferenceSession:
        options = session_options(self._threads)
        # CUDA has float kernels alone, and none for the int32 of the biases: weights are dequantized once, at load.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        settings = {
            "enable_cuda_graph": "1",
            "user_compute_stream": str(self._gpu.stream),
            # Trying all algorithms of every layer and batch size takes seconds a variant, gained nothing where it was
            # measured, and may choose others, with other roundings, at the next start.
            "cudnn_conv_algo_search": "HEURISTIC",
        }
        hint = 'set [engine] device = "cpu" to run it there; or ' + EXPORT
        try:
            session = open_session(content, options, [(_PROVIDER, settings)])
        except Exception as error:  # the binding raises a dozen unrelated types
            why = f"ONNX Runtime refuses it on cuda: {first_line(error)}"
            if "graph capture feature" in str(error):  # so nothing falls back to the CPU unseen
                why = "not every node of it can compute on CUDA"
            raise EdgedError(f"{file}: {why}", hint) from error
        if _PROVIDER not in session.get_providers():
            raise EdgedError(f"{file}: ONNX Runtime did not take it to CUDA", 'set [engine] device = "cpu"')
        return session


def why_not() -> str | None:
    """What keeps this from working here, or None. A provider in the list proves a wheel, not a driver: so allocate."""
    if _PROVIDER not in ort.get_available_providers():
        return f"this onnxruntime {ort.__version__} is built without CUDA"
    if (why := cuda.why_not()) is not None:
        return why
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):  # it prints what it does not find
            if hasattr(ort, "preload_dlls"):  # from 1.21 on: NVIDIA's wheels, where they are installed
                ort.preload_dlls()
        ort.OrtValue.ortvalue_from_shape_and_type([1], np.uint8, "cuda", 0)
    except Exception as error:  # the binding raises a dozen unrelated types
        return f"CUDA does not start: {one_line(printed.getvalue()) or first_line(error)}"
    return None


@dataclass(frozen=True)
class _Bound:
    """One batch size on one lane: the session's binding, and (to, from, bytes) of each output."""

    binding: Any
    options: Any
    copies: tuple[tuple[int, int, int], ...]
    outputs: Outputs


class OrtCudaEngine(GpuEngine):
    """One session with a binding and a graph per lane and batch size."""

    def __init__(
        self,
        session: ort.InferenceSession,
        image: TensorSpec,
        outputs: tuple[TensorSpec, ...],
        memory: GpuMemory,
        memory_bytes: int | None = None,
    ) -> None:
        """`memory_bytes`: what the GPU had less of once the session was made and had run a frame."""
        super().__init__(image, outputs, memory)
        self.memory_bytes = memory_bytes
        self._session = session
        self._bound = [[self._bind(lane, batch) for batch in range(1, self.max_batch + 1)] for lane in range(LANES)]

    def submit(self, lane: int, batch: int) -> None:
        """Put the batch on the stream and return."""
        bound = self._bound[lane][batch - 1]
        self._fill(lane, batch)
        try:
            self._session.run_with_iobinding(bound.binding, bound.options)
        except Exception as error:  # the binding raises a dozen unrelated types
            raise EdgedError(f"ONNX Runtime: {first_line(error)}") from error
        for to, source, size in bound.copies:
            self._gpu.copy(to, source, size)
        self._submitted(lane, bound.outputs)

    def close(self) -> None:
        self._gpu.wait()
        self._close_events()
        self._bound.clear()
        del self._session

    def _bind(self, lane: int, batch: int) -> _Bound:
        binding, kind = self._session.io_binding(), self._gpu.kind
        (image,) = self.inputs
        picture = self._memory.scaler.inputs[lane]
        binding.bind_input(image.name, kind, 0, np.dtype(image.dtype).type, [batch, *image.shape], picture)
        copies, outputs = [], {}
        for spec in self.outputs:
            address, host = self._memory.device_output(lane, spec), self._memory.output(lane, spec)[:batch]
            binding.bind_output(spec.name, kind, 0, np.dtype(spec.dtype).type, [batch, *spec.shape], address)
            copies.append((host.ctypes.data, address, host.nbytes))
            outputs[spec.name] = host
        # a CUDA graph is bound to its addresses and shapes: one per lane and batch size, captured by the first run
        options = _run_options(graph=lane * 64 + batch)
        return _Bound(binding, options, tuple(copies), MappingProxyType(outputs))


def _run_options(graph: int) -> Any:
    options = ort.RunOptions()
    options.log_severity_level = FATAL
    options.add_run_config_entry("gpu_graph_id", str(graph))
    if graph >= 0:  # our event tells when it is done
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    return options
