"""What the motion gate misses: frames it called still and that were inferred all the same in, a bound out. Pure.

In a still picture nothing may be new. An object that two such frames in a row show, and that the last frame with motion
did not, came in without being seen: a miss. Each still frame that was looked at is one trial; the bound on their share
is that of a sequential test, valid at every look.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edged.accuracy_guard.sequential_test import MIN_SPACING_NS, SequentialTest
from edged.clock import NS_PER_S
from edged.tracking.association import iou

Boxes = NDArray[np.float32]

LIMIT: Final = 0.1
"""of the still frames looked at; the gate is opened where more is proven"""
RETRY_NS: Final = 600 * NS_PER_S
"""an opened gate is tried again after so long"""
SAME: Final = 0.2
"""overlap from which on a box is an object seen before: still objects keep their place"""


@dataclass(frozen=True)
class MissReport:
    """Of the still frames that were looked at, those with something new, and the bounds of that share; `low` and `high`
    are None before the first. `opened`: more than LIMIT is proven, so the gate is open."""

    looked_at: int
    missed: int
    low: float | None
    high: float | None
    opened: bool


@dataclass
class GateMisses:
    """One camera."""

    _before: Boxes = field(default_factory=lambda: np.empty((0, 4), np.float32))
    _suspects: Boxes = field(default_factory=lambda: np.empty((0, 4), np.float32))
    _test: SequentialTest = field(default_factory=SequentialTest)
    _last_ns: int | None = None
    _looked_at: int = 0
    _missed: int = 0
    _opened_ns: int | None = None

    def look(self, still: bool, sure: Boxes, boxes: Boxes, now_ns: int) -> None:
        """Take in a result: whether its frame was called still, the boxes (N, 4) of its sure detections and of all."""
        if self._opened_ns is not None and now_ns - self._opened_ns > RETRY_NS:
            self._opened_ns = None
            self._test.clear()
        if not still:
            self._before, self._suspects = boxes, sure[:0]
            return
        if self._last_ns is not None and now_ns - self._last_ns < MIN_SPACING_NS:
            return
        self._last_ns = now_ns
        new = sure[~_known(sure, self._before)]
        confirmed = bool(_known(new, self._suspects).any())
        self._suspects = new
        self._looked_at += 1
        self._missed += confirmed
        if confirmed:
            self._before = boxes  # the same object is missed once
        self._test.add(0.0 if confirmed else 1.0, now_ns)
        if self._opened_ns is None and self._test.below(1 - LIMIT) is not None:
            self._opened_ns = now_ns

    @property
    def opened(self) -> bool:
        return self._opened_ns is not None

    def report(self) -> MissReport:
        interval = self._test.interval()
        low, high = (None, None) if interval is None else (1 - interval.high, 1 - interval.low)
        return MissReport(self._looked_at, self._missed, low, high, self.opened)


def _known(boxes: Boxes, others: Boxes) -> NDArray[np.bool_]:
    """[N]: whether each box overlaps one of the others."""
    if not len(others):
        return np.zeros(len(boxes), bool)
    overlap = iou(boxes.astype(np.float64), others.astype(np.float64)).max(axis=1, initial=0.0)
    return np.asarray(overlap >= SAME)
