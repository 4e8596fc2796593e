"""The tracks of one camera: the detections of a frame in, an identity for each of them out. Pure.

Two-stage association after ByteTrack (Zhang et al. 2022): sure detections take their tracks first, unsure ones may only
continue a track that would otherwise be missed. All times are seconds of capture, since the frame rate varies with
the budget. A frame that was not inferred says nothing: a track ends only after it was missing from several frames
that were, and for some time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edged.tracking.association import assign, costs, iou
from edged.tracking.kalman import BoxFilters, Floats

SAME_OBJECT: Final = 0.7
"""overlap with a detection that has its track: two labels on one object are one object"""
SURE: Final = 0.5
"""a score that may begin a track"""
CONFIRMED_AFTER: Final = 2
"""frames with the object, before it gets an identity: a detector's blunder seldom comes twice at one place"""
MISSED_AT_LEAST: Final = 3
"""frames without the object, before its track ends"""
LOST_S: Final = 1.0
"""seconds without the object, before its track ends"""
COUNTED_GAP_S: Final = 0.5
"""of a longer gap between two frames only so much counts as time without the object: nobody looked"""
FLOW_OF: Final = 3
"""confirmed tracks, from which on their median speed is the first guess for a new one"""

UNTRACKED: Final = 0


@dataclass(frozen=True)
class Ended:
    """A track that is over; `seen_s` is when its object was last seen."""

    track: int
    seen_s: float


class Tracker:
    """Identities count from 1 and never come back."""

    def __init__(self, first: int = 1) -> None:
        self._filters = BoxFilters()
        self._next = first
        self._at_s: float | None = None
        self._ids = np.empty(0, np.int64)  # UNTRACKED until confirmed
        self._classes = np.empty(0, np.int64)
        self._hits = np.empty(0, np.int64)
        self._missed = np.empty(0, np.int64)
        self._missed_s = np.empty(0)
        self._seen_s = np.empty(0)

    def update(
        self, at_s: float, boxes: Floats, scores: Floats, classes: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], list[Ended]]:
        """The identity of each detection of a frame captured at `at_s`, UNTRACKED where it has none yet, and the
        tracks that are over. `boxes` [N, 4] x0, y0, x1, y1 in pixels, `scores` and `classes` [N]."""
        dt_s = 0.0 if self._at_s is None else max(at_s - self._at_s, 0.0)
        self._at_s = at_s
        if len(self._filters):
            self._filters.predict(dt_s)
        identities = np.zeros(len(boxes), np.int64)
        cost = costs(self._filters, self._classes, boxes, classes)
        sure = scores >= SURE
        cost[:, ~sure] += 10.0  # not in the first round
        rows, columns = assign(cost)
        free = np.ones(len(self._filters), bool)
        free[rows] = False
        cost[:, ~sure] -= 10.0
        left, unsure = np.flatnonzero(free & (self._hits >= CONFIRMED_AFTER)), np.flatnonzero(~sure)
        more = assign(cost[np.ix_(left, unsure)])
        rows, columns = np.concatenate([rows, left[more[0]]]), np.concatenate([columns, unsure[more[1]]])

        self._take(rows, columns, boxes, classes, at_s)
        identities[columns] = self._ids[rows]
        taken = np.zeros(len(boxes), bool)
        taken[columns] = True
        new = sure & ~taken
        if new.any():
            new &= ~_repeats(boxes, np.where(taken, np.inf, scores))
        ended = self._miss(rows, dt_s)
        self._begin(boxes[new], classes[new], at_s)
        return identities, ended

    def speeds(self) -> dict[int, tuple[float, float]]:
        """Pixels per second of each confirmed track."""
        return {int(i): (float(v[0]), float(v[1])) for i, v in zip(self._ids, self._filters.speed, strict=True) if i}

    def _take(
        self, rows: NDArray[np.intp], columns: NDArray[np.intp], boxes: Floats, classes: NDArray[np.int64], at_s: float
    ) -> None:
        if not len(rows):
            return
        self._filters.update(rows, boxes[columns])
        self._hits[rows] += 1
        self._missed[rows] = 0
        self._missed_s[rows] = 0.0
        self._seen_s[rows] = at_s
        self._classes[rows] = classes[columns]
        for row in rows[(self._ids[rows] == UNTRACKED) & (self._hits[rows] >= CONFIRMED_AFTER)]:
            self._ids[row] = self._next
            self._next += 1

    def _miss(self, rows: NDArray[np.intp], dt_s: float) -> list[Ended]:
        """Count the tracks that this frame does not show, and part with those that are over."""
        missing = np.ones(len(self._filters), bool)
        missing[rows] = False
        self._missed[missing] += 1
        self._missed_s[missing] += min(dt_s, COUNTED_GAP_S)
        tentative = self._hits < CONFIRMED_AFTER
        over = missing & (tentative | ((self._missed >= MISSED_AT_LEAST) & (self._missed_s >= LOST_S)))
        if not over.any():
            return []
        ended = [Ended(int(self._ids[i]), float(self._seen_s[i])) for i in np.flatnonzero(over) if self._ids[i]]
        stay = ~over
        self._filters.keep(stay)
        self._ids, self._classes, self._hits = self._ids[stay], self._classes[stay], self._hits[stay]
        self._missed, self._missed_s, self._seen_s = self._missed[stay], self._missed_s[stay], self._seen_s[stay]
        return ended

    def _begin(self, boxes: Floats, classes: NDArray[np.int64], at_s: float) -> None:
        if not len(boxes):
            return
        moving = self._filters.speed[self._ids != UNTRACKED]
        self._filters.add(boxes, np.median(moving, axis=0) if len(moving) >= FLOW_OF else None)
        n = len(boxes)
        self._ids = np.concatenate([self._ids, np.zeros(n, np.int64)])
        self._classes = np.concatenate([self._classes, classes])
        self._hits = np.concatenate([self._hits, np.ones(n, np.int64)])
        self._missed = np.concatenate([self._missed, np.zeros(n, np.int64)])
        self._missed_s = np.concatenate([self._missed_s, np.zeros(n)])
        self._seen_s = np.concatenate([self._seen_s, np.full(n, at_s)])


def _repeats(boxes: Floats, ranks: Floats) -> NDArray[np.bool_]:
    """[N]: whether a box is nearly that of another one of higher rank, or of the same rank and earlier."""
    same = iou(boxes, boxes) >= SAME_OBJECT
    better = (ranks[None] > ranks[:, None]) | ((ranks[None] == ranks[:, None]) & np.tri(len(boxes), k=-1, dtype=bool))
    result: NDArray[np.bool_] = (same & better).any(axis=1)
    return result
