"""What all engines of a pool share on the GPU: inputs with their scaler, outputs on both sides, lanes with events.

All variants of a bundle have the same tensors, and one stream orders all work, so that a switch copies nothing and
waits for nothing. All calls come from one thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edged.engines.cuda import CudaError, Gpu
from edged.engines.engine import HostMemory, Outputs, TensorSpec
from edged.engines.scaler import Scaler, Target
from edged.errors import EdgedError

LANES: Final = 2
"""One batch computes while the host prepares the next."""


class GpuMemory(HostMemory):
    """The host's side is pinned; pictures go to `scaler`, which reads them where the cameras wrote them."""

    def __init__(self, gpu: Gpu, target: Target, lanes: int, max_batch: int, image: TensorSpec) -> None:
        """The GPU is its own from here on: `close` closes it. CudaError, and the GPU closed, if there is no memory."""
        try:
            super().__init__(lambda shape, dtype: gpu.pinned(shape, dtype)[0], lanes, max_batch, image)
            self.scaler: Scaler = Scaler(gpu, target, lanes, max_batch)
            self._first = gpu.device(target.frame_bytes)  # where `alone` keeps what stood first
        except CudaError:
            gpu.close()
            raise
        self.gpu = gpu
        self._host = tuple((held.ctypes.data, held[0].nbytes) for held in self._inputs)
        self._device_outputs: dict[tuple[int, TensorSpec], int] = {}

    def device_output(self, lane: int, spec: TensorSpec) -> int:
        """The GPU's address of (max_batch, ...)."""
        key = (lane, spec)
        if key not in self._device_outputs:
            self._device_outputs[key] = self.gpu.device(self.output(lane, spec).nbytes)
        return self._device_outputs[key]

    @property
    def held_bytes(self) -> int:
        """Each input and output lies on both sides."""
        return 2 * super().held_bytes

    def fill(self, lane: int, batch: int) -> None:
        """The lane's input, in stream order: the pictures put since the last time; else it stays what it was, for a
        second run of the same batch. A lane that never got pictures is filled from the host's buffer."""
        if not self.scaler.run(lane) and not self.scaler.used(lane):
            address, frame_bytes = self._host[lane]
            self.gpu.copy(self.scaler.inputs[lane], address, batch * frame_bytes)

    def blank(self, pad: int) -> None:
        for held in self._inputs:
            held[:] = self.scaler.target.plain()

    @contextlib.contextmanager
    def alone(self, lane: int, index: int) -> Iterator[None]:
        """In stream order, without waiting."""
        if not self.scaler.used(lane):
            with super().alone(lane, index):
                yield
            return
        first, size = self.scaler.inputs[lane], self.scaler.target.frame_bytes
        self.gpu.copy(self._first, first, size)
        self.gpu.copy(first, first + index * size, size)
        try:
            yield
        finally:
            self.gpu.copy(first, self._first, size)

    def picture(self, lane: int, index: int) -> NDArray[np.uint8]:
        """Copied from the GPU, waiting for it: not for every frame. Normalisation is taken back."""
        held: NDArray[Any] = self.input(lane)[index]
        self.gpu.copy(held.ctypes.data, self.scaler.inputs[lane] + index * held.nbytes, held.nbytes)
        self.gpu.wait()
        return self.scaler.target.picture(held)

    def close(self) -> None:
        self.scaler.close()
        self.gpu.close()


class GpuEngine:
    """The half of an engine that does not ask which runtime it is: `submit` and `close` are the other half."""

    lanes = LANES

    def __init__(self, image: TensorSpec, outputs: tuple[TensorSpec, ...], memory: GpuMemory) -> None:
        self.inputs, self.outputs, self.max_batch = (image,), outputs, memory.max_batch
        self._memory, self._gpu = memory, memory.gpu
        self._begun = [self._gpu.event() for _ in range(LANES)]
        self._done = [self._gpu.event() for _ in range(LANES)]
        self._in_flight: list[Outputs | None] = [None] * LANES

    def bind(self, memory: HostMemory) -> None:
        """It is made on the memory that it stays on: its graphs hold the addresses."""
        assert memory is self._memory

    def input_buffer(self, lane: int) -> NDArray[np.uint8]:
        return self._memory.input(lane)

    def collect(self, lane: int) -> Outputs:
        outputs, self._in_flight[lane] = self._in_flight[lane], None
        if outputs is None:
            raise EdgedError("nothing to collect: submit first")
        self._done[lane].wait()
        return outputs

    def took_ms(self, lane: int) -> float:
        """In stream order the lane's batch begins when the batch before it is done."""
        return self._done[lane].since_ms(self._begun[lane])

    def rest(self) -> None:
        """It has what it computes in for good: its graphs hold the addresses."""

    def _fill(self, lane: int, batch: int) -> None:
        """The pictures of a batch, the first of its work on the stream."""
        self._begun[lane].record()
        self._memory.fill(lane, batch)

    def _submitted(self, lane: int, outputs: Outputs) -> None:
        """All of the lane's batch is on the stream: `outputs` are good once the event is over."""
        self._done[lane].record()
        self._in_flight[lane] = outputs

    def _close_events(self) -> None:
        for event in (*self._begun, *self._done):
            event.close()
