"""ONNX Runtime on the CPU, and on CUDA where the provider is present.

In: the verified bytes of an ONNX file. Out: an Engine over memory that is bound once, for each batch size: a frame
costs no allocation and no copy on the CPU; on CUDA it costs one copy each way, the outputs through a small array, and
each batch size is a CUDA graph, captured by its first run. All calls come from one thread.

`submit` runs the inference to its end, hence one lane. The CPU has no device that could work ahead of the host. On CUDA
ONNX Runtime can start a graph without waiting, but then waits only for all that was started: with a second lane the
first batch would be done no earlier than the second.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edged.config import EngineConfig
from edged.engines.engine import HostMemory, ModelTensors, Outputs, TensorSpec
from edged.engines.onnx_file import check_self_contained
from edged.errors import EdgedError, UsageError

Device = Literal["cpu", "cuda"]

_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(float16)": "float16"}
_ALIGNMENT = 64  # one cache line, and what the widest vector loads want
_MAX_OUTPUT_BYTES = 64 << 20  # of one frame
_FATAL = 4
_CUDA_PROVIDER = "CUDAExecutionProvider"
_SLEEP_WHILE_WAITING = 4  # CU_CTX_SCHED_BLOCKING_SYNC
_CUDA_OPTIONS = {
    "enable_cuda_graph": "1",
    # Trying all algorithms of every layer and batch size takes seconds a variant, gained nothing where it was measured,
    # and may choose others, with other roundings, at the next start.
    "cudnn_conv_algo_search": "HEURISTIC",
}
_WHERE_IT_FAILED = re.compile(r"(\[ONNXRuntimeError\] : \d+ : \w+ : )?(/\S+:\d+ .*?\) )?")
_CUDA_FAILURE = re.compile(r"CUDA failure \d+: [^;\n]*[^;\s]")
_EXPORT = "export the model again as the manifest declares it, or mend the manifest"


class OrtRuntime:
    """Loads ONNX files for one device. There is no silent fall-back: what was asked for runs, or the reason is said."""

    name: Literal["onnxruntime"] = "onnxruntime"
    lanes = 1

    def __init__(self, device: Device, threads: int) -> None:
        ort.disable_telemetry_events()  # what runs on a mast reports to its owner alone
        _share_arena()
        self.device: Device = device
        self._threads = threads

    @classmethod
    def open(cls, config: EngineConfig) -> OrtRuntime:
        """`auto` takes CUDA if it works here. UsageError if `cuda` is asked for and cannot be had."""
        if config.device == "cpu":
            return cls("cpu", config.threads)
        missing = _why_no_cuda()
        if missing is None:
            return cls("cuda", config.threads)
        if config.device == "cuda":
            raise UsageError(
                f'[engine] device = "cuda": {missing}',
                "install the NVIDIA driver, and onnxruntime-gpu[cuda,cudnn] in place of onnxruntime; "
                'or set "auto", which takes the CPU then',
            )
        return cls("cpu", config.threads)

    def allocate(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Zeroed host memory that begins on a cache line."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        raw = np.zeros(size + _ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % _ALIGNMENT
        return raw[start : start + size].view(dtype).reshape(shape)

    def load(self, content: bytes, file: str, tensors: ModelTensors, memory: HostMemory) -> OrtEngine:
        check_self_contained(content, file)
        session = self._session(content, file)
        _check_declared(session, file, tensors, memory.max_batch)
        outputs = _probe(session, file, tensors, self.device)
        try:
            return OrtEngine(session, tensors.image, outputs, memory, self.device)
        except Exception as error:  # the binding raises a dozen unrelated types
            hint = "lower [engine] max_batch, or choose a smaller model"
            raise EdgedError(
                f"{file}: no memory on {self.device} for its batches: {_first_line(error)}", hint
            ) from error

    def _session(self, content: bytes, file: str) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        # A spinning pool burns ten times the CPU of the inference itself, and every resident variant has a pool.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.log_severity_level = _FATAL  # its errors come back as exceptions and are told once, by us
        provider: Any = "CPUExecutionProvider"
        hint = _EXPORT
        if self.device == "cuda":
            # CUDA has float kernels alone, and none for the int32 of the biases: weights are dequantized once, at load.
            options.add_session_config_entry("session.disable_quant_qdq", "1")
            provider = (_CUDA_PROVIDER, _CUDA_OPTIONS)
            hint = 'set [engine] device = "cpu" to run it there; or ' + hint
        try:
            session = ort.InferenceSession(content, options, providers=[provider], enable_fallback=0)
        except Exception as error:  # the binding raises a dozen unrelated types
            why = f"ONNX Runtime refuses it on {self.device}: {_first_line(error)}"
            if "graph capture feature" in str(error):  # so nothing falls back to the CPU unseen
                why = "not every node of it can compute on CUDA"
            raise EdgedError(f"{file}: {why}", hint) from error
        if self.device == "cuda" and _CUDA_PROVIDER not in session.get_providers():
            raise EdgedError(f"{file}: ONNX Runtime did not take it to CUDA", 'set [engine] device = "cpu"')
        return session


@dataclass(frozen=True)
class _Bound:
    """One batch size, bound. `image` and `outputs` are host memory; where the session works on the memory of a device,
    `device_image` and `device_outputs` are what they are copied to and from."""

    binding: Any
    options: Any
    image: NDArray[np.uint8]
    outputs: Outputs
    device_image: Any = None
    device_outputs: tuple[tuple[str, Any], ...] = ()


class OrtEngine:
    """One session with a binding per batch size, all over the same host memory.

    On "cpu" the session works on the host memory itself, unless `staged` asks for the copies all the same: so the way
    over a device is tested without one.
    """

    lanes = 1
    memory_bytes: int | None = None  # ONNX Runtime does not tell

    def __init__(
        self,
        session: ort.InferenceSession,
        image: TensorSpec,
        outputs: tuple[TensorSpec, ...],
        memory: HostMemory,
        device: Device,
        staged: bool = False,
    ) -> None:
        self.inputs = (image,)
        self.outputs = outputs
        self.max_batch = memory.max_batch
        self._session = session
        self._memory = memory
        self._device = device
        self._staged = staged or device != "cpu"
        self._bound = [self._bind(batch) for batch in range(1, self.max_batch + 1)]
        self._done: Outputs | None = None

    def input_buffer(self, lane: int) -> NDArray[np.uint8]:
        return self._memory.input(lane)

    def submit(self, lane: int, batch: int) -> None:
        """Run the first `batch` frames to the end."""
        bound = self._bound[batch - 1]
        try:
            if bound.device_image is not None:
                bound.device_image.update_inplace(bound.image)
            self._session.run_with_iobinding(bound.binding, bound.options)
            for name, device in bound.device_outputs:
                np.copyto(bound.outputs[name], device.numpy())
        except Exception as error:  # the binding raises a dozen unrelated types
            raise EdgedError(f"ONNX Runtime: {_first_line(error)}") from error
        self._done = bound.outputs

    def collect(self, lane: int) -> Outputs:
        if self._done is None:
            raise EdgedError("nothing to collect: submit first")
        outputs, self._done = self._done, None
        return outputs

    def close(self) -> None:
        self._bound.clear()
        del self._session

    def _bind(self, batch: int) -> _Bound:
        binding = self._session.io_binding()
        (spec,) = self.inputs
        image = self._memory.input(0)[:batch]
        outputs = {spec.name: self._memory.output(0, spec)[:batch] for spec in self.outputs}
        # a CUDA graph is bound to its addresses and shapes: one per batch size, captured by the first run
        options = _run_options(self._device, graph_id=batch)
        if not self._staged:
            binding.bind_ortvalue_input(spec.name, ort.OrtValue.ortvalue_from_numpy(image))  # shares the memory
            for name, array in outputs.items():
                binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array))
            return _Bound(binding, options, image, MappingProxyType(outputs))
        device_image = self._on_device(image)
        binding.bind_ortvalue_input(spec.name, device_image)
        device_outputs = tuple((name, self._on_device(array)) for name, array in outputs.items())
        for name, value in device_outputs:
            binding.bind_ortvalue_output(name, value)
        return _Bound(binding, options, image, MappingProxyType(outputs), device_image, device_outputs)

    def _on_device(self, like: NDArray[Any]) -> Any:
        return ort.OrtValue.ortvalue_from_shape_and_type(list(like.shape), like.dtype.type, self._device, 0)


@functools.cache
def _share_arena() -> None:
    """One CPU arena for all sessions of the process: variants then work in the same, warm memory, which makes the first
    inference after a switch some 5 % faster and keeps the memory flat when a bundle is loaded again."""
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, None)


def _run_options(device: Device, graph_id: int) -> Any:
    """None on the CPU: the binding looks for a graph id in whatever it is given, and not finding one costs 30 us."""
    if device == "cpu":
        return None
    options = ort.RunOptions()
    options.log_severity_level = _FATAL
    options.add_run_config_entry("gpu_graph_id", str(graph_id))
    return options


def _why_no_cuda() -> str | None:
    """What keeps CUDA from working here, or None. A provider in the list proves a wheel, not a driver: so allocate."""
    if _CUDA_PROVIDER not in ort.get_available_providers():
        return f"this onnxruntime {ort.__version__} is built without CUDA"
    why = _start_driver()
    if why is not None:
        return why
    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(told):  # it prints what it does not find
            if hasattr(ort, "preload_dlls"):  # from 1.21 on: NVIDIA's wheels, where they are installed
                ort.preload_dlls()
        ort.OrtValue.ortvalue_from_shape_and_type([1], np.uint8, "cuda", 0)
    except Exception as error:  # the binding raises a dozen unrelated types
        return f"CUDA does not start: {_one_line(told.getvalue()) or _first_line(error)}"
    return None


@functools.cache
def _start_driver() -> str | None:
    """Have the threads that wait for the GPU sleep, not spin: a matter of the driver, to be settled before anybody uses
    it, and ONNX Runtime has no word for it. The reason if there is no driver or no GPU."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return f"the NVIDIA driver is not here: {error}"
    device, said = ctypes.c_int(), ctypes.c_char_p()
    status = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDevicePrimaryCtxSetFlags_v2(device, _SLEEP_WHILE_WAITING)
    )
    if status == 0:
        return None
    driver.cuGetErrorString(status, ctypes.byref(said))
    return f"the NVIDIA driver says: {(said.value or b'error').decode()} ({status})"


