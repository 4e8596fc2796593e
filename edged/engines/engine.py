"""The Engine protocol: what every runtime offers the pool.

An engine owns `lanes` of input and output memory, allocated once. The caller writes frames into `input_buffer(lane)`,
calls `submit(lane, batch)` and later `collect(lane)`; with two lanes a GPU can work on one while the host fills the
other. Nothing here allocates per frame. All calls come from one thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Outputs = Mapping[str, NDArray[Any]]
"""Tensor name -> array of shape (batch, ...); a view of the engine's memory, valid until the lane's next submit."""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of the graph; `shape` is that of one frame, without the batch axis."""

    name: str
    dtype: str
    shape: tuple[int, ...]


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
        """Memory this engine holds beyond its file, where the runtime tells; None where it does not."""
        ...

    def input_buffer(self, lane: int) -> NDArray[np.uint8]:
        """Host memory of shape (max_batch, height, width, 3) that the next submit of this lane reads."""
        ...

    def submit(self, lane: int, batch: int) -> None:
        """Start inference of the first `batch` frames of the lane. Raises EdgedError if the runtime refuses."""
        ...

    def collect(self, lane: int) -> Outputs:
        """Wait for the lane and return its outputs."""
        ...

    def close(self) -> None:
        """Free everything. Never called from the frame path."""
        ...
