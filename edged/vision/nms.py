"""Non-maximum suppression, and the way from candidates in input pixels to the objects of a source frame.

Block by block, so that the memory it takes is bounded for any number of candidates. Pure arithmetic, any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edged.vision.letterbox import Letterbox
from edged.vision.results import Detections, Floats, Indices

_BLOCK = 64  # candidates that NMS compares with each other at once: 64 x 64 fits the cache
_LATER = np.triu(np.ones((_BLOCK, _BLOCK), bool), 1)  # row i, column j: j comes after i

Overlap = Callable[[Indices, Indices], NDArray[np.bool_]]
"""(a, b) -> (len(a), len(b)): whether each of the candidates `a` suppresses each of `b`."""


class Selection(Protocol):
    """The limits that a decoder's declaration sets to its objects."""

    @property
    def iou_threshold(self) -> float: ...

    @property
    def max_detections(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Selected:
    """The objects of a frame, and which candidates they were."""

    detections: Detections
    kept: Indices


def select(boxes: Floats, scores: Floats, class_ids: Indices, spec: Selection, letterbox: Letterbox) -> Selected:
    """From candidates in input pixels, best first, to the detections: NMS, source pixels, nothing in the padding."""
    kept = nms(boxes, class_ids, spec.iou_threshold, spec.max_detections)
    return placed(boxes, scores, class_ids, kept, letterbox)


def placed(boxes: Floats, scores: Floats, class_ids: Indices, kept: Indices, letterbox: Letterbox) -> Selected:
    """The candidates `kept` as detections of the source frame, without those that lie in the padding."""
    source = letterbox.unmap(boxes[kept])
    visible = source[:, 2:] > source[:, :2]
    if not visible.all():
        rows = visible.all(axis=1)
        kept, source = kept[rows], source[rows]
    return Selected(Detections(source, scores[kept], class_ids[kept]), kept)


def nms(boxes: Floats, class_ids: Indices, iou_threshold: float, limit: int) -> Indices:
    """Class-aware greedy non-maximum suppression: which of the boxes, given best first, to keep, at most `limit`."""
    if iou_threshold >= 1:
        return np.arange(min(len(boxes), limit))
    return greedy(len(boxes), lambda a, b: _overlap(boxes, class_ids, a, b, iou_threshold), limit)


def greedy(count: int, overlap: Overlap, limit: int) -> Indices:
    """Greedy suppression of `count` candidates, best first, by any measure of overlap."""
    kept = np.zeros(0, np.int64)
    for start in range(0, count, _BLOCK):
        block = np.arange(start, min(start + _BLOCK, count))
        if kept.size:
            block = block[~overlap(block, kept).any(axis=1)]
        if block.size > 1:
            # row i, column j: i suppresses j, should i itself be kept
            hits = overlap(block, block) & _LATER[: block.size, : block.size]
            suppressing = np.flatnonzero(hits.any(axis=1)).tolist()
            if suppressing:
                keep = np.ones(block.size, bool)
                for i in suppressing:
                    if keep[i]:
                        keep &= ~hits[i]
                block = block[keep]
        kept = np.concatenate((kept, block)) if start else block
        if kept.size >= limit:
            break
    return kept[:limit]


def _overlap(boxes: Floats, class_ids: Indices, a: Indices, b: Indices, iou_threshold: float) -> NDArray[np.bool_]:
    """(len(a), len(b)): whether they are of one class and their intersection over union is above the threshold."""
    first, second = boxes[a].T, boxes[b].T
    x0, y0, x1, y1 = first[:, :, None]
    common, high = np.minimum(x1, second[2]), np.minimum(y1, second[3])
    common -= np.maximum(x0, second[0])
    high -= np.maximum(y0, second[1])
    np.maximum(common, 0, out=common)
    np.maximum(high, 0, out=high)
    common *= high
    union = _area(first)[:, None] + _area(second) - common
    overlap: NDArray[np.bool_] = common > iou_threshold * union
    overlap &= class_ids[a][:, None] == class_ids[b]
    return overlap


def _area(boxes: Floats) -> Floats:
    """Of (4, n)."""
    area: Floats = (boxes[2] - boxes[0]) * (boxes[3] - boxes[1])
    return area
