"""NV12 into BGR, with the matrix and range that its PixelFormat names (ITU-R BT.601-7, BT.709-6). Pure; any thread."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edged.frames.frame import PixelFormat

Image = NDArray[np.uint8]


def _matrix(red_share: float, blue_share: float, full: bool) -> NDArray[np.float32]:
    """(3, 4): blue, green and red from luma, Cb, Cr and 1. The shares are those of red and blue in luma."""
    luma, chroma, offset = (1.0, 1.0, 0.0) if full else (255 / 219, 255 / 224, 16.0)
    blue, red = 2 * (1 - blue_share) * chroma, 2 * (1 - red_share) * chroma
    green_share = 1 - red_share - blue_share
    rows = np.array(
        [
            [luma, blue, 0.0],
            [luma, -blue * blue_share / green_share, -red * red_share / green_share],
            [luma, 0.0, red],
        ]
    )
    constant = -rows @ np.array([offset, 128.0, 128.0])
    return np.column_stack([rows, constant]).astype(np.float32)


MATRICES: Final = {
    PixelFormat.NV12: _matrix(0.299, 0.114, full=False),
    PixelFormat.NV12_FULL: _matrix(0.299, 0.114, full=True),
    PixelFormat.NV12_709: _matrix(0.2126, 0.0722, full=False),
    PixelFormat.NV12_709_FULL: _matrix(0.2126, 0.0722, full=True),
}


class Nv12ToBgr:
    """Converts pictures of one size; what it needs for that is allocated once."""

    def __init__(self, width: int, height: int) -> None:
        self._wide = np.empty((height, width, 2), np.uint8)
        self._all = np.empty((height, width, 3), np.uint8)

    def convert(self, luma: Image, chroma: Image, format: PixelFormat, into: Image) -> None:
        """`luma` (height, width), `chroma` (height // 2, width // 2, 2), into (height, width, 3)."""
        if format is PixelFormat.NV12:
            cv2.cvtColorTwoPlane(luma, chroma, cv2.COLOR_YUV2BGR_NV12, dst=into)
            return
        height, width = luma.shape
        cv2.resize(chroma, (width, height), dst=self._wide, interpolation=cv2.INTER_NEAREST)
        cv2.mixChannels([luma, self._wide], [self._all], [0, 0, 1, 1, 2, 2])
        cv2.transform(self._all, MATRICES[format], dst=into)
