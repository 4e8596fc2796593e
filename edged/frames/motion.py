"""Whether anything moves in a camera's pictures: luma in, yes or no out. In the camera's child; cv2 and numpy.

At an eighth of the size, small pictures at a quarter or half. What is compared is the picture less its own local mean,
so that a change of light (a cloud, an exposure step) is none: d = luma - blur(luma). A background b of d is learnt;
motion is where |d - g b| exceeds what noise explains, over some cells together. g is the gain of the whole picture
against the background, by least squares.

A cell learns slowly while it is still, and takes over at once what has not changed for `_SETTLED_S`: a car that has
parked ends to be motion, one that creeps is motion again and again. Where much of the picture differs from the
background but not from the picture before (infrared switched, the camera was turned), all of it is taken over. What is
taken over is the median of the last pictures: a drop of rain is in one of them.

Cells are bytes: beside a decoder, which leaves nothing in the processor's caches, the time goes
into memory and not into arithmetic.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from edged.geometry import Point

Image = NDArray[np.uint8]
Cells = NDArray[np.uint8]
"""[rows, columns]: grey levels about _MIDDLE, or 255 where something is so and 0 elsewhere"""

_SHRINKS: Final = (8, 4, 2)
_LEAST_CELLS: Final = 20
"""along the shorter side. Of the running belt, at 64 x 48 to 640 x 360 pixels and each of _SHRINKS, 99 % of the frames
are motion from 20 cells on, some 90 % at 15, half of them at 8. At full size sensor noise would be motion."""
_MIDDLE: Final = 128
_SQUARE: Final = np.ones((3, 3), np.uint8)
_LOCAL: Final = (15, 15)
"""cells of the local mean: 120 pixels at an eighth of the size, as all that follows"""
_LEVEL: Final = 4.5
"""grey levels that a cell must differ by at sensitivity 1: a third of the contrast of dark clothes on a dark street"""
_MODERATE: Final = 25
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
_RECENT_S: Final = 0.18
"""age of the picture that tells whether something moves just now; a slow object moves a cell's part in it"""
_SETTLED_S: Final = 1.5
_QUIET_S: Final = 0.35
"""nearly without a move, before a picture that differs widely is taken over"""
_QUIET: Final = 0.01
"""share of the cells that may move then: rain does"""
_WIDE: Final = 0.1
"""share of the cells that differ then"""

_CONTRAST: Final = np.arange(256, dtype=np.float32) - _MIDDLE
_MODERATE_CONTRAST: Final = np.where(np.abs(_CONTRAST) < _MODERATE, _CONTRAST, np.float32(0))


