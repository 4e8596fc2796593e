"""Whether anything moves in a camera's pictures: luma in, yes or no out. In the camera's child; cv2 and numpy.

At an eighth of the size. What is compared is the picture less its own local mean, so that a change of light (a cloud,
an exposure step) is none: d = luma - blur(luma). A background b of d is learnt; motion is where |d - g b| exceeds what
noise explains, over some cells together. g is the gain of the whole picture against the background, by least squares.

A cell learns slowly while it is still, and takes over at once what has not changed for `_SETTLED_S`: a car that has
parked ends to be motion, one that creeps is motion again and again. Where nearly the whole picture differs from the
background but not from the picture before (infrared switched, the camera was turned), all of it is taken over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from edged.geometry import Point

Image = NDArray[np.uint8]
Cells = NDArray[np.float32]

SHRINK: Final = 8
_SQUARE: Final = np.ones((3, 3), np.uint8)
_LOCAL: Final = (15, 15)
"""cells of the local mean: 120 pixels"""
_LEVEL: Final = 4.5
"""grey levels that a cell must differ by at sensitivity 1: a third of the contrast of dark clothes on a dark street"""
_MODERATE: Final = 25.0
"""grey levels of contrast with the surroundings"""
_NOISE: Final = 6.0
"""mean deviations of a still cell that motion must exceed"""
_TOGETHER: Final = 5
"""of 9 cells of a square: a spot of 16 x 16 pixels or more"""
_QUICK_S: Final = 0.1
_PATCH: Final = 0.6
"""share of the cells of a square of 56 x 56 pixels"""
_LEARN_S: Final = 8.0
"""time constant of the background and of its deviation"""
_RECENT_S: Final = 0.2
"""age of the picture that tells whether something moves just now; a slow object moves a cell's part in it"""
_SETTLED_S: Final = 1.5
_QUIET_S: Final = 0.35
"""nearly without a move, before a picture that differs widely is taken over"""
_QUIET: Final = 0.01
"""share of the cells that may move then: rain does"""
_WIDE: Final = 0.1
"""share of the cells that differ then"""


