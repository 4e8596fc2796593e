"""A stand-in for `edged.engines.cuda.Gpu` on a machine without a GPU: host memory for device memory, every call done at
once, the kernel played by the CPU's letterbox. tests/engines/test_ort_cuda.py holds it to the real interface.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edged import clock
from edged.engines.cuda import CudaError
from edged.engines.engine import HostMemory, ModelTensors, TensorSpec
from edged.engines.gpu_memory import LANES, GpuMemory
from edged.engines.manifest import EngineFile, InputSpec
from edged.engines.ort import allocate, check_declared, probe
from edged.engines.ort_cuda import OrtCudaEngine
from edged.engines.scaler import Target
from edged.frames.frame import PixelFormat
from edged.vision.letterbox import Letterbox, Letterboxer

ALIGNMENT = 256
KINDS = {"OUT_U8": "uint8", "OUT_F16": "float16", "OUT_F32": "float32", "OUT_I8": "int8"}


class HostGpu:
    kind = "cpu"
    integrated = False

    def __init__(self, limit_bytes: int = 1 << 28, on_capture: Callable[[int], None] = lambda on: None) -> None:
        """`on_capture` is told when a capture begins (1) and ends (0), for a library that must not run meanwhile."""
        self.name, self.capability, self.stream = "host", (8, 7), 0
        self.limit_bytes = limit_bytes
        self.calls: list[str] = []
        self.held: dict[int, NDArray[np.uint8]] = {}
        self._on_capture = on_capture
        self._capturing = self._replaying = False

    def free_bytes(self) -> int:
        return self.limit_bytes - sum(memory.nbytes for memory in self.held.values())

    def device(self, size: int) -> int:
        if size > self.free_bytes():
            raise CudaError("CUDA: out of memory (2)", True)
        raw = np.zeros(size + ALIGNMENT, np.uint8)
        aligned = raw[-raw.ctypes.data % ALIGNMENT :][: max(size, 1)]
        self.held[aligned.ctypes.data] = aligned
        return int(aligned.ctypes.data)

    def pinned(self, shape: tuple[int, ...], dtype: str) -> tuple[NDArray[Any], int]:
        array = allocate(shape, dtype)
        return array, array.ctypes.data

    def give_back(self, address: int) -> None:
        del self.held[address]

    def reach(self, pixels: NDArray[np.uint8]) -> int | None:
        return pixels.ctypes.data

    def copy(self, to: int, source: int, size: int) -> None:
        self._do("copy", lambda: ctypes.memmove(to, source, size))

    def wait(self) -> None:
        self.calls.append("wait")

    def event(self) -> HostEvent:
        return HostEvent(self)

    def capture(self, work: Callable[[], None]) -> HostGraph:
        self._capturing = True
        self._on_capture(1)
        try:
            work()
        finally:
            self._capturing = False
            self._on_capture(0)
        return HostGraph(self, work)

    def kernel(self, source: str, name: str, defines: Sequence[str]) -> HostKernel:
        assert "letterbox" in source
        return HostKernel(self, KINDS[defines[0]])

    def close(self) -> None:
        self.held.clear()
        self.calls.append("close")

    def _do(self, what: str, work: Callable[[], Any]) -> None:
        if self._capturing:
            return
        if not self._replaying:
            self.calls.append(what)
        work()


class HostEvent:
    def __init__(self, gpu: HostGpu) -> None:
        self._gpu = gpu
        self._passed_ns = 0

    def record(self) -> None:
        self._gpu.calls.append("record")
        self._passed_ns = clock.mono_ns()

    def wait(self) -> None:
        self._gpu.calls.append("event wait")

    def since_ms(self, earlier: HostEvent) -> float:
        return (self._passed_ns - earlier._passed_ns) / clock.NS_PER_MS

    def close(self) -> None:
        self._gpu.calls.append("event close")


class HostGraph:
    def __init__(self, gpu: HostGpu, work: Callable[[], None]) -> None:
        self._gpu, self._work = gpu, work

    def launch(self) -> None:
        self._gpu.calls.append("launch")
        self._gpu._replaying = True
        try:
            self._work()
        finally:
            self._gpu._replaying = False

    def close(self) -> None:
        self._gpu.calls.append("graph close")


class HostKernel:
    def __init__(self, gpu: HostGpu, kind: str) -> None:
        self._gpu, self._kind = gpu, kind

    def bind(self, argument: ctypes.Structure) -> Callable[[tuple[int, int, int], tuple[int, int, int]], None]:
        job: Any = argument

        def launch(grid: tuple[int, int, int], block: tuple[int, int, int]) -> None:
            self._gpu._do("kernel", lambda: _letterbox(job, grid[2], self._kind))

        return launch

    def close(self) -> None:
        self._gpu.calls.append("kernel close")


def _letterbox(job: Any, count: int, kind: str) -> None:
    size = count * job.height * job.width * 3 * np.dtype(kind).itemsize
    given = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(job.out)).view(kind)
    shape = (count, job.height, job.width, 3)
    out = given.reshape(shape) if kind == "uint8" else np.empty(shape, np.uint8)
    letterboxer = Letterboxer(InputSpec("images", job.width, job.height, job.pad), [out])
    for index in range(count):
        p = job.pictures[index]
        source = (p.height * 3 // 2, p.width) if p.nv12 else (p.height, p.width, 3)
        pixels = np.ctypeslib.as_array((ctypes.c_uint8 * math.prod(source)).from_address(p.pixels)).reshape(source)
        box = Letterbox(p.width, p.height, p.left, p.top, p.scaled_width, p.scaled_height)
        letterboxer.fill(box, pixels, PixelFormat(PixelFormat.BGR24 + p.nv12), 0, index)
    if kind != "uint8":
        scale, bias = (np.array(list(of), np.float32).reshape(3, 1, 1) for of in (job.scale, job.bias))
        values = (out[..., ::-1] if job.swap else out).transpose(0, 3, 1, 2) * scale + bias
        values = np.clip(np.rint(values), -128, 127) if kind == "int8" else values
        given[:] = values.astype(kind).reshape(-1)


class HostGpuRuntime:
    """ONNX Runtime's way on a GPU, on this GPU's stand-in."""

    name: Literal["onnxruntime"] = "onnxruntime"
    device: Literal["cuda"] = "cuda"
    machine = "host"
    lanes = LANES
    concurrent = False

    def __init__(self, gpu: HostGpu | None = None) -> None:
        self.gpu = gpu or HostGpu()

    def refuses(self, file: EngineFile, max_batch: int) -> str | None:
        return None

    def memory(self, spec: InputSpec, image: TensorSpec, max_batch: int) -> GpuMemory:
        return GpuMemory(self.gpu, Target.of(spec), self.lanes, max_batch, image)  # type: ignore[arg-type]

    def load(self, content: bytes, file: str, tensors: ModelTensors, memory: HostMemory) -> OrtCudaEngine:
        assert isinstance(memory, GpuMemory)
        session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
        check_declared(session, file, tensors, memory.max_batch)
        return OrtCudaEngine(session, tensors.image, probe(session, file, tensors, memory.max_batch), memory)
