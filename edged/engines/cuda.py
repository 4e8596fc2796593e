"""The only door to CUDA: one GPU, one stream, and what is made on it. On cuda.bindings, 12.9.2 and later or 13.

In: sizes, addresses, source text. Out: memory, events, graphs and kernels, each freed by its owner's `close` and never
on the frame path. Every call's status is checked and becomes a CudaError. All calls come from the engine loop's thread,
except for probing. Older bindings hold the GIL while they wait, which would stop every other thread: hence the version.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edged.engines.device_profile import device_name
from edged.errors import EdgedError


class _Bindings:
    """A module of cuda.bindings, loaded at its first use: a machine without a GPU is spared 0.1 s and 8 MB. After that
    its names are found here at once. ImportError if it is not installed: `why_not` says so."""

    def __init__(self, module: str) -> None:
        self._module = f"cuda.bindings.{module}"

    def __getattr__(self, name: str) -> Any:
        found = vars(importlib.import_module(self._module))
        vars(self).update(found)
        try:
            return found[name]
        except KeyError:
            raise AttributeError(f"{self._module} has no {name}") from None


driver: Any = _Bindings("driver")
nvrtc: Any = _Bindings("nvrtc")
runtime: Any = _Bindings("runtime")

ALIGNMENT: Final = 256
"""What TensorRT asks of an address; CUDA gives it."""
_INSTALL: Final = "pip install 'edged[cuda]', or on a Jetson 'edged[jetpack6]' or 'edged[jetpack7]'"


class CudaError(EdgedError):
    """A call of CUDA failed; `out_of_memory` says whether that was why."""

    def __init__(self, message: str, out_of_memory: bool = False) -> None:
        super().__init__(message, "lower [engine] max_batch, or choose a smaller model" if out_of_memory else "")
        self.out_of_memory = out_of_memory


def why_not() -> str | None:
    """What keeps CUDA from working here, or None. Costs nothing where there is no driver."""
    try:
        status, count = runtime.cudaGetDeviceCount()
    except ImportError:
        return f"the CUDA bindings for Python are not installed: {_INSTALL}"
    except RuntimeError as error:  # the bindings cannot find the driver's library
        return f"the NVIDIA driver is not here: {_one_line(error)}"
    if status == runtime.cudaError_t.cudaErrorInsufficientDriver:
        version = int(check(runtime.cudaDriverGetVersion()))
        if not version:
            return "there is no NVIDIA driver here"
        return f"the NVIDIA driver is for CUDA {_version(version)}, older than the CUDA bindings for Python: {_INSTALL}"
    if status != 0:
        return f"the NVIDIA driver says: {_said(status)}"
    if not count:
        return "there is no NVIDIA GPU here"
    try:
        nvrtc.nvrtcVersion()
    except RuntimeError as error:  # a library of its own, of the bindings' major version
        return f"CUDA's compiler for kernels (NVRTC) is not here: {_one_line(error)}; {_INSTALL}"
    return None


def device_of(gpu: Gpu) -> str:
    """What plans and profiles are made for: the machine where the GPU is part of it, else the card."""
    return device_name() if gpu.integrated else gpu.name


def check(result: tuple[Any, ...]) -> Any:
    """The value of a call of the runtime API, or CudaError. Values come one alone, or as a tuple."""
    status = result[0]
    if status:
        memory = status == runtime.cudaError_t.cudaErrorMemoryAllocation
        raise CudaError(f"CUDA: {_said(status)}", memory)
    return result[1] if len(result) == 2 else result[1:]


class Gpu:
    """GPU 0 of this process, and the one stream that all work goes to: so variants that share memory never overlap."""

    kind: Final = "cuda"

    def __init__(self) -> None:
        """CudaError where it cannot be had; ask `why_not` first for the sentence."""
        attribute = runtime.cudaDeviceAttr
        check(runtime.cudaSetDeviceFlags(runtime.cudaDeviceScheduleBlockingSync))  # who waits sleeps, not spins
        check(runtime.cudaSetDevice(0))

        def ask(name: str) -> int:
            return int(check(runtime.cudaDeviceGetAttribute(getattr(attribute, name), 0)))

        self.name = check(runtime.cudaGetDeviceProperties(0)).name.split(b"\0")[0].decode()
        self.capability = (ask("cudaDevAttrComputeCapabilityMajor"), ask("cudaDevAttrComputeCapabilityMinor"))
        self.integrated = bool(ask("cudaDevAttrIntegrated"))
        """Whether host and GPU share one memory, as on a Jetson: then a mapped picture is read where it lies."""
        self._registers = bool(ask("cudaDevAttrHostRegisterSupported"))
        self.stream = int(check(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking)))
        self._memory: set[int] = set()
        self._rings: dict[int, int | None] = {}

    def free_bytes(self) -> int:
        return int(check(runtime.cudaMemGetInfo())[0])

    # --- memory -------------------------------------------------------------------------------------------------------

    def device(self, size: int) -> int:
        """The address of `size` bytes of the GPU's own memory, zeroed."""
        address = int(check(runtime.cudaMalloc(max(size, ALIGNMENT))))
        self._memory.add(address)
        check(runtime.cudaMemsetAsync(address, 0, max(size, ALIGNMENT), self.stream))
        return address

    def pinned(self, shape: tuple[int, ...], dtype: str) -> tuple[NDArray[Any], int]:
        """Zeroed host memory that the GPU can reach: as an array, and its address for the GPU. It is freed with the
        last view of the array, so that no result points into memory that is gone."""
        count = int(np.prod(shape))
        size = max(1, count * np.dtype(dtype).itemsize)
        flags = runtime.cudaHostAllocMapped | runtime.cudaHostAllocPortable
        host = int(check(runtime.cudaHostAlloc(size, flags)))
        held = (ctypes.c_uint8 * size).from_address(host)
        weakref.finalize(held, lambda: check(runtime.cudaFreeHost(host))).atexit = False
        raw = np.ctypeslib.as_array(held)
        raw[:] = 0
        array = raw.view(dtype)[:count].reshape(shape)
        return array, int(check(runtime.cudaHostGetDevicePointer(host, 0)))

    def give_back(self, address: int) -> None:
        """Free one piece of `device` memory, for who wants a larger one. Waits for the GPU."""
        self.wait()
        self._memory.remove(address)
        check(runtime.cudaFree(address))

    def reach(self, pixels: NDArray[np.uint8]) -> int | None:
        """The GPU's address of `pixels`, part of a larger mapping (a camera's ring) that is registered with the GPU on
        first sight and let go before it is unmapped. None where this GPU or this mapping does not allow that."""
        root = pixels.base if isinstance(pixels.base, np.ndarray) else pixels
        start = root.ctypes.data
        if start not in self._rings:
            self._rings[start] = self._register(root, start)
            weakref.finalize(root, self._forget, start).atexit = False
        mapped = self._rings[start]
        return None if mapped is None else mapped + pixels.ctypes.data - start

    def _register(self, root: NDArray[np.uint8], start: int) -> int | None:
        if not self._registers:
            return None
        for flags in (
            runtime.cudaHostRegisterMapped | runtime.cudaHostRegisterReadOnly,
            runtime.cudaHostRegisterMapped,
        ):
            if runtime.cudaHostRegister(start, root.nbytes, flags)[0] == 0:
                return int(check(runtime.cudaHostGetDevicePointer(start, 0)))
            runtime.cudaGetLastError()  # else the next call would tell of it
        return None

    def _forget(self, start: int) -> None:
        if self._rings.pop(start, None) is not None:
            self.wait()
            check(runtime.cudaHostUnregister(start))

    # --- work ---------------------------------------------------------------------------------------------------------

    def copy(self, to: int, source: int, size: int) -> None:
        """Copy in stream order, between any two of host and GPU."""
        check(runtime.cudaMemcpyAsync(to, source, size, runtime.cudaMemcpyKind.cudaMemcpyDefault, self.stream))

    def wait(self) -> None:
        check(runtime.cudaStreamSynchronize(self.stream))

    def event(self) -> Event:
        return Event(self.stream)

    def capture(self, work: Callable[[], None]) -> Graph:
        """What `work` puts on the stream, as a graph; nothing of it runs. CudaError if it cannot be captured; the
        stream is whole again then."""
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        check(runtime.cudaStreamBeginCapture(self.stream, mode))
        try:
            work()
        except BaseException:
            status, graph = runtime.cudaStreamEndCapture(self.stream)  # fails where `work` has spoilt the capture
            if not status:
                runtime.cudaGraphDestroy(graph)
            runtime.cudaGetLastError()  # else the next call would tell of it
            raise
        status, graph = runtime.cudaStreamEndCapture(self.stream)
        if status:
            runtime.cudaGetLastError()
        return Graph(check((status, graph)), self.stream)

    def kernel(self, source: str, name: str, defines: Sequence[str]) -> Kernel:
        """The kernel `name`, compiled for this GPU from CUDA C++."""
        return Kernel(_compile(source, name, defines, self.capability), name, self.stream)

    def close(self) -> None:
        """Free all device memory. What was made on this GPU must be closed before; pinned arrays stay valid."""
        self.wait()
        for start in list(self._rings):
            self._forget(start)
        while self._memory:
            check(runtime.cudaFree(self._memory.pop()))
        check(runtime.cudaStreamDestroy(self.stream))


