"""ONNX Runtime on the CPU, and what both of its devices share: sessions and the checks of a file against its manifest.

In: the verified bytes of an ONNX file. Out: an Engine over memory that is bound once, for each batch size: a frame
costs no allocation and no copy. `submit` runs the inference to its end, hence one lane: a CPU has no device that could
work ahead of the host. All calls come from one thread.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edged import clock
from edged.engines.device_profile import device_name
from edged.engines.engine import HostMemory, ModelTensors, Outputs, TensorSpec
from edged.engines.manifest import EngineFile, InputSpec
from edged.engines.onnx_file import check_self_contained, without_weights
from edged.errors import EdgedError, UsageError
from edged.process_memory import give_back_freed, own_bytes

_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int8)": "int8"}
_ALIGNMENT = 64  # one cache line, and what the widest vector loads want
_MAX_OUTPUT_BYTES = 64 << 20  # of one frame
FATAL: Final = 4
"""ONNX Runtime's log level: its errors arrive as exceptions, which edged reports once."""
_WHERE_IT_FAILED = re.compile(r"(\[ONNXRuntimeError\] : \d+ : \w+ : )?(/\S+:\d+ .*?\) )?")
_CUDA_FAILURE = re.compile(r"CUDA failure \d+: [^;\n]*[^;\s]")
_WEIGHTS: Final = "weights"
EXPORT: Final = "export the model again as the manifest declares it, or fix the manifest"


class OrtRuntime:
    """Loads ONNX files for the CPU."""

    name: Literal["onnxruntime"] = "onnxruntime"
    device: Literal["cpu"] = "cpu"
    lanes = 1
    concurrent = True

    def __init__(self, threads: int) -> None:
        ort.disable_telemetry_events()  # what runs on a mast reports to its owner alone
        _share_arena()
        self._threads = threads
        self.machine = device_name()

    def refuses(self, file: EngineFile, max_batch: int) -> str | None:
        return None

    def memory(self, spec: InputSpec, image: TensorSpec, max_batch: int) -> HostMemory:
        """UsageError for an input that is not the picture's bytes."""
        if not spec.raw:
            raise UsageError(
                f"the bundle's input is {spec.dtype}, which only a GPU prepares",
                "package it with the normalisation inside the graph, or run it on a GPU",
            )
        return HostMemory(allocate, self.lanes, max_batch, image)

    def load(self, content: bytes, file: str, tensors: ModelTensors, memory: HostMemory) -> OrtEngine:
        check_self_contained(content, file)
        give_back_freed()
        before = own_bytes()
        try:
            session = open_session(content, session_options(self._threads), ["CPUExecutionProvider"])
        except Exception as error:  # the binding raises a dozen unrelated types
            raise EdgedError(f"{file}: ONNX Runtime refuses it on cpu: {first_line(error)}", EXPORT) from error
        give_back_freed()
        after = own_bytes()
        held = None if before is None or after is None else max(0, after - before)
        check_declared(session, file, tensors, memory.max_batch)
        outputs = probe(session, file, tensors, memory.max_batch)
        try:
            return OrtEngine(session, tensors.image, outputs, memory, held)
        except Exception as error:  # the binding raises a dozen unrelated types
            hint = "lower [engine] max_batch, or choose a smaller model"
            raise EdgedError(f"{file}: no memory on cpu for its batches: {first_line(error)}", hint) from error


def allocate(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Zeroed host memory that begins on a cache line."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def session_options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # One block a run and batch size, which a shared arena cannot reuse for others: 6 MB more for the demo, no faster.
    options.enable_mem_pattern = False
    # A spinning pool burns ten times the CPU of the inference itself, and every resident variant has a pool.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.log_severity_level = FATAL
    return options


@dataclass(frozen=True)
class _Bound:
    """One batch size, bound to host memory."""

    binding: Any
    outputs: Outputs


class OrtEngine:
    """One session with a binding per batch size, all over the same host memory."""

    lanes = 1

    def __init__(
        self,
        session: ort.InferenceSession,
        image: TensorSpec,
        outputs: tuple[TensorSpec, ...],
        memory: HostMemory,
        memory_bytes: int | None = None,
    ) -> None:
        """`memory_bytes`: by how much the process grew when the session was made; ONNX Runtime does not report it."""
        self.memory_bytes = memory_bytes
        self.inputs = (image,)
        self.outputs = outputs
        self.max_batch = memory.max_batch
        self._session = session
        self._done: Outputs | None = None
        self._took_ms = 0.0
        self.bind(memory)

    def bind(self, memory: HostMemory) -> None:
        self._memory = memory
        self._bound = [self._bind(batch) for batch in range(1, self.max_batch + 1)]

    def input_buffer(self, lane: int) -> NDArray[np.uint8]:
        return self._memory.input(lane)

    def submit(self, lane: int, batch: int) -> None:
        """Run the first `batch` frames to the end."""
        bound, begun_ns = self._bound[batch - 1], clock.mono_ns()
        self._run(bound)
        self._took_ms = (clock.mono_ns() - begun_ns) / clock.NS_PER_MS
        self._done = bound.outputs

    def collect(self, lane: int) -> Outputs:
        if self._done is None:
            raise EdgedError("nothing to collect: submit first")
        outputs, self._done = self._done, None
        return outputs

    def took_ms(self, lane: int) -> float:
        return self._took_ms

    def rest(self) -> None:
        """A run of one frame, with which the arena lets go all that no tensor lies in. The next run of each batch size
        takes what it needs, which costs it some milliseconds once."""
        options = ort.RunOptions()
        options.log_severity_level = FATAL
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._run(self._bound[0], options)
        give_back_freed()

    def close(self) -> None:
        self._bound.clear()
        del self._session

    def _run(self, bound: _Bound, options: ort.RunOptions | None = None) -> None:
        try:
            self._session.run_with_iobinding(bound.binding, options)
        except Exception as error:  # the binding raises a dozen unrelated types
            raise EdgedError(f"ONNX Runtime: {first_line(error)}") from error

    def _bind(self, batch: int) -> _Bound:
        binding = self._session.io_binding()
        (spec,) = self.inputs
        image = self._memory.input(0)[:batch]
        outputs = {spec.name: self._memory.output(0, spec)[:batch] for spec in self.outputs}
        binding.bind_ortvalue_input(spec.name, ort.OrtValue.ortvalue_from_numpy(image))  # shares the memory
        for name, array in outputs.items():
            binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array))
        return _Bound(binding, MappingProxyType(outputs))


