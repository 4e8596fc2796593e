"""A camera's picture into the model's input: scaled, centred, padded, straight into the batch buffer.

In: a frame's pixels as they lie in the ring (BGR24 or NV12). Out: one frame of the engine's input, BGR; normalisation
is inside the graph. Large NV12 pictures are scaled before they are converted (CONVERTED_FIRST). Runs on the engine
loop's thread, which alone owns a Letterboxer; nothing is allocated per frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edged.engines.manifest import InputSpec
from edged.engines.pool import Pool
from edged.engines.scaler import Scaler
from edged.errors import EdgedError
from edged.frames.colour import Nv12ToBgr
from edged.frames.frame import PixelFormat

Image = NDArray[np.uint8]

# At a quarter of the size INTER_LINEAR reads only the middle 2x2 of each 4x4 pixels. Detection does not suffer: with
# 1280x720 and 1920x1080 into 320x180 the demo detector's mAP50 is that of INTER_AREA within 0.4 points, at an eighth of
# the time or less, and the time hardly depends on the size of the source.
_INTERPOLATION = cv2.INTER_LINEAR

CONVERTED_FIRST: Final = 640 * 480
"""NV12 pictures of at most so many pixels are converted to BGR before they are scaled. Scaling first halves the colour
resolution of what the model sees: the scores of a published text classifier were up to 0.09 off by it. Above this size
converting first costs more than it gains. The kernel in `engines/kernels/letterbox.cu` has the same limit."""

_MAX_CONVERTERS = 16  # each holds pictures, up to 2.5 MB
_MAX_GEOMETRIES = 64  # a camera may change its size at will; what is kept for it may not grow with that


@dataclass(frozen=True)
class Letterbox:
    """Where a source picture lies in the input. The scaled sides are even, so that NV12's half-size colour fits.

    The scales are scaled pixels per source pixel, exact; they differ a little from each other because of the rounding.
    """

    source_width: int
    source_height: int
    left: int
    top: int
    scaled_width: int
    scaled_height: int

    @property
    def scale_x(self) -> float:
        return self.scaled_width / self.source_width

    @property
    def scale_y(self) -> float:
        return self.scaled_height / self.source_height

    def unmap(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (N, 4) x0, y0, x1, y1: from input pixels to source pixels, clipped to the picture."""
        corner, scale, edge = self._corners
        source: NDArray[np.float32] = np.minimum(np.maximum((boxes - corner) / scale, 0), edge)
        return source

    @cached_property
    def _corners(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Of x0, y0, x1, y1: the origin, the scale and the greatest value."""
        corner, scale = (self.left, self.top), (self.scale_x, self.scale_y)
        rows = np.array((corner * 2, scale * 2, (self.source_width, self.source_height) * 2), np.float32)
        return rows[0], rows[1], rows[2]

    def unmap_points(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Points (..., 2) x, y: from input pixels to source pixels, not clipped."""
        corner = np.array((self.left, self.top), np.float32)
        return ((points - corner) / np.array((self.scale_x, self.scale_y), np.float32)).astype(np.float32)


def fit(source_width: int, source_height: int, width: int, height: int) -> Letterbox:
    """The largest even-sided picture of the source's shape inside width x height, centred."""
    if source_width < 1 or source_height < 1:
        raise EdgedError(f"a picture of {source_width}x{source_height} pixels cannot be scaled")
    scale = min(width / source_width, height / source_height)
    scaled_width, scaled_height = _even(source_width * scale, width), _even(source_height * scale, height)
    left, top = (width - scaled_width) // 2, (height - scaled_height) // 2
    return Letterbox(source_width, source_height, left, top, scaled_width, scaled_height)


def _even(length: float, limit: int) -> int:
    return max(2, min(2 * round(length / 2), limit - limit % 2))


class Geometries:
    """The letterbox of each source size, computed once."""

    def __init__(self, spec: InputSpec) -> None:
        self._spec = spec
        self._geometries: dict[tuple[int, int], Letterbox] = {}

    def geometry(self, source_width: int, source_height: int) -> Letterbox:
        key = (source_width, source_height)
        letterbox = self._geometries.get(key)
        if letterbox is None:
            if len(self._geometries) >= _MAX_GEOMETRIES:
                self._geometries.clear()
            letterbox = self._geometries[key] = fit(source_width, source_height, self._spec.width, self._spec.height)
        return letterbox


class GpuLetterboxer(Geometries):
    """Hands each picture to the GPU's scaler, which does what `Letterboxer` does.

    The pixels are read until the batch is collected: only then is it known whether they stayed the frame's own.
    """

    reads_late: Final = True

    def __init__(self, spec: InputSpec, scaler: Scaler) -> None:
        super().__init__(spec)
        self._scaler = scaler

    def fill(self, letterbox: Letterbox, pixels: Image, format: PixelFormat, lane: int, index: int) -> None:
        """Let `pixels`, laid out as `format` says, be frame `index` of the lane's next batch. EdgedError if they are
        not a picture of the letterbox's source size."""
        _check_shape(pixels, letterbox, format)
        self._scaler.put(lane, index, pixels, format.nv12_kind, letterbox)


class Letterboxer(Geometries):
    """Fills the frames of an engine's input buffers, one per lane, each (max_batch, height, width, 3).

    It remembers which letterbox each frame of the memory was last filled with: padding is written again only when that
    changes. So nobody else may write into those buffers.
    """

    reads_late: Final = False

    def __init__(self, spec: InputSpec, buffers: Sequence[Image]) -> None:
        super().__init__(spec)
        self._buffers = tuple(buffers)
        self._filled: list[list[Letterbox | None]] = [[None] * len(buffer) for buffer in buffers]
        self._converters: dict[Letterbox, _ConvertedFirst | _ScaledFirst] = {}

    def fill(self, letterbox: Letterbox, pixels: Image, format: PixelFormat, lane: int, index: int) -> None:
        """Scale `pixels`, laid out as `format` says, into frame `index` of the lane's buffer. EdgedError if they are
        not a picture of the letterbox's source size."""
        _check_shape(pixels, letterbox, format)
        into = self._buffers[lane][index]
        if self._filled[lane][index] != letterbox:
            into.fill(self._spec.pad)
            self._filled[lane][index] = letterbox
        picture = into[
            letterbox.top : letterbox.top + letterbox.scaled_height,
            letterbox.left : letterbox.left + letterbox.scaled_width,
        ]
        if format is PixelFormat.BGR24:
            size = (letterbox.scaled_width, letterbox.scaled_height)
            cv2.resize(pixels, size, dst=picture, interpolation=_INTERPOLATION)
            return
        self._converter(letterbox).fill(pixels, format, picture)

    def _converter(self, letterbox: Letterbox) -> _ConvertedFirst | _ScaledFirst:
        converter = self._converters.get(letterbox)
        if converter is None:
            if len(self._converters) >= _MAX_CONVERTERS:
                self._converters.clear()
            small = letterbox.source_width * letterbox.source_height <= CONVERTED_FIRST
            converter = self._converters[letterbox] = (_ConvertedFirst if small else _ScaledFirst)(letterbox)
        return converter


class _ConvertedFirst:
    """NV12 to BGR, then scaled: exactly what a reader of the whole picture would feed the model."""

    def __init__(self, letterbox: Letterbox) -> None:
        width, height = letterbox.source_width, letterbox.source_height
        self._size = (letterbox.scaled_width, letterbox.scaled_height)
        self._whole, self._converter = np.empty((height, width, 3), np.uint8), Nv12ToBgr(width, height)

    def fill(self, pixels: Image, format: PixelFormat, picture: Image) -> None:
        height, width = self._whole.shape[:2]
        chroma = pixels[height:].reshape(height // 2, width // 2, 2)
        self._converter.convert(pixels[:height], chroma, format, self._whole)
        cv2.resize(self._whole, self._size, dst=picture, interpolation=_INTERPOLATION)


class _ScaledFirst:
    """NV12 scaled plane by plane, then to BGR: a full-size BGR picture never exists."""

    def __init__(self, letterbox: Letterbox) -> None:
        width, height = letterbox.scaled_width, letterbox.scaled_height
        self._luma, self._chroma = np.empty((height, width), np.uint8), np.empty((height // 2, width // 2, 2), np.uint8)
        self._converter = Nv12ToBgr(width, height)

    def fill(self, pixels: Image, format: PixelFormat, picture: Image) -> None:
        height, width = len(pixels) * 2 // 3, pixels.shape[1]
        colour = pixels[height:].reshape(height // 2, width // 2, 2)
        size = self._luma.shape[::-1]
        cv2.resize(pixels[:height], size, dst=self._luma, interpolation=_INTERPOLATION)
        cv2.resize(colour, (size[0] // 2, size[1] // 2), dst=self._chroma, interpolation=_INTERPOLATION)
        self._converter.convert(self._luma, self._chroma, format, picture)


def _check_shape(pixels: Image, letterbox: Letterbox, format: PixelFormat) -> None:
    width, height = letterbox.source_width, letterbox.source_height
    expected: tuple[int, ...] = (height, width, 3)
    if format.is_nv12:
        if width % 2 or height % 2:
            raise EdgedError(f"an NV12 picture of {width}x{height} pixels cannot be: both sides must be even")
        expected = (height * 3 // 2, width)
    if pixels.shape != expected or pixels.dtype != np.uint8:
        raise EdgedError(
            f"the {format.name} pixels of a {width}x{height} picture have the shape {pixels.shape} of {pixels.dtype}; "
            f"expected {expected} of uint8"
        )


def open_letterboxer(spec: InputSpec, pool: Pool) -> Letterboxer | GpuLetterboxer:
    """The one that fills this pool's engines."""
    if pool.scaler is not None:
        return GpuLetterboxer(spec, pool.scaler)
    return Letterboxer(spec, [pool.input_buffer(lane) for lane in range(pool.lanes)])