def _check_declared(session: ort.InferenceSession, file: str, tensors: ModelTensors, max_batch: int) -> None:
    """What the graph declares against the manifest: names, types, and every side that the graph fixes."""
    inputs, image = session.get_inputs(), tensors.image
    if [node.name for node in inputs] != [image.name]:
        has = ", ".join(node.name for node in inputs) or "none"
        raise EdgedError(f"{file}: its inputs are {has}; the manifest's only input is {image.name}", _EXPORT)
    _check_node(inputs[0], file, "input", image, (image.dtype,), max_batch)
    outputs = {node.name: node for node in session.get_outputs()}
    for spec in tensors.outputs:
        if spec.name not in outputs:
            raise EdgedError(
                f"{file}: it has no output {spec.name}, which the decoder reads; it has {', '.join(outputs)}", _EXPORT
            )
        _check_node(outputs[spec.name], file, "output", spec, ("float32", "float16"), max_batch)


def _check_node(node: Any, file: str, role: str, spec: TensorSpec, dtypes: tuple[str, ...], max_batch: int) -> None:
    dtype = _DTYPES.get(node.type, node.type)
    if dtype not in dtypes:
        raise EdgedError(f"{file}: {role} {spec.name} is {dtype}; expected {' or '.join(dtypes)}", _EXPORT)
    batch, *sides = node.shape or [None]
    fits = len(sides) == len(spec.shape) and all(
        want == -1 or not isinstance(side, int) or side == want for side, want in zip(sides, spec.shape, strict=True)
    )
    if not fits:
        raise EdgedError(
            f"{file}: {role} {spec.name} is {_shape(node.shape)}; expected {_shape(['N', *spec.shape])}", _EXPORT
        )
    if isinstance(batch, int) and not batch == 1 == max_batch:
        raise EdgedError(
            f"{file}: {role} {spec.name} has the fixed batch {batch}; expected any batch up to {max_batch}",
            "export the model with a dynamic batch axis, or set max_batch = 1 in the manifest",
        )


