"""A stand-in for `edged.engines.cuda.Gpu` on a machine without a GPU: host memory for device memory, every call done at
once, the preprocessing kernel played by the CPU's letterbox. tests/test_host_gpu.py holds it to the real interface.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edged.engines.cuda import CudaError
from edged.engines.manifest import InputSpec
from edged.engines.ort import allocate
from edged.frames.frame import PixelFormat
from edged.vision.letterbox import Letterbox, Letterboxer

ALIGNMENT = 256


class HostGpu:
    kind = "cpu"
    integrated = False

    def __init__(self, limit_bytes: int = 1 << 30) -> None:
        self.name, self.capability, self.driver_version, self.stream = "host", (8, 7), 12060, 0
        self.limit_bytes = limit_bytes
        self.calls: list[str] = []
        self.held: dict[int, NDArray[np.uint8]] = {}
        self.capturing: list[Callable[[], None]] | None = None

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
        self.capturing = []
        try:
            work()
            return HostGraph(self.capturing)
        finally:
            self.capturing = None

    def kernel(self, source: str, name: str, defines: Sequence[str]) -> HostKernel:
        assert "letterbox" in source and defines == ("OUT_U8",)
        return HostKernel(self)

    def close(self) -> None:
        self.held.clear()
        self.calls.append("close")

    def _do(self, what: str, work: Callable[[], Any]) -> None:
        self.calls.append(what)
        if self.capturing is not None:
            self.capturing.append(work)
        else:
            work()


class HostEvent:
    def __init__(self, gpu: HostGpu) -> None:
        self._gpu = gpu

    def record(self) -> None:
        self._gpu.calls.append("record")

    def wait(self) -> None:
        self._gpu.calls.append("event wait")

    def close(self) -> None:
        self._gpu.calls.append("event close")


class HostGraph:
    def __init__(self, work: list[Callable[[], None]]) -> None:
        self._work = work

    def launch(self) -> None:
        for each in self._work:
            each()

    def close(self) -> None:
        self._work = []


class HostKernel:
    def __init__(self, gpu: HostGpu) -> None:
        self._gpu = gpu

    def bind(self, argument: ctypes.Structure) -> Callable[[tuple[int, int, int], tuple[int, int, int]], None]:
        job: Any = argument

        def launch(grid: tuple[int, int, int], block: tuple[int, int, int]) -> None:
            self._gpu._do("kernel", lambda: _letterbox(job, grid[2]))

        return launch

    def close(self) -> None:
        self._gpu.calls.append("kernel close")


def _letterbox(job: Any, count: int) -> None:
    size = count * job.height * job.width * 3
    out = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(job.out)).reshape(count, job.height, job.width, 3)
    letterboxer = Letterboxer(InputSpec("images", job.width, job.height, job.pad), [out])
    for index in range(count):
        p = job.pictures[index]
        shape = (p.height * 3 // 2, p.width) if p.nv12 else (p.height, p.width, 3)
        pixels = np.ctypeslib.as_array((ctypes.c_uint8 * int(np.prod(shape))).from_address(p.pixels)).reshape(shape)
        box = Letterbox(p.width, p.height, p.left, p.top, p.scaled_width, p.scaled_height)
        letterboxer.fill(box, pixels, PixelFormat.NV12 if p.nv12 else PixelFormat.BGR24, 0, index)