class Event:
    """A mark in the stream with the time at which the GPU passed it; waiting for it sleeps."""

    def __init__(self, stream: int) -> None:
        self._event = check(runtime.cudaEventCreateWithFlags(runtime.cudaEventBlockingSync))
        self._stream = stream

    def record(self) -> None:
        check(runtime.cudaEventRecord(self._event, self._stream))

    def wait(self) -> None:
        check(runtime.cudaEventSynchronize(self._event))

    def since_ms(self, earlier: Event) -> float:
        """The GPU's time between two marks that it has passed."""
        return float(check(runtime.cudaEventElapsedTime(earlier._event, self._event)))

    def close(self) -> None:
        check(runtime.cudaEventDestroy(self._event))


class Graph:
    """Captured work, to be launched again and again."""

    def __init__(self, graph: Any, stream: int) -> None:
        self._stream = stream
        try:
            self._exec = check(runtime.cudaGraphInstantiate(graph, 0))
        finally:
            check(runtime.cudaGraphDestroy(graph))
        check(runtime.cudaGraphUpload(self._exec, stream))

    def launch(self) -> None:
        check(runtime.cudaGraphLaunch(self._exec, self._stream))

    def close(self) -> None:
        check(runtime.cudaGraphExecDestroy(self._exec))


class Kernel:
    """One compiled kernel. Its one argument is a ctypes structure, read again at each launch."""

    def __init__(self, cubin: bytes, name: str, stream: int) -> None:
        self._module = _check_driver(driver.cuModuleLoadData(cubin))
        self._function = _check_driver(driver.cuModuleGetFunction(self._module, name.encode()))
        self._stream = stream

    def bind(self, argument: ctypes.Structure) -> Callable[[tuple[int, int, int], tuple[int, int, int]], None]:
        """A launch of (grid, block) with `argument`, which may be changed between launches."""
        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(argument))
        function, stream, address = self._function, self._stream, ctypes.addressof(pointers)

        def launch(grid: tuple[int, int, int], block: tuple[int, int, int], keep: Any = (argument, pointers)) -> None:
            _check_driver(driver.cuLaunchKernel(function, *grid, *block, 0, stream, address, 0))

        return launch

    def close(self) -> None:
        _check_driver(driver.cuModuleUnload(self._module))


