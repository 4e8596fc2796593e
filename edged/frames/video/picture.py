"""A decoded picture into NV12 in the caller's memory, and what it says of how it is to be shown.

In: FFmpeg's pictures. Out: planes copied in place: no conversion at full size, which would cost more than everything
else; the colour matrix and range that a stream signals become a PixelFormat instead. Odd sizes lose their last row or
column. Of an interlaced picture one field is shown, its lines interpolated: half the detail, and no comb.
"""

from __future__ import annotations

import math
import struct
from typing import Any, Final, cast

import av
import cv2
import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from numpy.typing import NDArray

from edged.errors import EdgedError
from edged.frames.frame import PixelFormat
from edged.frames.ring import MAX_SIDE
from edged.frames.sources.base import SourceInfo

Plane = NDArray[np.uint8]

_BT709: Final = 1  # AVCOL_SPC_BT709
_OTHER_MATRICES: Final = (7, 9, 10)  # AVCOL_SPC_SMPTE240M, BT2020_NCL, BT2020_CL: rare, and brought to BT.709
_FULL_RANGE: Final = 2  # AVCOL_RANGE_JPEG
_PLANAR: Final = {"yuv420p": 1, "yuvj420p": 1, "yuv422p": 2, "yuvj422p": 2}
"""chroma rows per chroma row of NV12"""
_FULL_FORMATS: Final = ("yuvj420p", "yuvj422p", "yuvj444p")


def _unnamed(cls: type[Type], value: int) -> Type:
    """A kind of side data that PyAV has no name for yet; it would refuse all of such a picture's (a JPEG's EXIF)."""
    kind: Any = object.__new__(cls)
    kind._name_, kind._value_ = f"UNNAMED_{value}", value
    return cast("Type", kind)


Type._missing_ = classmethod(_unnamed)  # type: ignore[method-assign, assignment]


class Picture:
    """The decoder's current picture. `info` is None before the first."""

    def __init__(self) -> None:
        self.info: SourceInfo | None = None
        self._frame: av.VideoFrame | None = None
        self._signals: object = None
        self._turn, self._mirrored = 0, False

    def take(
        self, frame: av.VideoFrame, pixel_aspect: float, fps: float | None, codec: str, paced: bool = True
    ) -> None:
        """Make it the current one; `info` is another object if anything of it has changed."""
        self._frame = frame
        if self.info is None or frame.key_frame:
            self._turn, self._mirrored = _orientation(frame)
        signals = (
            frame.width, frame.height, frame.colorspace, frame.color_range, frame.format.name, pixel_aspect,
            self._turn, self._mirrored, fps, codec, paced,
        )  # fmt: skip
        if signals == self._signals and self.info is not None:
            return
        self._signals = signals
        width, height = frame.width & ~1, frame.height & ~1
        if not (2 <= width <= MAX_SIDE and 2 <= height <= MAX_SIDE):
            raise EdgedError(f"its pictures of {width}x{height} are not within 2x2 and {MAX_SIDE}x{MAX_SIDE}")
        self.info = SourceInfo(
            width, height, _pixel_format(frame), fps, codec, paced, pixel_aspect, self._turn, self._mirrored
        )

    def draw(self, into: Plane) -> None:
        """Draw as NV12."""
        frame = self._frame
        assert frame is not None, "a picture is taken before it is drawn"
        height, width = into.shape[0] * 2 // 3, into.shape[1]
        luma_out, chroma_out = into[:height], into[height:].reshape(height // 2, width // 2, 2)
        step = _PLANAR.get(frame.format.name)
        other_matrix = frame.colorspace in _OTHER_MATRICES
        if step is not None and not other_matrix:
            luma, u, v = (_rows(plane) for plane in frame.planes)
            u, v = u[: height // 2 * step : step, : width // 2], v[: height // 2 * step : step, : width // 2]
            if frame.interlaced_frame:
                _field(luma[:height, :width], luma_out)
                _field(cv2.merge([u, v]), chroma_out)
                return
            np.copyto(luma_out, luma[:height, :width])
            cv2.merge([u, v], chroma_out)
            return
        if frame.format.name != "nv12" or other_matrix:
            full = _pixel_format(frame) in (PixelFormat.NV12_FULL, PixelFormat.NV12_709_FULL)
            frame = frame.reformat(
                format="nv12",
                dst_colorspace="ITU709" if other_matrix else None,
                dst_color_range="JPEG" if full else "MPEG",
            )
        luma, uv = (_rows(plane) for plane in frame.planes)
        uv = uv[: height // 2, :width].reshape(height // 2, width // 2, 2)
        if self._frame is not None and self._frame.interlaced_frame:
            _field(luma[:height, :width], luma_out)
            _field(uv, chroma_out)
            return
        np.copyto(luma_out, luma[:height, :width])
        np.copyto(chroma_out, uv)


def _pixel_format(frame: av.VideoFrame) -> PixelFormat:
    """What the numbers mean; a stream that signals no matrix is taken as BT.601, as OpenCV and FFmpeg do."""
    if frame.format.is_rgb or frame.format.name.startswith(("gray", "pal")):
        return PixelFormat.NV12
    full = frame.color_range == _FULL_RANGE or frame.format.name in _FULL_FORMATS
    if frame.colorspace == _BT709 or frame.colorspace in _OTHER_MATRICES:
        return PixelFormat.NV12_709_FULL if full else PixelFormat.NV12_709
    return PixelFormat.NV12_FULL if full else PixelFormat.NV12


def _orientation(frame: av.VideoFrame) -> tuple[int, bool]:
    """(degrees clockwise, mirrored) of its display matrix; what is no multiple of 90 degrees is ignored."""
    # frame.side_data would refer back, so that the frame lived until the next garbage collection
    every = cast("Any", SideDataContainer)(frame)
    side = every.get(Type.DISPLAYMATRIX)
    if side is None or len(bytes(side)) < 36:
        return 0, False
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(side)[:36])
    degrees = math.degrees(math.atan2(-c, d))
    turn = 90 * round(degrees / 90)
    if abs(degrees - turn) > 2 or not (c or d):
        return 0, False
    return turn % 360, a * d - b * c < 0


def _field(lines: Any, into: Plane) -> None:
    """The upper field of a picture or plane, at full height."""
    into[:] = cv2.resize(lines[::2], (into.shape[1], into.shape[0]), interpolation=cv2.INTER_LINEAR).reshape(into.shape)


def _rows(plane: av.video.plane.VideoPlane) -> Plane:
    """The plane in place, its padding included."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
