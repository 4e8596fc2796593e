"""Which detection is which track: overlap and distance in, pairs out. Pure.

The cost of a pair is 1 - IoU where predicted and measured box overlap. Small objects at a low frame rate do not overlap
even when the prediction is good, so a pair is also possible by distance: the Mahalanobis distance of the centres under
the prediction's covariance, with boxes of similar size. Such a pair costs between 1 and 2, so that overlap goes first.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from lap import lapjv
from numpy.typing import NDArray

from edged.tracking.kalman import BoxFilters, Floats, centre_and_size

GATE: Final = 9.21
"""chi-squared of two degrees of freedom at 99 %: a centre further away belongs to another object"""
SIZE_RATIO: Final = 1.8
"""between the sides of the predicted and the measured box; the same object does not change faster"""
_LOG_RATIO: Final = math.log(SIZE_RATIO)
OTHER_CLASS: Final = 0.4
"""extra cost where the class differs: variants of a model disagree on it now and then"""
NO_PAIR: Final = 2.0

Pairs = tuple[NDArray[np.intp], NDArray[np.intp]]


def costs(filters: BoxFilters, class_ids: NDArray[np.int64], boxes: Floats, classes: NDArray[np.int64]) -> Floats:
    """[tracks, detections]; NO_PAIR and above: impossible."""
    overlap = iou(filters.boxes(), boxes)
    centre, size = centre_and_size(boxes)
    off_x = filters.centre[:, :1] - centre[:, 0]
    off_y = filters.centre[:, 1:] - centre[:, 1]
    reach = GATE * (filters.covariance[:, 0] + filters.measurement_variance())
    distance = (off_x * off_x + off_y * off_y) / reach[:, None]  # 1 at the gate
    change = np.abs(np.log(filters.size)[:, None] - np.log(size))
    near = (distance < 1) & (change[:, :, 0] < _LOG_RATIO) & (change[:, :, 1] < _LOG_RATIO)
    # overlap counts from 0.1 where the distance agrees, from 0.3 where it does not
    cost = np.where(overlap >= np.where(near, 0.1, 0.3), 1.0 - overlap, NO_PAIR)
    np.minimum(cost, 1.0 + distance - overlap, out=cost, where=near)
    cost += OTHER_CLASS * (class_ids[:, None] != classes)
    return cost


def assign(cost: Floats, limit: float = NO_PAIR) -> Pairs:
    """Rows and columns of the cheapest assignment in which every pair costs less than `limit`."""
    if cost.size == 0:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    _, column_of, _ = lapjv(cost, extend_cost=True, cost_limit=limit)
    rows = np.flatnonzero(column_of >= 0)
    columns = column_of[rows].astype(np.intp)
    fits = cost[rows, columns] < limit
    return rows[fits], columns[fits]


def iou(first: Floats, second: Floats) -> Floats:
    """[N, M], of boxes [N, 4] and [M, 4]."""
    x0, y0, x1, y1 = first.T[:, :, None]
    u0, v0, u1, v1 = second.T
    shared = np.clip(np.minimum(x1, u1) - np.maximum(x0, u0), 0, None)
    shared *= np.clip(np.minimum(y1, v1) - np.maximum(y0, v0), 0, None)
    result: Floats = shared / np.maximum((x1 - x0) * (y1 - y0) + (u1 - u0) * (v1 - v0) - shared, 1e-9)
    return result
