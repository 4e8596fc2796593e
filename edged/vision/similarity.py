"""How much the objects of two results are the same: 0..1 for each pair, by what the model gives of them.

Masks by the cells they share, key points by object key point similarity, oriented boxes by the overlap of their
Gaussians, all else by intersection over union. Pure arithmetic, any thread.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from edged.vision.oriented import overlap
from edged.vision.results import Detections, Floats, Mask

Matrix = NDArray[np.float64]

_COCO_POINTS: Final = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89], np.float64) / 500
"""Per-point constants k = 2 sigma of the 17 points of a person, from the COCO key point evaluation."""

_POINT: Final = 0.1
"""k of a point of which nothing is known."""
_SURE: Final = 0.5


def similarity(a: Detections, b: Detections) -> Matrix:
    """(len(a), len(b)); `a` is the reference where the measure is not symmetric."""
    if a.masks is not None and b.masks is not None:
        return mask_iou(a.masks, b.masks)
    if a.keypoints is not None and b.keypoints is not None:
        return _keypoint_similarity(a, b)
    if a.corners is not None and b.corners is not None:
        return overlap(_as_oriented(a.corners), _as_oriented(b.corners))
    return box_iou(a.boxes, b.boxes)


def box_iou(a: Floats, b: Floats) -> Matrix:
    """Intersection over union of boxes (n, 4) and (m, 4)."""
    first, second = a.astype(np.float64)[:, None], b.astype(np.float64)[None]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    common = sides.clip(0).prod(axis=-1)
    area_a, area_b = ((boxes[..., 2:] - boxes[..., :2]).prod(axis=-1) for boxes in (first, second))
    iou: Matrix = common / np.maximum(area_a + area_b - common, 1e-9)
    return iou


def mask_iou(a: tuple[Mask, ...], b: tuple[Mask, ...]) -> Matrix:
    """Intersection over union of masks on one grid, as those of one frame are."""
    found = np.zeros((len(a), len(b)))
    for i, first in enumerate(a):
        for j, second in enumerate(b):
            common = _common(first, second)
            union = int(first.cells.sum()) + int(second.cells.sum()) - common
            found[i, j] = common / union if union else 1.0  # two objects without a cell
    return found


def _common(a: Mask, b: Mask) -> int:
    """How many cells both have."""
    right, down = round((b.x - a.x) / a.cell_width), round((b.y - a.y) / a.cell_height)
    rows, columns = a.cells.shape
    top, left = max(down, 0), max(right, 0)
    bottom, end = min(rows, down + b.cells.shape[0]), min(columns, right + b.cells.shape[1])
    if top >= bottom or left >= end:
        return 0
    return int((a.cells[top:bottom, left:end] & b.cells[top - down : bottom - down, left - right : end - right]).sum())


def _keypoint_similarity(a: Detections, b: Detections) -> Matrix:
    """exp(-d^2 / (2 s^2 k^2)), the mean over the points that `a` is sure of; s^2 is the area of its box."""
    assert a.keypoints is not None and b.keypoints is not None
    count = a.keypoints.shape[1]
    scale = _COCO_POINTS if count == len(_COCO_POINTS) else np.full(count, _POINT)
    area = np.maximum((a.boxes[:, 2:] - a.boxes[:, :2]).astype(np.float64).prod(axis=1), 1.0)
    apart = a.keypoints[:, None, :, :2].astype(np.float64) - b.keypoints[None, :, :, :2]
    each = np.exp(-np.square(apart).sum(axis=-1) / (2 * area[:, None, None] * np.square(scale)))
    weights = (a.keypoints[..., 2] >= _SURE).astype(np.float64)
    weights[weights.sum(axis=1) == 0] = 1.0
    found: Matrix = (each * weights[:, None]).sum(axis=-1) / weights.sum(axis=1)[:, None]
    return found


def _as_oriented(corners: Floats) -> Matrix:
    """Corners (n, 4, 2) in order around the box -> cx, cy, w, h, angle."""
    points = corners.astype(np.float64)
    wide, high = points[:, 1] - points[:, 0], points[:, 2] - points[:, 1]
    size = np.stack((np.linalg.norm(wide, axis=1), np.linalg.norm(high, axis=1)), axis=1)
    return np.concatenate((points.mean(axis=1), size, np.arctan2(wide[:, 1], wide[:, 0])[:, None]), axis=1)
