"""NV12 of each matrix and range gives the colours that were put in."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edged.bus.client import bgr
from edged.frames.colour import MATRICES, Nv12ToBgr
from edged.frames.frame import PixelFormat

NV12 = [format_ for format_ in PixelFormat if format_.is_nv12]


@pytest.mark.parametrize("format_", NV12)
def test_colours_come_back(format_: PixelFormat) -> None:
    colours = np.array([[30, 60, 200], [200, 180, 40], [128, 128, 128], [20, 20, 20], [235, 235, 235], [60, 200, 90]])
    matrix = MATRICES[format_].astype(np.float64)
    coded = np.rint(np.linalg.solve(matrix[:, :3], (colours - matrix[:, 3]).T).T)
    luma = np.repeat(coded[:, 0], 4).reshape(-1, 2, 2).transpose(1, 0, 2).reshape(2, -1).astype(np.uint8)
    chroma = coded[None, :, 1:].astype(np.uint8)
    out = np.empty((2, 12, 3), np.uint8)
    Nv12ToBgr(12, 2).convert(np.ascontiguousarray(luma), np.ascontiguousarray(chroma), format_, out)
    assert np.abs(out[0, ::2].astype(int) - colours).max() <= 3
    whole = np.vstack([luma, chroma.reshape(1, -1)])
    assert (bgr(whole, format_) == out).all()


def test_plain_nv12_is_what_opencv_makes_of_it() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (48, 32), np.uint8)
    assert (bgr(pixels, PixelFormat.NV12) == cv2.cvtColor(pixels, cv2.COLOR_YUV2BGR_NV12)).all()


def test_the_matrices_are_those_of_the_recommendations() -> None:
    bt601, bt709 = MATRICES[PixelFormat.NV12_FULL], MATRICES[PixelFormat.NV12_709_FULL]
    assert np.allclose(bt601[:, 1:3], [[1.772, 0], [-0.344136, -0.714136], [0, 1.402]], atol=1e-5)
    assert np.allclose(bt709[:, 1:3], [[1.8556, 0], [-0.187324, -0.468124], [0, 1.5748]], atol=1e-5)
    assert np.allclose(MATRICES[PixelFormat.NV12] @ [235, 128, 128, 1], 255, atol=1e-3)
    assert np.allclose(MATRICES[PixelFormat.NV12] @ [16, 128, 128, 1], 0, atol=1e-3)
