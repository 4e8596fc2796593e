"""How pictures are shown: every combination of turning, mirroring, cropping and pixel shapes, against plain NumPy."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edged.config import CameraConfig
from edged.errors import EdgedError
from edged.frames.frame import PixelFormat
from edged.frames.ring import MAX_SIDE, RingSpec
from edged.frames.sources.base import Grabbed, SourceInfo
from edged.frames.video.view import ViewedSource, apply, view_of

WIDTH, HEIGHT = 64, 48


def config(**keys: object) -> CameraConfig:
    return CameraConfig(name="cam", source="test://1", **keys)  # type: ignore[arg-type]


def info(format_: PixelFormat = PixelFormat.BGR24, **keys: object) -> SourceInfo:
    return SourceInfo(WIDTH, HEIGHT, format_, 30, "test", **keys)  # type: ignore[arg-type]


def picture(format_: PixelFormat) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, RingSpec(WIDTH, HEIGHT, format_).shape, np.uint8)


def shown(source: SourceInfo, camera: CameraConfig, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    view = view_of(source, camera)
    assert view is not None
    into = np.empty(RingSpec(*view.shown_size, source.format).shape, np.uint8)
    apply(view, source, pixels, into)
    return into


def test_what_needs_nothing_has_no_view() -> None:
    assert view_of(info(), config()) is None
    assert view_of(info(turn=90), config(rotate=0)) is None
    assert view_of(info(), config(crop=(0, 0, 1, 1), aspect="4:3")) is None


@pytest.mark.parametrize(
    ("turn", "mirrored", "crop"),
    [*itertools.product([0, 90, 180, 270], [False, True], [(0, 0, 1, 1), (0.25, 0, 1, 0.5), (0.5, 0.25, 0.75, 1)])],
)
def test_turned_mirrored_and_cropped(turn: int, mirrored: bool, crop: tuple[float, float, float, float]) -> None:
    if not turn and not mirrored and crop == (0, 0, 1, 1):
        return
    pixels = picture(PixelFormat.BGR24)
    whole = np.rot90(pixels[:, ::-1] if mirrored else pixels, -turn // 90)
    rows, columns = whole.shape[:2]
    x0, y0, x1, y1 = (round(share * side) for share, side in zip(crop, (columns, rows) * 2, strict=True))
    got = shown(info(turn=turn, mirrored=mirrored), config(crop=crop), pixels)
    assert (got == whole[y0:y1, x0:x1]).all()


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_nv12_is_turned_with_its_colour(turn: int) -> None:
    pixels = picture(PixelFormat.NV12)
    got = shown(info(PixelFormat.NV12), config(rotate=turn), pixels)
    height = got.shape[0] * 2 // 3
    assert (got[:height] == np.rot90(pixels[:HEIGHT], -turn // 90)).all()
    chroma = np.rot90(pixels[HEIGHT:].reshape(HEIGHT // 2, WIDTH // 2, 2), -turn // 90)
    assert (got[height:].reshape(chroma.shape) == chroma).all()


@pytest.mark.parametrize(
    ("signalled", "aspect", "size"),
    [
        (20 / 11, None, (116, 48)),
        (0.5, None, (64, 96)),
        (1.01, None, None),
        (0.0, None, None),
        (100.0, None, None),
        (1 / 90, None, None),
        (100.0, "16:9", (86, 48)),
        (2.0, "4:3", None),
        (1.0, "1:1", (64, 64)),
    ],
)
def test_square_pixels(signalled: float, aspect: str | None, size: tuple[int, int] | None) -> None:
    view = view_of(info(pixel_aspect=signalled), config(aspect=aspect))
    assert (None if view is None else view.shown_size) == size


def test_a_circle_is_a_circle_again() -> None:
    oval = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    cv2.ellipse(oval, (32, 24), (10, 20), 0, 0, 360, (255, 255, 255), -1)
    got = shown(info(pixel_aspect=2.0), config(), oval)[..., 0] > 128
    assert abs(got.any(0).sum() - got.any(1).sum()) <= 2


@given(
    st.integers(2, MAX_SIDE // 2),
    st.integers(2, MAX_SIDE // 2),
    st.floats(0, 200, allow_nan=False),
    st.sampled_from([0, 90, 180, 270]),
    st.booleans(),
)
def test_any_size_is_one_that_a_ring_can_hold(width: int, height: int, aspect: float, turn: int, mirror: bool) -> None:
    source = SourceInfo(2 * width, 2 * height, PixelFormat.NV12, None, "x", True, aspect, turn, mirror)
    view = view_of(source, config())
    across, down = (2 * width, 2 * height) if view is None else view.shown_size
    assert across % 2 == down % 2 == 0
    assert 2 <= across <= MAX_SIDE and 2 <= down <= MAX_SIDE


def test_a_crop_that_leaves_nothing_is_a_sentence() -> None:
    with pytest.raises(EdgedError, match="crop leaves nothing of a picture of 64x48"):
        view_of(info(), config(crop=(0.5, 0, 0.51, 1)))


class Still:
    """A source that changes its size after its first picture."""

    cost = None

    def __init__(self) -> None:
        self.info = info()

    def grab(self) -> Grabbed:
        return Grabbed(1)

    def retrieve(self, into: NDArray[np.uint8]) -> None:
        into[:] = np.arange(into.size, dtype=np.uint32).astype(np.uint8).reshape(into.shape)

    def close(self) -> None:
        pass


def test_a_source_is_shown_otherwise_and_follows_its_changes() -> None:
    still = Still()
    source = ViewedSource(still, config(rotate=90))
    assert (source.info.width, source.info.height) == (HEIGHT, WIDTH)
    into, plain = np.empty((WIDTH, HEIGHT, 3), np.uint8), np.empty((HEIGHT, WIDTH, 3), np.uint8)
    source.grab()
    source.retrieve(into)
    still.retrieve(plain)
    assert (into == np.rot90(plain, -1)).all()
    before = source.info
    source.grab()
    assert source.info is before
    still.info = SourceInfo(32, 16, PixelFormat.BGR24, 30, "test")
    source.grab()
    assert (source.info.width, source.info.height) == (16, 32)
