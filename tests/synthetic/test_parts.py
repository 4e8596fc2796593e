"""Parts, sprites and grounds: shapes that tell the classes apart, blending that cuts at the edge."""

from __future__ import annotations

import numpy as np
import pytest

from edged.synthetic.parts import (
    LABELS,
    MAX_RADIUS,
    MIN_VISIBLE,
    Sprite,
    _outline,
    blend,
    draw,
    moved,
    picture_scale,
    texture,
    visible,
)


def sprite(class_id: int = 0, radius: float = 20.0, seed: int = 0) -> Sprite:
    return draw(class_id, radius, (0.25, 0.75), 120.0, np.random.default_rng(seed))


@pytest.mark.parametrize("class_id", range(len(LABELS)))
def test_outlines_have_about_unit_radius_and_holes_leave_a_rim(class_id: int) -> None:
    for seed in range(20):
        polygon, hole = _outline(class_id, np.random.default_rng(seed))
        reach = np.hypot(*polygon.T)
        assert 0.9 <= reach.max() <= 1.3
        assert 0 <= hole < 0.75 * reach.min()
        assert (hole > 0) == (LABELS[class_id] in ("washer", "nut", "gear"))


@pytest.mark.parametrize("class_id", range(len(LABELS)))
def test_the_box_of_a_sprite_is_that_of_its_opaque_pixels(class_id: int) -> None:
    for seed in range(10):
        drawn = sprite(class_id, 25.0, seed)
        opaque = drawn.through[..., 0] < 64
        rows, columns = np.flatnonzero(opaque.any(axis=1)), np.flatnonzero(opaque.any(axis=0))
        found = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        wanted = np.array(drawn.box) - (drawn.left, drawn.top) * 2
        assert np.abs(found - wanted).max() <= 3.0  # a sharp corner is hardly opaque


def test_a_part_stands_out_from_its_ground() -> None:
    for ground in (20.0, 120.0, 230.0):
        for seed in range(20):
            drawn = draw(0, 20.0, (0.0, 0.0), ground, np.random.default_rng(seed))
            centre = drawn.light[-drawn.top, -drawn.left].astype(float)
            assert abs(centre.mean() - ground) > 15


def test_blending_covers_adds_and_cuts() -> None:
    drawn = sprite()
    whole = np.full((100, 100, 3), 200, np.uint8)
    blend(whole, drawn, 50, 50)
    assert np.array_equal(whole[50, 50], drawn.light[-drawn.top, -drawn.left])
    assert (whole[0] == 200).all()
    for x, y in [(0, 50), (99, 50), (50, 0), (50, 99), (0, 0)]:
        cut = np.full((100, 100, 3), 200, np.uint8)
        blend(cut, drawn, x, y)
        large = np.full((300, 300, 3), 200, np.uint8)
        blend(large, drawn, x + 100, y + 100)
        assert np.array_equal(cut, large[100:200, 100:200])
    outside = np.full((100, 100, 3), 200, np.uint8)
    blend(outside, drawn, 500, -500)
    assert (outside == 200).all()


def test_what_shows_too_little_is_not_visible() -> None:
    box = (10.0, 20.0, 60.0, 70.0)
    assert visible(box, 320, 192) == box
    assert visible(moved(box, -35, 0), 320, 192) == (0.0, 20.0, 25.0, 70.0)
    hidden = 50 * (1 - MIN_VISIBLE)
    assert visible(moved(box, -10 - int(hidden) - 1, 0), 320, 192) is None
    assert visible(moved(box, 400, 0), 320, 192) is None
    assert visible((10, 10, 15, 40), 320, 192) is None  # thinner than six reference pixels
    assert visible((10, 10, 25, 40), 1280, 720) is None


@pytest.mark.parametrize(("size", "scale"), [((320, 192), 1), ((1280, 720), 4), ((640, 480), 2.5), ((320, 180), 1)])
def test_scale_is_that_of_the_letterbox(size: tuple[int, int], scale: float) -> None:
    assert picture_scale(*size) == scale
    assert min(size) > 2 * MAX_RADIUS * scale


def test_textures_fill_the_picture_and_depend_on_the_generator() -> None:
    first, again, other = (texture(np.random.default_rng(seed), 200, 100, 1.0) for seed in (1, 1, 2))
    assert first.shape == (100, 200, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert first.std() > 1
