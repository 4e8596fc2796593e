"""Pictures of cameras as JPEGs of moderate size. Pure, any thread. Loads OpenCV, forty megabytes: import it late."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

QUALITY: Final = 80


def at_most(width: int, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`picture` (BGR, rows x columns x 3), scaled down to `width` if it is wider."""
    rows, columns = picture.shape[:2]
    if columns <= width:
        return picture
    size = (width, max(1, round(rows * width / columns)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def encoded(picture: NDArray[np.uint8]) -> bytes:
    """As a JPEG."""
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