class MotionDetector:
    """One camera. `sensitivity` above 1 sees weaker motion. `ignore`: polygons (shares of the picture) left out."""

    def __init__(
        self, width: int, height: int, sensitivity: float = 1.0, ignore: Sequence[Sequence[Point]] = ()
    ) -> None:
        self.shape = (height, width)
        self._shrink = shrink = next((n for n in _SHRINKS if min(width, height) // n >= _LEAST_CELLS), _SHRINKS[-1])
        self._size = columns, rows = max(1, width // shrink), max(1, height // shrink)
        self._least = np.full((rows, columns), int(_LEVEL / sensitivity), np.uint8)
        for polygon in ignore:
            corners = np.array([(x * columns, y * rows) for x, y in polygon])
            cv2.fillPoly(self._least, [np.round(corners).astype(np.int32)], 255)  # nothing differs by more
        self.suspects = False
        """whether something differed in the last picture: motion, or rain"""
        self._at_s: float | None = None
        self._slow_s = self._quiet_s = 0.0
        self._mean = self._deviation = np.empty(0, np.float32)
        self._background = self._limit = self._least
        self._recent: deque[Cells] = deque(maxlen=3)
        self._moderate: NDArray[np.float32] | None = None  # of the background, for the gain; None until it is needed
        self._power = 0.0
        self._settled = np.zeros((rows, columns), np.uint8)  # hundredths of a second
        self._moves, self._differs = _Lasting((rows, columns)), _Lasting((rows, columns))

    def look(self, luma: Image, at_s: float) -> bool:
        """Whether something moves in this picture (uint8, [height, width]), captured at `at_s`."""
        detail = self._detail(luma)
        if self._at_s is None:
            self._recent.extend([detail] * 3)
            self._take_over(at_s)
            return True
        dt_s, self._at_s = at_s - self._at_s, at_s
        gain = 1.0
        off = cv2.absdiff(detail, self._background)
        differs = cv2.compare(off, self._limit, cv2.CMP_GT)
        count = cv2.countNonZero(differs)
        if count >= _TOGETHER:  # the gain costs as much as all of the above, and in a still picture it is 1
            gain = self._gain(detail)
            off = cv2.absdiff(detail, _amplified(self._background, gain))
            differs = cv2.compare(off, self._limit, cv2.CMP_GT)
            count = cv2.countNonZero(differs)
        self.suspects = count >= _TOGETHER
        if at_s - self._slow_s >= _RECENT_S and self._learn(detail, gain, cells(off), cells(differs), count, at_s):
            count = 0
        lasting = self._differs.take(cells(differs), count, dt_s)
        return count > 0 and (_spot(lasting) or _patch(cells(differs)))

    def _detail(self, luma: Image) -> Cells:
        """Of each cell 2 rows: reading all of a picture costs more than all that is done with it."""
        (columns, rows), shrink = self._size, self._shrink
        some = cv2.resize(luma[:: shrink // 2], (min(4, shrink) * columns, rows), interpolation=cv2.INTER_AREA)
        smooth = cv2.blur(cv2.resize(some, self._size, interpolation=cv2.INTER_AREA), (3, 3))
        return cells(cv2.addWeighted(smooth, 1, cv2.blur(smooth, _LOCAL), -1, _MIDDLE))

    def _gain(self, detail: Cells) -> float:
        """By the cells of moderate contrast, of every fourth row: one bright object that goes is no change of light."""
        if self._moderate is None:
            self._moderate = _MODERATE_CONTRAST[self._background[::4]]
            self._power = float(np.vdot(self._moderate, self._moderate))
        if self._power < 1.0:
            return 1.0
        return min(max(float(np.vdot(_CONTRAST[detail[::4]], self._moderate)) / self._power, 0.5), 2.0)

    def _take_over(self, at_s: float) -> None:
        """The last pictures are the background from now on, and what differs among them is noise."""
        self._at_s = self._slow_s = at_s
        self._quiet_s = 0.0
        self._settled[:] = 0
        self._mean = _median(*self._recent).astype(np.float32)
        spread = np.max(self._recent, axis=0) - np.min(self._recent, axis=0)
        self._deviation = np.maximum(spread / np.float32(2), self._least / np.float32(_NOISE))
        self._prepare()

    def _prepare(self) -> None:
        """What each picture is compared with."""
        self._background, self._moderate = cells(cv2.convertScaleAbs(self._mean)), None
        self._limit = cells(cv2.max(cv2.convertScaleAbs(self._deviation, alpha=_NOISE), self._least))

    def _learn(self, detail: Cells, gain: float, off: Cells, differs: Cells, count: int, at_s: float) -> bool:
        """A few times a second: still cells learn slowly, what has settled is taken over. True if all of it is.
        `count`: cells that differ."""
        dt_s, self._slow_s = min(at_s - self._slow_s, 1.0), at_s
        moves = cells(cv2.compare(cv2.absdiff(detail, self._recent[-1]), self._limit, cv2.CMP_GT))
        self._recent.append(detail)
        moving = cv2.countNonZero(moves)
        quiet = cv2.countNonZero(self._moves.take(moves, moving, dt_s)) < _QUIET * moves.size
        self._quiet_s = self._quiet_s + dt_s if quiet else 0.0
        if count > _WIDE * differs.size and self._quiet_s >= _QUIET_S and moving < _WIDE / 2 * moves.size:
            self._take_over(at_s)
            return True
        rate = 1 - math.exp(-dt_s / _LEARN_S)
        still = cv2.bitwise_not(differs) if count else None
        cv2.accumulateWeighted(_amplified(detail, 1 / gain), self._mean, rate, still)
        cv2.accumulateWeighted(off, self._deviation, rate, still)
        if count:
            self._settle(differs, moves, gain, round(100 * dt_s))
        else:
            self._settled[:] = 0
        self._prepare()
        return False

    def _settle(self, differs: Cells, moves: Cells, gain: float, passed: int) -> None:
        """Cells that differ and have not moved for `_SETTLED_S` are taken over. `passed`: hundredths of a second."""
        # a move takes back twice as much as a look without one adds: a drop of rain is not the end of it
        cv2.addWeighted(self._settled, 1, moves, -3 * passed / 255, passed, self._settled)
        cv2.bitwise_and(self._settled, differs, self._settled)
        long = self._settled > 100 * _SETTLED_S
        if long.any():
            np.copyto(self._mean, _amplified(_median(*self._recent), 1 / gain), where=long)


class _Lasting:
    """Which cells were set in the pictures before too, there or beside it: a drop of rain is somewhere else."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self._once = self._twice = self._none = np.zeros(shape, np.uint8)

    def take(self, now: Cells, count: int, dt_s: float) -> Cells:
        """Of two pictures in a row; of three, where that costs little time. `count`: cells that are set now."""
        if count == 0:
            self._once = self._twice = self._none
            return self._none
        before = self._twice
        self._twice = cells(cv2.bitwise_and(now, cv2.dilate(self._once, _SQUARE)))
        self._once = now
        return cells(cv2.bitwise_and(now, cv2.dilate(before, _SQUARE))) if dt_s < _QUICK_S else self._twice


def cells(made: object) -> Cells:
    """What OpenCV made of cells: its type hints know no element types."""
    return cast(Cells, made)


def _amplified(detail: Cells, gain: float) -> Cells:
    """As in another light."""
    return detail if gain == 1.0 else cells(cv2.addWeighted(detail, gain, detail, 0, _MIDDLE * (1 - gain)))


def _median(a: Cells, b: Cells, c: Cells) -> Cells:
    return cells(cv2.max(cv2.min(a, b), cv2.min(cv2.max(a, b), c)))


def _patch(differs: Cells) -> bool:
    """Whether so many lie together that no rain explains it, in one picture alone."""
    return float(cv2.blur(differs, (7, 7)).max()) >= _PATCH * 255 - 1


def _spot(lasting: Cells) -> bool:
    """Whether enough of these cells (0 or 255) lie together."""
    return float(cv2.blur(lasting, (3, 3)).max()) >= _TOGETHER / 9 * 255 - 1
