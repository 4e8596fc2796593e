"""Constant-velocity Kalman filters of all boxes of one camera at once, with the time that really passed. Pure.

State of each box: centre x, y with their velocities (white acceleration noise), width and height (random walks). Each
axis is a filter of its own, and x and y share their covariance, since they have the same noise. All noises scale with
the size of the box, s = sqrt(w h): a large object is measured less exactly, and turns less quickly, in pixels.

    predict:  p <- p + v dt,  P <- F P F^T + a^2 s^2 [[dt^4/4, dt^3/2], [dt^3/2, dt^2]]
    update:   K = P H^T / (P_pp + r^2 s^2),  x <- x + K (z - p),  P <- (1 - K H) P
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ACCELERATION: Final = 2.0
"""a: box sizes per second squared; a walking person turns round within about a second"""
MEASUREMENT: Final = 0.07
"""r: box sizes; the spread of a good detector's centres on a still object"""
FIRST_SPEED: Final = 4.0
"""box sizes per second: the standard deviation of a speed of which nothing is known"""
FLOW_SPEED: Final = 1.0
"""box sizes per second: the same, where the objects around it say how things move here"""
SIZE_DRIFT: Final = 0.3
"""share of the size per root second, of width and height"""
SIZE_MEASUREMENT: Final = 0.1
"""share of the size, of width and height"""


class BoxFilters:
    """One row a track. `centre`, `speed`, `size`: [N, 2], in pixels (and per second); `covariance`: [N, 3], the
    entries pp, pv, vv of each axis; `size_variance`: [N], as a share of the size squared."""

    def __init__(self) -> None:
        self.centre: Floats = np.empty((0, 2))
        self.speed: Floats = np.empty((0, 2))
        self.size: Floats = np.empty((0, 2))
        self.covariance: Floats = np.empty((0, 3))
        self.size_variance: Floats = np.empty(0)

    def __len__(self) -> int:
        return len(self.centre)

    def add(self, boxes: Floats, speed: Floats | None) -> None:
        """New rows from boxes [N, 4] (x0, y0, x1, y1). `speed` [2]: how neighbours move; None: nothing is known."""
        centre, size = centre_and_size(boxes)
        scale_sq = size.prod(axis=1)
        speed_sd = FIRST_SPEED if speed is None else FLOW_SPEED
        covariance = np.zeros((len(boxes), 3))
        covariance[:, 0] = MEASUREMENT**2 * scale_sq
        covariance[:, 2] = speed_sd**2 * scale_sq
        first = np.zeros_like(centre) if speed is None else np.broadcast_to(speed, centre.shape)
        self.centre = np.concatenate([self.centre, centre])
        self.speed = np.concatenate([self.speed, first])
        self.size = np.concatenate([self.size, size])
        self.covariance = np.concatenate([self.covariance, covariance])
        self.size_variance = np.concatenate([self.size_variance, np.full(len(boxes), SIZE_MEASUREMENT**2)])

    def keep(self, rows: NDArray[np.bool_]) -> None:
        """Only these rows stay."""
        self.centre, self.speed, self.size = self.centre[rows], self.speed[rows], self.size[rows]
        self.covariance, self.size_variance = self.covariance[rows], self.size_variance[rows]

    def predict(self, dt_s: float) -> None:
        """All rows, `dt_s` later."""
        self.centre = self.centre + self.speed * dt_s
        noise = (ACCELERATION * dt_s) ** 2 * self.size[:, 0] * self.size[:, 1]
        pp, pv, vv = self.covariance.T  # views: the entries change in place, in this order
        pp += dt_s * (2 * pv + dt_s * vv) + dt_s**2 / 4 * noise
        pv += dt_s * vv + dt_s / 2 * noise
        vv += noise
        self.size_variance = self.size_variance + SIZE_DRIFT**2 * dt_s

    def update(self, rows: NDArray[np.intp], boxes: Floats) -> None:
        """Measured `boxes` [len(rows), 4] of these rows."""
        centre, size = centre_and_size(boxes)
        pp, pv, vv = self.covariance[rows].T
        total = pp + self.measurement_variance()[rows]
        gain_p, gain_v = pp / total, pv / total
        off = centre - self.centre[rows]
        self.centre[rows] += gain_p[:, None] * off
        self.speed[rows] += gain_v[:, None] * off
        self.covariance[rows] = np.array([(1 - gain_p) * pp, (1 - gain_p) * pv, vv - gain_v * pv]).T
        variance = self.size_variance[rows]
        gain = variance / (variance + SIZE_MEASUREMENT**2)
        self.size[rows] += gain[:, None] * (size - self.size[rows])
        self.size_variance[rows] = (1 - gain) * variance

    def measurement_variance(self) -> Floats:
        """[N], pixels squared, of a measured centre on each axis."""
        variance: Floats = MEASUREMENT**2 * self.size[:, 0] * self.size[:, 1]
        return variance

    def boxes(self) -> Floats:
        """[N, 4], x0, y0, x1, y1."""
        half = self.size / 2
        return np.concatenate([self.centre - half, self.centre + half], axis=1)


def centre_and_size(boxes: Floats) -> tuple[Floats, Floats]:
    """[N, 2] each, of boxes [N, 4]; a size is at least one pixel."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return (low + high) / 2, np.maximum(high - low, 1.0)
