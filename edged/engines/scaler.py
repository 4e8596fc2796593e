"""Camera pictures into the model's input on the GPU: where they lie in, one kernel launch a batch out.

`put` names the picture of a frame of a lane, which is read where it lies, over the bus too, or copied before in stream
order where that is quicker. `run` scales all that was put: letterbox, colour, normalisation, layout and type at once.
The pixels are read when the GPU comes to it: whether they were still the frame's own is known when the batch is back.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edged.engines.cuda import Gpu
from edged.engines.manifest import InputSpec

MAX_PICTURES: Final = 64
BLOCK: Final = (32, 4, 1)
TILE: Final = (2 * BLOCK[0], 2 * BLOCK[1])
"""Pixels that a block makes: 2x2 a thread."""
READ_IN_PLACE: Final = 2.0
"""From this reduction on a card reads a picture over the bus in less time than it takes to copy it: the scaler leaves
out rows, and reads no pixel twice. Measured on an H200 (PCIe 5): 1080p to 224 pixels 20 against 70 us, 4K to 640 85
against 238, 720p to 640 31 against 38; at a reduction of 1.5 78 against 74, enlarged by 2 61 against 27."""

Kind = Literal["uint8", "float16", "float32", "int8"]
_DEFINES: Final[dict[Kind, str]] = {"uint8": "OUT_U8", "float16": "OUT_F16", "float32": "OUT_F32", "int8": "OUT_I8"}


@dataclass(frozen=True)
class Target:
    """The model's input. uint8 is NHWC, BGR, as it is; the others are NCHW, value * scale + bias per channel, in RGB
    if `rgb`."""

    width: int
    height: int
    pad: int
    kind: Kind = "uint8"
    rgb: bool = False
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    bias: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @classmethod
    def of(cls, spec: InputSpec) -> Target:
        """What the manifest says of the input."""
        return cls(spec.width, spec.height, spec.pad, spec.dtype, spec.color == "RGB", spec.scale, spec.bias)

    @property
    def frame_bytes(self) -> int:
        return 3 * self.width * self.height * np.dtype(self.kind).itemsize

    def plain(self) -> NDArray[Any]:
        """The padding's colour as the input has it: one level, or (3, 1, 1)."""
        if self.kind == "uint8":
            return np.array(self.pad, np.uint8)
        values = (self.pad * np.array(self.scale) + np.array(self.bias)).reshape(3, 1, 1)
        plain: NDArray[Any] = (np.clip(np.rint(values), -128, 127) if self.kind == "int8" else values).astype(self.kind)
        return plain

    def picture(self, frame: NDArray[Any]) -> NDArray[np.uint8]:
        """A frame of the input as a picture for people: (height, width, 3), BGR."""
        if self.kind == "uint8":
            return frame
        scale, bias = (np.array(of, np.float32).reshape(3, 1, 1) for of in (self.scale, self.bias))
        levels = np.clip(np.rint((frame.astype(np.float32) - bias) / scale), 0, 255).astype(np.uint8)
        picture: NDArray[np.uint8] = np.ascontiguousarray((levels[::-1] if self.rgb else levels).transpose(1, 2, 0))
        return picture


class Placement(Protocol):
    """A source picture's size and where it lies in the input, in pixels of the input; the scaled sides are even."""

    @property
    def source_width(self) -> int: ...
    @property
    def source_height(self) -> int: ...
    @property
    def left(self) -> int: ...
    @property
    def top(self) -> int: ...
    @property
    def scaled_width(self) -> int: ...
    @property
    def scaled_height(self) -> int: ...


class _Picture(ctypes.Structure):
    """`Picture` of letterbox.cu."""

    _fields_ = (
        ("pixels", ctypes.c_uint64), ("width", ctypes.c_int32), ("height", ctypes.c_int32), ("left", ctypes.c_int32),
        ("top", ctypes.c_int32), ("scaled_width", ctypes.c_int32), ("scaled_height", ctypes.c_int32),
        ("ratio_x", ctypes.c_float), ("ratio_y", ctypes.c_float), ("nv12", ctypes.c_int32),
    )  # fmt: skip


class _Job(ctypes.Structure):
    """`Job` of letterbox.cu."""

    _fields_ = (
        ("out", ctypes.c_uint64), ("width", ctypes.c_int32), ("height", ctypes.c_int32), ("pad", ctypes.c_int32),
        ("swap", ctypes.c_int32), ("scale", ctypes.c_float * 3), ("bias", ctypes.c_float * 3),
        ("pictures", _Picture * MAX_PICTURES),
    )  # fmt: skip