def _probe(session: ort.InferenceSession, file: str, tensors: ModelTensors, device: Device) -> tuple[TensorSpec, ...]:
    """One run of one frame: what the outputs really are, whatever the graph declares. Their memory follows from it."""
    names = [spec.name for spec in tensors.outputs]
    picture = np.zeros((1, *tensors.image.shape), tensors.image.dtype)
    try:
        # graph -1: captured by nobody
        arrays = session.run(names, {tensors.image.name: picture}, _run_options(device, graph_id=-1))
    except Exception as error:  # the binding raises a dozen unrelated types
        raise EdgedError(f"{file}: ONNX Runtime cannot run it: {_first_line(error)}", _EXPORT) from error
    found = []
    for spec, array in zip(tensors.outputs, arrays, strict=True):
        expected = (1, *spec.shape)
        if array.ndim != len(expected) or any(
            want not in (-1, have) for have, want in zip(array.shape, expected, strict=True)
        ):
            raise EdgedError(
                f"{file}: output {spec.name} comes out as {_shape(array.shape)}; expected {_shape(expected)}", _EXPORT
            )
        if array.nbytes > _MAX_OUTPUT_BYTES:
            raise EdgedError(f"{file}: output {spec.name} has {array.nbytes} bytes a frame", "choose a smaller model")
        found.append(TensorSpec(spec.name, array.dtype.name, array.shape[1:]))
    return tuple(found)


def _shape(sides: Any) -> str:
    return "[" + ", ".join("any" if side in (-1, None) else str(side) for side in sides or []) + "]"


def _first_line(error: Exception) -> str:
    """What is wrong, of messages that run over many lines and begin with the place in ONNX Runtime's source."""
    failure = _CUDA_FAILURE.search(str(error))
    text = failure.group() if failure else _WHERE_IT_FAILED.sub("", str(error), count=1)
    return _one_line(text) or type(error).__name__


def _one_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0][:300]
