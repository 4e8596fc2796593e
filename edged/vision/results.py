"""What a decoder gives for one frame. Arrays of their own, not views of an engine's memory. Pure data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Mask:
    """The cells of an object: `cells` bool (rows, columns); the first begins at `x`, `y` and each is `cell_width` x
    `cell_height`, all in source pixels."""

    cells: NDArray[np.bool_]
    x: float
    y: float
    cell_width: float
    cell_height: float


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects of a frame, best first: boxes float32 (N, 4) x0, y0, x1, y1 in source pixels, scores float32 (N,)
    0..1, class_ids int64 (N,).

    Where the model gives them: masks (N), keypoints float32 (N, K, 3) x, y in source pixels and confidence 0..1 (1
    where the model has none), corners float32 (N, 4, 2) of oriented boxes in source pixels, not clipped, in order
    around the box, the first edge being its width.
    """

    boxes: Floats
    scores: Floats
    class_ids: Indices
    masks: tuple[Mask, ...] | None = None
    keypoints: Floats | None = None
    corners: Floats | None = None

    def pick(self, rows: Sequence[int]) -> Detections:
        """Only these objects, in this order."""
        some = np.array(rows, np.intp)
        return Detections(
            self.boxes[some],
            self.scores[some],
            self.class_ids[some],
            None if self.masks is None else tuple(self.masks[row] for row in rows),
            None if self.keypoints is None else self.keypoints[some],
            None if self.corners is None else self.corners[some],
        )


def plain(found: Detections) -> bool:
    """Whether there is nothing but boxes."""
    return found.masks is None and found.keypoints is None and found.corners is None


def taken(found: Detections, at: Sequence[int]) -> Detections:
    """Some of the objects, in that order."""
    rows = np.array(at, np.int64)
    return Detections(
        found.boxes[rows],
        found.scores[rows],
        found.class_ids[rows],
        None if found.masks is None else tuple(found.masks[row] for row in at),
        None if found.keypoints is None else found.keypoints[rows],
        None if found.corners is None else found.corners[rows],
    )


NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
"""No object: the result of looking, not of failing."""


@dataclass(frozen=True, eq=False)
class Classes:
    """The best classes of a frame, best first: class_ids int64 (K,), scores float32 (K,) 0..1."""

    class_ids: Indices
    scores: Floats


@dataclass(frozen=True, eq=False)
class ClassMap:
    """A class for each cell of the picture: class_ids int64 (rows, columns), spread evenly over the source frame."""

    class_ids: Indices


@dataclass(frozen=True, eq=False)
class Embedding:
    """A vector float32 (D,) that stands for the picture."""

    vector: Floats


Predictions = Detections | Classes | ClassMap | Embedding