class Scaler:
    """The inputs of all lanes, and what fills them."""

    def __init__(self, gpu: Gpu, target: Target, lanes: int, max_batch: int) -> None:
        """CudaError if the kernel does not compile or there is no memory."""
        self.target = target
        self.inputs = tuple(gpu.device(max_batch * target.frame_bytes) for _ in range(lanes))
        """addresses of (max_batch, ...) on the GPU, one per lane"""
        self._gpu = gpu
        source = resources.files("edged.engines").joinpath("kernels/letterbox.cu").read_text()
        self._kernel = gpu.kernel(source, "letterbox", (_DEFINES[target.kind],))
        self._jobs = tuple(_job(target, address) for address in self.inputs)
        self._launch: tuple[Callable[..., None], ...] = tuple(self._kernel.bind(job) for job in self._jobs)
        self._staging: list[list[tuple[int, int]]] = [[(0, 0)] * max_batch for _ in range(lanes)]
        """(address, size) of each frame's copy on the GPU: grows to the largest picture that had to be copied"""
        self._bounce: list[list[tuple[NDArray[Any], int] | None]] = [[None] * max_batch for _ in range(lanes)]
        """pinned memory for pictures that lie where the GPU cannot reach"""
        self._put = [0] * lanes
        self._used = [False] * lanes

    def put(self, lane: int, index: int, pixels: NDArray[np.uint8], nv12: int, place: Placement) -> None:
        """Frame `index` of the lane's next batch is this picture, the last one so far: 0 begins a batch, whatever was
        put before and never ran. `pixels` (contiguous) must stay until the batch came back. CudaError if there is no
        memory for a copy, or the GPU is in a fault. `nv12`: 0 for BGR24, else PixelFormat.nv12_kind."""
        reachable = self._gpu.reach(pixels)
        if reachable is None:
            reachable = self._bounced(lane, index, pixels)
        if not self._gpu.integrated and place.source_width < READ_IN_PLACE * place.scaled_width:
            reachable = self._copied(lane, index, reachable, pixels.nbytes)
        self.place(lane, index, reachable, nv12, place)
        self._put[lane] = index + 1

    def place(self, lane: int, index: int, address: int, nv12: int, place: Placement) -> None:
        """As `put`, of pixels that the GPU reaches at `address`."""
        picture = self._jobs[lane].pictures[index]
        picture.pixels, picture.nv12, picture.left, picture.top = address, nv12, place.left, place.top
        picture.width, picture.height = place.source_width, place.source_height
        picture.scaled_width, picture.scaled_height = place.scaled_width, place.scaled_height
        picture.ratio_x = place.source_width / place.scaled_width
        picture.ratio_y = place.source_height / place.scaled_height

    def run(self, lane: int) -> bool:
        """Scale what was put since the last run; False if that is nothing."""
        count, self._put[lane] = self._put[lane], 0
        if not count:
            return False
        self.again(lane, count)
        self._used[lane] = True
        return True

    def again(self, lane: int, count: int) -> None:
        """Scale the first `count` pictures of the lane, put before."""
        # one pixel more than there are: a picture at an odd place has its tiles begin one pixel outside
        self._launch[lane]((self.target.width // TILE[0] + 1, self.target.height // TILE[1] + 1, count), BLOCK)

    def used(self, lane: int) -> bool:
        """Whether the lane was ever filled from here."""
        return self._used[lane]

    def close(self) -> None:
        self._kernel.close()

    def _copied(self, lane: int, index: int, source: int, size: int) -> int:
        address, room = self._staging[lane][index]
        if room < size:
            if room:
                self._staging[lane][index] = (0, 0)  # should the next line fail, nobody copies to memory that is gone
                self._gpu.give_back(address)
            address = self._gpu.device(size)
            self._staging[lane][index] = (address, size)
        self._gpu.copy(address, source, size)
        return address

    def _bounced(self, lane: int, index: int, pixels: NDArray[np.uint8]) -> int:
        """Copied by the host to where the GPU can reach it."""
        held = self._bounce[lane][index]
        if held is None or held[0].nbytes < pixels.nbytes:
            held = self._bounce[lane][index] = self._gpu.pinned((pixels.nbytes,), "uint8")
        held[0][: pixels.nbytes] = pixels.reshape(-1)
        return held[1]


def _job(target: Target, address: int) -> _Job:
    job = _Job(address, target.width, target.height, target.pad, target.rgb)
    job.scale[:], job.bias[:] = target.scale, target.bias
    return job
