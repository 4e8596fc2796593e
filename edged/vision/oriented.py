"""Oriented boxes: their corners, their overlap, and suppression by it. Pure arithmetic, any thread.

A box is cx, cy, w, h and an angle in radians, from the x axis towards the y axis of the picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edged.vision.nms import greedy
from edged.vision.results import Floats, Indices


def corners(boxes: Floats, angles: Floats) -> Floats:
    """(N, 4) and (N,) -> corners (N, 4, 2), in order around the box; the first edge is its width."""
    cos, sin = np.cos(angles), np.sin(angles)
    across = np.stack((cos, sin), axis=-1) * boxes[:, 2:3] / 2
    along = np.stack((-sin, cos), axis=-1) * boxes[:, 3:4] / 2
    center = boxes[:, :2]
    found: Floats = np.stack(
        (center - across - along, center + across - along, center + across + along, center - across + along), axis=1
    ).astype(np.float32)
    return found


def oriented_nms(boxes: Floats, angles: Floats, class_ids: Indices, iou_threshold: float, limit: int) -> Indices:
    """Class-aware greedy suppression by `overlap`: which of the boxes, given best first, to keep, at most `limit`."""
    if iou_threshold >= 1:
        return np.arange(min(len(boxes), limit))
    spread = _covariances(boxes, angles)

    def suppresses(a: Indices, b: Indices) -> NDArray[np.bool_]:
        similar: NDArray[np.bool_] = _overlap(boxes, spread, a, b) > iou_threshold
        similar &= class_ids[a][:, None] == class_ids[b]
        return similar

    return greedy(len(boxes), suppresses, limit)


def overlap(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """(n, 5) and (m, 5), cx, cy, w, h, angle -> (n, m): one less the Hellinger distance of the Gaussians that have the
    boxes' centres and spread, 0..1 (Llerena et al., Gaussian bounding boxes and probabilistic IoU, 2021)."""
    boxes = np.concatenate((a, b)).astype(np.float64)
    first, second = np.arange(len(a)), np.arange(len(a), len(boxes))
    return _overlap(boxes[:, :4], _covariances(boxes[:, :4], boxes[:, 4]), first, second)


def _covariances(boxes: NDArray[Any], angles: NDArray[Any]) -> NDArray[np.float64]:
    """(3, N): the variances along x and y and the covariance of a uniform box."""
    wide, high = (np.square(boxes[:, side].astype(np.float64)) / 12 for side in (2, 3))
    cos, sin = np.cos(angles), np.sin(angles)
    return np.stack((wide * cos**2 + high * sin**2, wide * sin**2 + high * cos**2, (wide - high) * cos * sin))


def _overlap(boxes: NDArray[Any], spread: NDArray[np.float64], a: Indices, b: Indices) -> NDArray[np.float64]:
    first, second = spread[:, a][:, :, None], spread[:, b][:, None]
    xx, yy, xy = first + second
    dx = (boxes[a, 0][:, None] - boxes[b, 0]).astype(np.float64)
    dy = (boxes[a, 1][:, None] - boxes[b, 1]).astype(np.float64)
    determinant = np.maximum(xx * yy - xy**2, 1e-12)
    distance = 0.25 * (yy * dx**2 + xx * dy**2 - 2 * xy * dx * dy) / determinant
    own = np.maximum(spread[0] * spread[1] - spread[2] ** 2, 0)
    both = np.sqrt(own[a])[:, None] * np.sqrt(own[b])
    distance += 0.5 * np.log(np.maximum(determinant / (4 * both + 1e-12), 1e-12))
    similar: NDArray[np.float64] = 1 - np.sqrt(1 - np.exp(-distance.clip(0, 100)) + 1e-12)
    return similar.clip(0, 1)
