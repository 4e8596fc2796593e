"""The Engine protocol: what every runtime offers the pool, and the host memory that its engines share.

An engine works on `lanes` of input and output memory, allocated once. The caller writes frames into
`input_buffer(lane)`, calls `submit(lane, batch)` and later `collect(lane)`; with two lanes a GPU can work on one while
the host fills the other. Nothing here allocates per frame. All calls come from one thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edged.engines.device_profile import RuntimeName
from edged.engines.manifest import EngineFile, InputSpec
from edged.engines.scaler import Scaler

Outputs = Mapping[str, NDArray[Any]]
"""Tensor name -> array of shape (batch, ...); a view of the engine's memory, valid until the lane's next submit."""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of the graph; `shape` is that of one frame, without the batch axis."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelTensors:
    """What the manifest says of the graph: its one input and its outputs. A side of -1 is for the engine to tell."""

    image: TensorSpec
    outputs: tuple[TensorSpec, ...]


Allocate = Callable[[tuple[int, ...], str], NDArray[Any]]
"""(shape, dtype) -> host memory, in the way the runtime wants it (plain, pinned, mapped)."""


class HostMemory:
    """The host side of all engines of one pool: one input per lane, and one array per output that they agree on.

    Every variant of a bundle has the same tensors, so they share this memory and a switch copies nothing. Engines ask
    for it while they load; afterwards it only exists.
    """

    scaler: Scaler | None = None
    """Where pictures go to be scaled on a GPU; None: the caller scales them into `input` itself."""

    def __init__(self, allocate: Allocate, lanes: int, max_batch: int, image: TensorSpec) -> None:
        self.max_batch = max_batch
        self._allocate = allocate
        self._inputs = tuple(allocate((max_batch, *image.shape), image.dtype) for _ in range(lanes))
        self._outputs: dict[tuple[int, TensorSpec], NDArray[Any]] = {}

    def input(self, lane: int) -> NDArray[np.uint8]:
        return self._inputs[lane]

    def blank(self, pad: int) -> None:
        """Make every input a plain picture of the level `pad`."""
        for held in self._inputs:
            held.fill(pad)

    def picture(self, lane: int, index: int) -> NDArray[np.uint8]:
        """(height, width, 3): what the model sees of frame `index` of the lane's last batch. Valid until the next."""
        picture: NDArray[np.uint8] = self._inputs[lane][index]
        return picture

    @contextlib.contextmanager
    def alone(self, lane: int, index: int) -> Iterator[None]:
        """Frame `index` of the lane's last batch stands first, for a run of it alone; afterwards all is as it was."""
        inputs = self._inputs[lane]
        first = inputs[0].copy()
        inputs[0] = inputs[index]
        try:
            yield
        finally:
            inputs[0] = first

    def output(self, lane: int, spec: TensorSpec) -> NDArray[Any]:
        key = (lane, spec)
        if key not in self._outputs:
            self._outputs[key] = self._allocate((self.max_batch, *spec.shape), spec.dtype)
        return self._outputs[key]

    @property
    def held_bytes(self) -> int:
        """What the engines share."""
        return sum(held.nbytes for held in (*self._inputs, *self._outputs.values()))

    def close(self) -> None:
        """After the engines. Plain memory frees itself."""


class Engine(Protocol):
    """One resident, warm engine of one variant."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def lanes(self) -> int:
        """How many batches may be in flight at once."""
        ...

    @property
    def max_batch(self) -> int: ...

    @property
    def memory_bytes(self) -> int | None:
        """What loading it took and `close` returns, without what engines share; None where that is not known."""
        ...

    def bind(self, memory: HostMemory) -> None:
        """Work on this memory from now on, which is like that it was loaded with. Nothing may be in flight."""
        ...

    def input_buffer(self, lane: int) -> NDArray[np.uint8]:
        """Host memory of shape (max_batch, ...), as the manifest's input is, that the next submit of this lane reads;
        where pictures went to a scaler, that is what it reads instead."""
        ...

    def submit(self, lane: int, batch: int) -> None:
        """Start inference of the first `batch` frames of the lane. Raises EdgedError if the runtime refuses."""
        ...

    def collect(self, lane: int) -> Outputs:
        """Wait for the lane and return its outputs."""
        ...

    def took_ms(self, lane: int) -> float:
        """How long the batch just collected was at work, without what it waited behind another lane's."""
        ...

    def rest(self) -> None:
        """Give back what engines share to compute in, as far as they can take it again when a batch needs it. Nothing
        may be in flight on this engine; others may run."""
        ...

    def close(self) -> None:
        """Free everything. Never called from the frame path."""
        ...


class Runtime(Protocol):
    """What loads engines: one of them per pool, so that all variants share its lanes and its memory."""

    @property
    def name(self) -> Literal["onnxruntime", "tensorrt"]:
        """The `runtime` of the engine files it reads."""
        ...

    @property
    def device(self) -> RuntimeName:
        """Where it computes, as `[engine] device` names it."""
        ...

    @property
    def machine(self) -> str:
        """The name of the device that a plan or a device profile is for: the board, or the GPU's card."""
        ...

    @property
    def lanes(self) -> int: ...

    @property
    def concurrent(self) -> bool:
        """Whether an engine can be loaded, warmed and closed on another thread while others run."""
        ...

    def refuses(self, file: EngineFile, max_batch: int) -> str | None:
        """Why it cannot take this file, by what the manifest says of it; None if it can."""
        ...

    def memory(self, spec: InputSpec, image: TensorSpec, max_batch: int) -> HostMemory:
        """What the engines of one pool share. EdgedError if there is none."""
        ...

    def load(self, content: bytes, file: str, tensors: ModelTensors, memory: HostMemory) -> Engine:
        """An engine from the verified bytes of `file`. EdgedError if the runtime refuses them or if their tensors are
        not those of the manifest."""
        ...