class MotionDetector:
    """One camera. `sensitivity` above 1 sees weaker motion. `ignore`: polygons (shares of the picture) left out."""

    def __init__(
        self, width: int, height: int, sensitivity: float = 1.0, ignore: Sequence[Sequence[Point]] = ()
    ) -> None:
        self.shape = (height, width)
        self._sizes = [(max(1, width // n), max(1, height // n)) for n in (2, 4, SHRINK)]
        self._level = _LEVEL / sensitivity
        columns, rows = self._sizes[-1]
        self._counts = np.full((rows, columns), 255, np.uint8)
        for polygon in ignore:
            corners = np.array([(x * columns, y * rows) for x, y in polygon])
            cv2.fillPoly(self._counts, [np.round(corners).astype(np.int32)], 0)
        self._at_s: float | None = None
        self._slow_s = self._quiet_s = 0.0
        self._background = self._limit = self._recent = self._deviation = self._settled_s = np.empty(0, np.float32)
        self._power = 0.0  # of `_moderate`, for the gain
        self._moderate = np.empty(0, np.float32)  # of the background, every second row and column, for the gain
        self._moves, self._differs = _Lasting((rows, columns)), _Lasting((rows, columns))

    def look(self, luma: Image, at_s: float) -> bool:
        """Whether something moves in this picture (uint8, [height, width]), captured at `at_s`."""
        detail = self._detail(luma)
        if self._at_s is None:
            self._take_over(detail, at_s)
            return True
        dt_s, self._at_s = at_s - self._at_s, at_s
        off = cv2.absdiff(detail, self._background * np.float32(self._gain(detail)))
        differs = self._above(cast(Cells, off))
        if at_s - self._slow_s >= _RECENT_S and self._learn(detail, cast(Cells, off), differs, at_s):
            return False
        return _spot(self._differs.take(differs, dt_s)) or _patch(differs)

    def _above(self, values: Cells) -> Image:
        """255 where a value exceeds the cell's limit, in the cells that count."""
        return cast(Image, cv2.bitwise_and(cv2.compare(values, self._limit, cv2.CMP_GT), self._counts))

    def _detail(self, luma: Image) -> Cells:
        for size in self._sizes:
            luma = cast(Image, cv2.resize(luma, size, interpolation=cv2.INTER_AREA))
        smooth = cv2.blur(luma, (3, 3)).astype(np.float32)
        return cast(Cells, cv2.subtract(smooth, cv2.blur(smooth, _LOCAL)))

    def _gain(self, detail: Cells) -> float:
        """By the cells of moderate contrast: one bright object that goes is no change of the light."""
        if self._power < 1.0:
            return 1.0
        return min(max(float(np.vdot(np.ascontiguousarray(detail[::2, ::2]), self._moderate)) / self._power, 0.5), 2.0)

    def _take_over(self, detail: Cells, at_s: float) -> None:
        """The picture is the background from now on."""
        self._at_s = self._slow_s = at_s
        self._quiet_s = 0.0
        self._background, self._recent = detail.copy(), detail
        self._deviation = np.full_like(detail, self._level / _NOISE)
        self._settled_s = np.zeros_like(detail)
        self._prepare()

    def _prepare(self) -> None:
        """What each picture is compared with."""
        self._limit = np.maximum(_NOISE * self._deviation, self._level)
        some = self._background[::2, ::2]
        self._moderate = np.where(np.abs(some) < _MODERATE, some, np.float32(0))
        self._power = float(np.vdot(self._moderate, self._moderate))

    def _learn(self, detail: Cells, off: Cells, differs: Image, at_s: float) -> bool:
        """A few times a second: still cells learn slowly, what has settled is taken over. True if all of it is."""
        dt_s, self._slow_s = min(at_s - self._slow_s, 1.0), at_s
        moves = self._above(cast(Cells, cv2.absdiff(detail, self._recent)))
        self._recent = detail
        quiet = cv2.countNonZero(self._moves.take(moves, dt_s)) < _QUIET * moves.size
        self._quiet_s = self._quiet_s + dt_s if quiet else 0.0
        wide = cv2.countNonZero(differs) > _WIDE * differs.size
        if wide and self._quiet_s >= _QUIET_S and cv2.countNonZero(moves) < _WIDE / 2 * moves.size:
            self._take_over(detail, at_s)
            return True
        rate = 1 - math.exp(-dt_s / _LEARN_S)
        still = cv2.bitwise_not(differs)
        cv2.accumulateWeighted(detail, self._background, rate, still)
        cv2.accumulateWeighted(off, self._deviation, rate, still)
        self._settled_s += np.where(moves > 0, -2 * dt_s, dt_s)  # a drop of rain is not the end of it
        np.maximum(self._settled_s, 0.0, out=self._settled_s)
        self._settled_s[still > 0] = 0.0
        np.copyto(self._background, detail, where=self._settled_s > _SETTLED_S)
        self._prepare()
        return False


class _Lasting:
    """Which cells were set in the pictures before too, there or beside it: a drop of rain is somewhere else."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self._once = self._twice = np.zeros(shape, np.uint8)

    def take(self, cells: Image, dt_s: float) -> Image:
        """Of two pictures in a row; of three, where that costs little time."""
        near = cv2.dilate(self._twice if dt_s < _QUICK_S else self._once, _SQUARE)
        self._twice = cast(Image, cv2.bitwise_and(cells, cv2.dilate(self._once, _SQUARE)))
        self._once = cells
        return cast(Image, cv2.bitwise_and(cells, near))


def _patch(cells: Image) -> bool:
    """Whether so many lie together that no rain explains it, in one picture alone."""
    return float(cv2.blur(cells, (7, 7)).max()) >= _PATCH * 255 - 1


def _spot(cells: Image) -> bool:
    """Whether enough of these cells (0 or 255) lie together."""
    return float(cv2.blur(cells, (3, 3)).max()) >= _TOGETHER / 9 * 255 - 1