def open_session(content: bytes, options: ort.SessionOptions, providers: list[Any]) -> ort.InferenceSession:
    """A session of a file that is complete in itself. It holds nothing of `content`.

    ONNX Runtime reads a graph with Python's lock held, some 5 ms for a megabyte, and copies the weights on the way. So
    where it can, from 1.23 on, it gets the graph without them and takes them from `content` later, without the lock."""
    if hasattr(options, "add_external_initializers_from_files_in_memory"):
        options.add_external_initializers_from_files_in_memory([_WEIGHTS], [content], [len(content)])
        content = without_weights(content, _WEIGHTS)
    session = ort.InferenceSession(content, options, providers=providers, enable_fallback=0)
    # Python's session keeps the graph's bytes, for a fall-back to another provider that edged never makes
    vars(session).pop("_model_bytes", None)
    return session


@functools.cache
def _share_arena() -> None:
    """One CPU arena for all sessions of the process: variants then work in the same, warm memory, which makes the first
    inference after a switch some 5 % faster and keeps the memory flat when a bundle is loaded again."""
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, None)


def check_declared(session: ort.InferenceSession, file: str, tensors: ModelTensors, max_batch: int) -> None:
    """What the graph declares against the manifest: names, types, and every side that the graph fixes."""
    inputs, image = session.get_inputs(), tensors.image
    if [node.name for node in inputs] != [image.name]:
        has = ", ".join(node.name for node in inputs) or "none"
        raise EdgedError(f"{file}: its inputs are {has}; the manifest's only input is {image.name}", EXPORT)
    _check_node(inputs[0], file, "input", image, (image.dtype,), max_batch)
    outputs = {node.name: node for node in session.get_outputs()}
    for spec in tensors.outputs:
        if spec.name not in outputs:
            raise EdgedError(
                f"{file}: it has no output {spec.name}, which the decoder reads; it has {', '.join(outputs)}", EXPORT
            )
        _check_node(outputs[spec.name], file, "output", spec, ("float32", "float16"), max_batch)


def _check_node(node: Any, file: str, role: str, spec: TensorSpec, dtypes: tuple[str, ...], max_batch: int) -> None:
    dtype = _DTYPES.get(node.type, node.type)
    if dtype not in dtypes:
        raise EdgedError(f"{file}: {role} {spec.name} is {dtype}; expected {' or '.join(dtypes)}", EXPORT)
    batch, *sides = node.shape or [None]
    fits = len(sides) == len(spec.shape) and all(
        want == -1 or not isinstance(side, int) or side == want for side, want in zip(sides, spec.shape, strict=True)
    )
    if not fits:
        raise EdgedError(
            f"{file}: {role} {spec.name} is {_shape(node.shape)}; expected {_shape(['N', *spec.shape])}", EXPORT
        )
    if isinstance(batch, int) and not batch == 1 == max_batch:
        raise EdgedError(
            f"{file}: {role} {spec.name} has the fixed batch {batch}; expected any batch up to {max_batch}",
            "export the model with a dynamic batch axis, or set max_batch = 1 in the manifest",
        )


def probe(
    session: ort.InferenceSession, file: str, tensors: ModelTensors, batch: int, options: Any = None
) -> tuple[TensorSpec, ...]:
    """One run: the actual outputs, since the declared ones may differ. Their memory follows from it. `batch`: the
    largest, so that the arena grows once, to what all others fit into."""
    names = [spec.name for spec in tensors.outputs]
    pictures = np.zeros((batch, *tensors.image.shape), tensors.image.dtype)
    try:
        arrays = session.run(names, {tensors.image.name: pictures}, options)
    except Exception as error:  # the binding raises a dozen unrelated types
        raise EdgedError(f"{file}: ONNX Runtime cannot run it: {first_line(error)}", EXPORT) from error
    found = []
    for spec, array in zip(tensors.outputs, arrays, strict=True):
        expected = (batch, *spec.shape)
        if array.ndim != len(expected) or any(
            want not in (-1, have) for have, want in zip(array.shape, expected, strict=True)
        ):
            raise EdgedError(
                f"{file}: output {spec.name} comes out as {_shape(array.shape)}; expected {_shape(expected)}", EXPORT
            )
        if (frame_bytes := array.nbytes // batch) > _MAX_OUTPUT_BYTES:
            raise EdgedError(f"{file}: output {spec.name} has {frame_bytes} bytes a frame", "choose a smaller model")
        found.append(TensorSpec(spec.name, array.dtype.name, array.shape[1:]))
    return tuple(found)


def _shape(sides: Any) -> str:
    return "[" + ", ".join("any" if side in (-1, None) else str(side) for side in sides or []) + "]"


def first_line(error: Exception) -> str:
    """What is wrong, of messages that run over many lines and begin with the place in ONNX Runtime's source."""
    failure = _CUDA_FAILURE.search(str(error))
    text = failure.group() if failure else _WHERE_IT_FAILED.sub("", str(error), count=1)
    return one_line(text) or type(error).__name__


def one_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0][:300]
