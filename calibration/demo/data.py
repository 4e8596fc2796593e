"""Rendered data of the demo model: endless training batches, held-out sets and the detector's training targets.

Every picture is a pure function of (set seed, number); backgrounds of the held-out set are never used in training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edged.synthetic.scene import LABELS, Image, sample, textures

WIDTH, HEIGHT, STRIDE = 320, 192, 8
GRID_WIDTH, GRID_HEIGHT = WIDTH // STRIDE, HEIGHT // STRIDE
CLASSES = len(LABELS)

TRAINING_TEXTURES, HELD_OUT_TEXTURES = 1, 2  # seeds
TEXTURE_COUNT = 96
CALIBRATION_SEED, HELD_OUT_SEED = 500_000, 900_001
_MIN_SIGMA = 0.45  # cells


@dataclass(frozen=True)
class Labelled:
    """One picture: BGR uint8 [HEIGHT, WIDTH, 3], boxes [n, 4] (x0, y0, x1, y1) in pixels, class ids [n]."""

    image: Image
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """A training batch: images uint8 [b, HEIGHT, WIDTH, 3] and per cell of the grid (h, w):

    `heat` [b, CLASSES, h, w] is 1 at an object's centre and falls off as a Gaussian; `distances` [b, 4, h, w] to the
    left, top, right and bottom edge in cells, meant only where `positive` [b, h, w].
    """

    images: Image
    heat: NDArray[np.float32]
    distances: NDArray[np.float32]
    positive: NDArray[np.bool_]


def samples(seed: int, texture_seed: int) -> Iterator[Labelled]:
    """Endless independent pictures."""
    cv2.setNumThreads(1)
    grounds = textures(texture_seed, TEXTURE_COUNT, WIDTH, HEIGHT)
    number = 0
    while True:
        yield Labelled(*sample(np.random.default_rng((seed, number)), grounds, WIDTH, HEIGHT))
        number += 1


def held_out(count: int, seed: int = HELD_OUT_SEED) -> list[Labelled]:
    """The first `count` pictures of the evaluation set."""
    return [item for _, item in zip(range(count), samples(seed, HELD_OUT_TEXTURES), strict=False)]


def calibration_images(count: int) -> Image:
    """Pictures [count, HEIGHT, WIDTH, 3] from the training grounds, not used in training."""
    stream = samples(CALIBRATION_SEED, TRAINING_TEXTURES)
    return np.stack([next(stream).image for _ in range(count)])


def batches(seed: int, size: int) -> Iterator[Batch]:
    """Endless training batches."""
    stream = samples(seed, TRAINING_TEXTURES)
    while True:
        items = [next(stream) for _ in range(size)]
        heat, distances, positive = zip(*(targets(item.boxes, item.classes) for item in items), strict=True)
        yield Batch(np.stack([item.image for item in items]), np.stack(heat), np.stack(distances), np.stack(positive))


def targets(
    boxes: NDArray[np.float32], classes: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """(heat, distances, positive) of one picture, as in Batch but without the first axis."""
    shape = (GRID_HEIGHT, GRID_WIDTH)
    heat = np.zeros((CLASSES, *shape), np.float32)
    distances = np.zeros((4, *shape), np.float32)
    nearest = np.full(shape, np.inf, np.float32)  # squared distance of a cell to the centre of the box it predicts
    y, x = (axis.astype(np.float32) + np.float32(0.5) for axis in np.mgrid[:GRID_HEIGHT, :GRID_WIDTH])
    for (x0, y0, x1, y1), class_id in zip(boxes / STRIDE, classes, strict=True):
        dx, dy = x - (x0 + x1) / 2, y - (y0 + y1) / 2
        sigma_x, sigma_y = max((x1 - x0) / 6, _MIN_SIGMA), max((y1 - y0) / 6, _MIN_SIGMA)
        peak = np.exp(-0.5 * ((dx / sigma_x) ** 2 + (dy / sigma_y) ** 2))
        centre = (min(int((y0 + y1) / 2), GRID_HEIGHT - 1), min(int((x0 + x1) / 2), GRID_WIDTH - 1))
        peak[centre] = 1
        np.maximum(heat[class_id], peak, out=heat[class_id])
        edges = np.stack([x - x0, y - y0, x1 - x, y1 - y])
        near = (np.abs(dx) <= 1) & (np.abs(dy) <= 1) & (edges.min(axis=0) > 0)
        near[centre] = True
        squared = dx**2 + dy**2
        near &= squared < nearest
        nearest[near] = squared[near]
        distances[:, near] = edges[:, near]
    return heat, distances, np.isfinite(nearest)