@contextlib.contextmanager
def _program(source: str, name: str) -> Iterator[Any]:
    program = _check_nvrtc(nvrtc.nvrtcCreateProgram(source.encode(), name.encode(), 0, [], []))
    try:
        yield program
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _compile(source: str, name: str, defines: Sequence[str], capability: tuple[int, int]) -> bytes:
    options = [f"--gpu-architecture=sm_{capability[0]}{capability[1]}", "--std=c++17", *(f"-D{d}" for d in defines)]
    with _program(source, name + ".cu") as program:
        encoded = [option.encode() for option in options]
        if nvrtc.nvrtcCompileProgram(program, len(encoded), encoded)[0]:
            log = b" " * int(_check_nvrtc(nvrtc.nvrtcGetProgramLogSize(program)))
            nvrtc.nvrtcGetProgramLog(program, log)
            raise CudaError(f"the kernel {name} does not compile here: {_one_line(log.decode(errors='replace'))}")
        cubin = b" " * int(_check_nvrtc(nvrtc.nvrtcGetCUBINSize(program)))
        _check_nvrtc(nvrtc.nvrtcGetCUBIN(program, cubin))  # writes into the bytes
        return cubin


def _check_driver(result: tuple[Any, ...]) -> Any:
    if result[0]:
        text = driver.cuGetErrorString(result[0])[1]
        raise CudaError(f"CUDA: {text.decode() if text else result[0]}")
    return result[1] if len(result) == 2 else None


def _check_nvrtc(result: tuple[Any, ...]) -> Any:
    if result[0]:
        raise CudaError(f"CUDA's compiler: {nvrtc.nvrtcGetErrorString(result[0])[1].decode()}")
    return result[1] if len(result) == 2 else None


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _said(status: Any) -> str:
    text = runtime.cudaGetErrorString(status)[1]
    return f"{text.decode() if text else 'an error'} ({int(status)})"


def _one_line(value: object) -> str:
    return (str(value).strip("\0 \n").splitlines() or [type(value).__name__])[0][:300]
