"""Brightness, contrast and range of a picture as the engine gets it: is it like what the engine was calibrated on?

In: one frame of the engine's input (BGR, letterboxed) and where the picture lies in it. Out: four numbers, luma 0..255.
Measured on every few pixels, some 20 us a frame, on the engine loop's thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edged.vision.letterbox import Letterbox

ROWS: Final = 48
"""About so many rows, and as many more columns as the picture is wider, are looked at."""


@dataclass(frozen=True)
class Luma:
    """Mean and standard deviation over the picture, 1st and 99th percentile; 0..255."""

    brightness: float
    contrast: float
    low: float
    high: float


def measure(image: NDArray[np.uint8], letterbox: Letterbox) -> Luma:
    """Of the picture inside the padding of `image` (height, width, 3)."""
    bottom, right = letterbox.top + letterbox.scaled_height, letterbox.left + letterbox.scaled_width
    step = max(1, letterbox.scaled_height // ROWS)
    sample = np.ascontiguousarray(image[letterbox.top : bottom : step, letterbox.left : right : step])
    luma = cv2.cvtColor(sample, cv2.COLOR_BGR2GRAY)
    counts = np.bincount(luma.reshape(-1), minlength=256)
    levels = np.arange(256)
    pixels = int(counts.sum())
    mean = float(counts @ levels) / pixels
    variance = float(counts @ (levels - mean) ** 2) / pixels
    reached = np.cumsum(counts)
    low, high = (int(np.searchsorted(reached, share * pixels)) for share in (0.01, 0.99))
    return Luma(mean, variance**0.5, float(low), float(high))
