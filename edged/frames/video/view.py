"""How a camera's picture is shown: with square pixels, upright, and only the part that matters.

In: what the source signals and what the configuration says. Out: the shown size, and the pixels brought to it. The
geometry is pure; `apply` runs in the camera's child process, and only for pictures that are not shown as they come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edged.config import CameraConfig
from edged.errors import EdgedError
from edged.frames.ring import MAX_SIDE, RingSpec
from edged.frames.sources.base import Grabbed, Source, SourceInfo, StreamCost

Image = NDArray[np.uint8]
Rect = tuple[float, float, float, float]

_ABSURD: Final = 4.0
"""A pixel more oblong than that is a mistake: the most oblong in use, of half a wide PAL picture, has 2.9."""
_SQUARE: Final = 0.02
_ROTATIONS: Final = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


@dataclass(frozen=True)
class View:
    """`left`..`bottom`: the part of the source's picture that is shown, in its pixels. It is scaled to `width` x
    `height`, then mirrored left to right, then turned clockwise by `turn` degrees."""

    left: int
    top: int
    right: int
    bottom: int
    width: int
    height: int
    mirrored: bool
    turn: int

    @property
    def shown_size(self) -> tuple[int, int]:
        return (self.height, self.width) if self.turn in (90, 270) else (self.width, self.height)


def view_of(info: SourceInfo, config: CameraConfig) -> View | None:
    """The view of a source; None if it is shown as it comes. EdgedError if the crop leaves nothing."""
    turn = info.turn if config.rotate is None else config.rotate
    mirrored = info.mirrored and config.rotate is None
    left, top, right, bottom = _in_source((0.0, 0.0, 1.0, 1.0) if config.crop is None else config.crop, turn, mirrored)
    x0, x1 = 2 * round(left * info.width / 2), 2 * round(right * info.width / 2)
    y0, y1 = 2 * round(top * info.height / 2), 2 * round(bottom * info.height / 2)
    if x1 - x0 < 2 or y1 - y0 < 2:
        raise EdgedError(f"crop leaves nothing of a picture of {info.width}x{info.height}", "choose a larger part")
    width, height = _square(x1 - x0, y1 - y0, _pixel_aspect(info, config))
    view = View(x0, y0, x1, y1, width, height, mirrored, turn)
    whole = View(0, 0, info.width & ~1, info.height & ~1, info.width & ~1, info.height & ~1, False, 0)
    return None if view == whole else view


def _pixel_aspect(info: SourceInfo, config: CameraConfig) -> float:
    """A pixel's width by its height: as configured, else as signalled; 1 for what cannot be."""
    aspect = info.pixel_aspect
    if config.aspect is not None:
        across, down = (int(number) for number in config.aspect.split(":"))
        aspect = across / down * info.height / info.width
    return aspect if 1 / _ABSURD <= aspect <= _ABSURD and abs(aspect - 1) > _SQUARE else 1.0


def _square(width: int, height: int, aspect: float) -> tuple[int, int]:
    """The size with square pixels: one side grows, so that no detail is lost; the other shrinks where it cannot."""
    if aspect == 1.0:
        return width, height
    if aspect > 1 and width * aspect <= MAX_SIDE:
        width = 2 * round(width * aspect / 2)
    elif aspect > 1:
        height = max(2, 2 * round(height / aspect / 2))
    elif height / aspect <= MAX_SIDE:
        height = 2 * round(height / aspect / 2)
    else:
        width = max(2, 2 * round(width * aspect / 2))
    return width, height


def _in_source(shown: Rect, turn: int, mirrored: bool) -> Rect:
    """A part of the shown picture, as shares of it, as the part of the source's picture."""
    x0, y0, x1, y1 = shown
    if turn == 90:
        x0, y0, x1, y1 = y0, 1 - x1, y1, 1 - x0
    elif turn == 180:
        x0, y0, x1, y1 = 1 - x1, 1 - y1, 1 - x0, 1 - y0
    elif turn == 270:
        x0, y0, x1, y1 = 1 - y1, x0, 1 - y0, x1
    return (1 - x1, y0, 1 - x0, y1) if mirrored else (x0, y0, x1, y1)


def apply(view: View, info: SourceInfo, pixels: Image, into: Image) -> None:
    """Bring a source's picture, laid out as `info` says, into one of the shown size."""
    width, height = view.shown_size
    sources, targets = _planes(info, pixels, info.width, info.height), _planes(info, into, width, height)
    for source, target in zip(sources, targets, strict=True):
        step = info.width // source.shape[1]
        part = source[view.top // step : view.bottom // step, view.left // step : view.right // step]
        size = (view.width // step, view.height // step)
        if (part.shape[1], part.shape[0]) != size:
            part = _shaped(cv2.resize(part, size, interpolation=cv2.INTER_LINEAR), part)
        if view.mirrored:
            part = _shaped(cv2.flip(part, 1), part)
        if view.turn:
            part = _shaped(cv2.rotate(part, _ROTATIONS[view.turn]), part)
        np.copyto(target, part)


def _shaped(pixels: Any, like: Image) -> Image:
    """OpenCV's result with as many dimensions as what it was given: it drops a last one of 1."""
    shaped: Image = np.asarray(pixels, np.uint8).reshape(*pixels.shape[:2], *like.shape[2:])
    return shaped


def _planes(info: SourceInfo, pixels: Image, width: int, height: int) -> list[Image]:
    if not info.format.is_nv12:
        return [pixels]
    return [pixels[:height], pixels[height:].reshape(height // 2, width // 2, 2)]


class ViewedSource:
    """A source whose pictures are shown otherwise than they come. Where a picture needs nothing, nothing is copied."""

    def __init__(self, source: Source, config: CameraConfig) -> None:
        self._source, self._config = source, config
        self._seen: SourceInfo | None = None
        self._update()

    def _update(self) -> None:
        info = self._source.info
        if info is self._seen:
            return
        self._seen = self.info = info
        self._view = view_of(info, self._config)
        if self._view is not None:
            width, height = self._view.shown_size
            self.info = SourceInfo(width, height, info.format, info.fps, info.codec, info.paced)
            self._pixels = np.empty(RingSpec(info.width, info.height, info.format).shape, np.uint8)

    @property
    def cost(self) -> StreamCost | None:
        return self._source.cost

    def grab(self) -> Grabbed | None:
        grabbed = self._source.grab()
        self._update()
        return grabbed

    def retrieve(self, into: Image) -> None:
        if self._view is None:
            self._source.retrieve(into)
            return
        self._source.retrieve(self._pixels)
        apply(self._view, self._source.info, self._pixels, into)

    def close(self) -> None:
        self._source.close()
