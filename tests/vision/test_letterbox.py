from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edged.engines.manifest import InputSpec
from edged.errors import EdgedError
from edged.frames.frame import PixelFormat
from edged.vision import letterbox
from edged.vision.letterbox import Letterboxer, fit
from tests.support.heap import python_bytes

Image = NDArray[np.uint8]
PAD = 114


def letterboxer(width: int, height: int, batch: int = 2, lanes: int = 1) -> tuple[Letterboxer, list[Image]]:
    buffers = [np.full((batch, height, width, 3), 1, np.uint8) for _ in range(lanes)]
    return Letterboxer(InputSpec("image", width, height, pad=PAD), buffers), buffers


def filled(pixels: Image, form: PixelFormat, source: tuple[int, int], size: tuple[int, int]) -> tuple[Image, Image]:
    """(the whole input, the picture in it) of one fill."""
    boxer, (buffer,) = letterboxer(*size)
    box = boxer.geometry(*source)
    boxer.fill(box, pixels, form, 0, 1)
    whole = buffer[1]
    return whole, whole[box.top : box.top + box.scaled_height, box.left : box.left + box.scaled_width]


def bilinear(plane: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64]:
    """Plain bilinear interpolation, pixel centres at half: (h, w, channels) -> (height, width, channels)."""

    def taps(target: int, source: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        at = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
        low = np.floor(at).astype(np.int64)
        return low, np.minimum(low + 1, source - 1), at - low

    y0, y1, fy = taps(height, plane.shape[0])
    x0, x1, fx = taps(width, plane.shape[1])
    fy, fx = fy[:, None, None], fx[None, :, None]
    top = plane[y0][:, x0] * (1 - fx) + plane[y0][:, x1] * fx
    bottom = plane[y1][:, x0] * (1 - fx) + plane[y1][:, x1] * fx
    return top * (1 - fy) + bottom * fy


def bgr_from_nv12(luma: NDArray[np.float64], chroma: NDArray[np.float64]) -> NDArray[np.float64]:
    """BT.601, limited range; each colour sample serves two by two pixels."""
    cb, cr = (np.repeat(np.repeat(chroma[..., i] - 128, 2, 0), 2, 1) for i in (0, 1))
    y = 1.164 * (luma - 16)
    return np.clip(np.stack((y + 2.018 * cb, y - 0.391 * cb - 0.813 * cr, y + 1.596 * cr), -1), 0, 255)


def nv12_from_bgr(picture: Image) -> Image:
    b, g, r = (picture[..., i].astype(np.float64) for i in range(3))
    y = 16 + 0.257 * r + 0.504 * g + 0.098 * b
    cb = 128 - 0.148 * r - 0.291 * g + 0.439 * b
    cr = 128 + 0.439 * r - 0.368 * g - 0.071 * b
    half = [c.reshape(c.shape[0] // 2, 2, c.shape[1] // 2, 2).mean((1, 3)) for c in (cb, cr)]
    chroma = np.stack(half, -1).reshape(picture.shape[0] // 2, picture.shape[1])
    return np.concatenate((y, chroma)).round().astype(np.uint8)


def smooth(width: int, height: int) -> Image:
    y, x = np.mgrid[:height, :width]
    waves = [128 + 90 * np.sin(x / width * a + y / height * b) for a, b in ((5, 2), (3, 6), (7, 4))]
    return np.stack(waves, -1).astype(np.uint8)


@given(st.integers(1, 8192), st.integers(1, 8192), st.integers(8, 1024), st.integers(8, 1024))
def test_the_picture_is_even_inside_centred_and_as_large_as_it_can_be(w: int, h: int, width: int, height: int) -> None:
    box = fit(w, h, width, height)
    assert box.scaled_width % 2 == box.scaled_height % 2 == 0
    assert 2 <= box.scaled_width <= width and 2 <= box.scaled_height <= height
    assert 0 <= width - box.scaled_width - 2 * box.left <= 1
    assert 0 <= height - box.scaled_height - 2 * box.top <= 1
    scale = min(width / w, height / h)
    assert abs(box.scaled_width - w * scale) <= 2 and abs(box.scaled_height - h * scale) <= 2
    assert (box.scale_x, box.scale_y) == (box.scaled_width / w, box.scaled_height / h)


def test_common_sizes() -> None:
    for source, expected in {
        (1280, 720): (0, 6, 320, 180),
        (1920, 1080): (0, 6, 320, 180),
        (640, 480): (32, 0, 256, 192),
        (1080, 1920): (106, 0, 108, 192),
        (320, 192): (0, 0, 320, 192),
    }.items():
        box = fit(*source, 320, 192)
        assert (box.left, box.top, box.scaled_width, box.scaled_height) == expected


@given(st.integers(2, 4000), st.integers(2, 4000), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_a_box_goes_into_the_input_and_back(w: int, h: int, corners: list[float]) -> None:
    box = fit(w, h, 320, 192)
    source = np.array([sorted(corners[:2]), sorted(corners[2:])]).T.reshape(1, 4) * (w, h, w, h)
    scale = (box.scale_x, box.scale_y, box.scale_x, box.scale_y)
    mapped = (source * scale + (box.left, box.top, box.left, box.top)).astype(np.float32)
    pixel = max(1 / box.scale_x, 1 / box.scale_y)
    np.testing.assert_allclose(box.unmap(mapped), source, atol=1e-4 * pixel + 1e-3)


def test_boxes_are_clipped_to_the_picture_and_the_argument_is_left_alone() -> None:
    boxes = np.array([[-50, -50, 1000, 1000], [10, 0, 20, 6]], np.float32)
    before = boxes.copy()
    np.testing.assert_allclose(fit(1280, 720, 320, 192).unmap(boxes), [[0, 0, 1280, 720], [40, 0, 80, 0]])
    np.testing.assert_array_equal(boxes, before)
    assert fit(1280, 720, 320, 192).unmap(np.zeros((0, 4), np.float32)).shape == (0, 4)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(8, 48), st.integers(8, 48), st.integers(0, 99))
def test_bgr_is_bilinear_within_one_level_and_the_rest_is_padding(
    w: int, h: int, width: int, height: int, seed: int
) -> None:
    source = np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)
    whole, picture = filled(source, PixelFormat.BGR24, (w, h), (width, height))
    want = bilinear(source.astype(np.float64), picture.shape[1], picture.shape[0])
    assert np.abs(picture - want).max() <= 1.01
    picture[:] = PAD
    assert (whole == PAD).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 45), st.integers(1, 45), st.integers(8, 48), st.integers(8, 48), st.integers(0, 99))
def test_nv12_is_bilinear_planes_converted_by_bt601(w: int, h: int, width: int, height: int, seed: int) -> None:
    w, h = 2 * w, 2 * h
    source = np.random.default_rng(seed).integers(16, 236, (h * 3 // 2, w), np.uint8)
    with mock.patch.object(letterbox, "CONVERTED_FIRST", 0):
        _, picture = filled(source, PixelFormat.NV12, (w, h), (width, height))
    rows, columns = picture.shape[:2]
    luma = bilinear(source[:h, :, None].astype(np.float64), columns, rows)[..., 0]
    chroma = bilinear(source[h:].reshape(h // 2, w // 2, 2).astype(np.float64), columns // 2, rows // 2)
    # one level of each plane is worth up to 1.164 + 2.018 levels of blue
    assert np.abs(picture - bgr_from_nv12(luma, chroma)).max() <= 5


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 45), st.integers(1, 45), st.integers(8, 48), st.integers(8, 48), st.integers(0, 99))
def test_a_small_nv12_picture_is_converted_and_then_scaled(w: int, h: int, width: int, height: int, seed: int) -> None:
    w, h = 2 * w, 2 * h
    source = np.random.default_rng(seed).integers(16, 236, (h * 3 // 2, w), np.uint8)
    _, picture = filled(source, PixelFormat.NV12, (w, h), (width, height))
    luma = source[:h].astype(np.float64)
    chroma = source[h:].reshape(h // 2, w // 2, 2).astype(np.float64)
    whole = bgr_from_nv12(luma, chroma)
    assert np.abs(picture - bilinear(whole, picture.shape[1], picture.shape[0])).max() <= 2.01


@pytest.mark.parametrize("source", [(1280, 720), (1920, 1080), (640, 480), (322, 182)])
def test_nv12_and_bgr_of_the_same_picture_agree(source: tuple[int, int]) -> None:
    picture = smooth(*source)
    _, bgr = filled(picture, PixelFormat.BGR24, source, (320, 192))
    _, nv12 = filled(nv12_from_bgr(picture), PixelFormat.NV12, source, (320, 192))
    difference = np.abs(bgr.astype(int) - nv12)
    assert difference.mean() < 1.5 and difference.max() <= 8


def test_only_the_frame_asked_for_is_written() -> None:
    boxer, buffers = letterboxer(64, 48, batch=3, lanes=2)
    boxer.fill(boxer.geometry(100, 50), np.full((50, 100, 3), 9, np.uint8), PixelFormat.BGR24, 1, 1)
    assert (buffers[0] == 1).all() and (buffers[1][[0, 2]] == 1).all()
    assert set(np.unique(buffers[1][1])) == {9, PAD}


def test_padding_is_written_when_the_letterbox_of_that_frame_changes_and_only_then() -> None:
    boxer, (buffer,) = letterboxer(64, 48)
    wide, tall = np.full((50, 100, 3), 9, np.uint8), np.full((100, 50, 3), 8, np.uint8)
    boxer.fill(boxer.geometry(100, 50), wide, PixelFormat.BGR24, 0, 0)
    assert (buffer[0, 0] == PAD).all()
    buffer[0, 0] = 77  # a mark in the padding
    boxer.fill(boxer.geometry(100, 50), wide, PixelFormat.BGR24, 0, 0)
    assert (buffer[0, 0] == 77).all()
    boxer.fill(boxer.geometry(50, 100), tall, PixelFormat.BGR24, 0, 0)
    assert set(np.unique(buffer[0])) == {8, PAD}
    boxer.fill(boxer.geometry(100, 50), wide, PixelFormat.BGR24, 0, 0)
    assert set(np.unique(buffer[0])) == {9, PAD}


def test_a_fill_allocates_nothing() -> None:
    boxer, _ = letterboxer(320, 192)
    box = boxer.geometry(640, 360)
    bgr, nv12 = np.zeros((360, 640, 3), np.uint8), np.zeros((540, 640), np.uint8)

    def fill() -> None:
        boxer.fill(box, bgr, PixelFormat.BGR24, 0, 0)
        boxer.fill(box, nv12, PixelFormat.NV12, 0, 1)

    kept, in_passing = python_bytes(fill, rounds=300)
    assert kept < 4000 and in_passing < 8000


def test_a_camera_that_keeps_changing_its_size_does_not_grow_the_memory() -> None:
    boxer, _ = letterboxer(64, 48)
    for width in range(2, 1002, 2):
        pixels = np.zeros((24, width), np.uint8)
        boxer.fill(boxer.geometry(width, 16), pixels, PixelFormat.NV12, 0, 0)
    assert len(boxer._geometries) <= 64 and len(boxer._converters) <= 16


def test_read_only_and_strided_pixels_are_taken_as_they_lie() -> None:
    ring = np.arange(4 * 60 * 90 * 3, dtype=np.uint32).astype(np.uint8).reshape(4, 60, 90, 3)
    ring.flags.writeable = False
    _, slot = filled(ring[2], PixelFormat.BGR24, (90, 60), (48, 32))
    _, copy = filled(ring[2].copy(), PixelFormat.BGR24, (90, 60), (48, 32))
    np.testing.assert_array_equal(slot, copy)


@pytest.mark.parametrize(
    ("form", "source", "shape"),
    [
        (PixelFormat.BGR24, (64, 48), (48, 64)),
        (PixelFormat.BGR24, (64, 48), (64, 48, 3)),
        (PixelFormat.BGR24, (64, 48), (48, 64, 4)),
        (PixelFormat.NV12, (64, 48), (48, 64)),
        (PixelFormat.NV12, (63, 48), (72, 63)),
        (PixelFormat.NV12, (64, 47), (70, 64)),
    ],
)
def test_pixels_of_another_shape_are_refused(
    form: PixelFormat, source: tuple[int, int], shape: tuple[int, ...]
) -> None:
    with pytest.raises(EdgedError, match=form.name):
        filled(np.zeros(shape, np.uint8), form, source, (64, 48))


def test_pixels_of_another_type_and_a_picture_without_pixels_are_refused() -> None:
    with pytest.raises(EdgedError, match="float32"):
        filled(np.zeros((48, 64, 3), np.float32), PixelFormat.BGR24, (64, 48), (64, 48))
    with pytest.raises(EdgedError, match="0x48"):
        fit(0, 48, 64, 48)
