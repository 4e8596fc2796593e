"""A camera's picture as a JPEG of moderate size. Pure, any thread; the one module of its callers that loads OpenCV."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_WIDTH: Final = 1280
QUALITY: Final = 80


def jpeg_of(picture: NDArray[np.uint8]) -> bytes:
    """`picture`: BGR, rows x columns x 3."""
    height, width = picture.shape[:2]
    if width > MAX_WIDTH:
        size = (MAX_WIDTH, round(height * MAX_WIDTH / width))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
