"""What is drawn lies where it was seen."""

from __future__ import annotations

import numpy as np

from edged.bus.schema import ClassMap, Detection, Mask
from edged.overlays import draw_class_map, draw_object

RED = (0, 0, 255)


def test_a_mask_tints_its_cells_and_no_others() -> None:
    picture = np.full((100, 200, 3), 100, np.uint8)
    mask = Mask(x=20.0, y=10.0, cell_width=10.0, cell_height=10.0, columns=2, rows=2, runs=[0, 1, 2, 1])
    draw_object(picture, Detection("a", 0, 0.9, (20, 10, 40, 30), mask=mask), (2.0, 1.0), RED)
    tinted = (picture != 100).any(axis=2)
    want = np.zeros_like(tinted)
    want[10:20, 40:60] = want[20:30, 60:80] = True
    assert (tinted == want).all()


def test_a_mask_that_reaches_beyond_the_picture_is_cut() -> None:
    picture = np.full((40, 40, 3), 100, np.uint8)
    mask = Mask(x=-10.0, y=30.0, cell_width=20.0, cell_height=20.0, columns=1, rows=1, runs=[0, 1])
    draw_object(picture, Detection("a", 0, 0.9, (0, 30, 10, 40), mask=mask), (1.0, 1.0), RED)
    assert (picture != 100).any(axis=2).sum() == 100


def test_key_points_that_are_sure_and_corners_are_drawn() -> None:
    picture = np.full((100, 100, 3), 100, np.uint8)
    seen = Detection(
        "a",
        0,
        0.9,
        (0, 0, 90, 90),
        keypoints=[(20, 20, 0.9), (80, 80, 0.1)],
        corners=((50, 40), (60, 50), (50, 60), (40, 50)),
    )
    draw_object(picture, seen, (1.0, 1.0), RED)
    assert tuple(picture[20, 20]) == RED and tuple(picture[80, 80]) == (100, 100, 100)
    assert (picture[45, 55] != 100).any() and (picture[50, 50] == 100).all()


def test_a_class_map_leaves_class_0_as_it_is() -> None:
    picture = np.full((20, 40, 3), 100, np.uint8)
    draw_class_map(picture, ClassMap(2, 1, [0, 1, 1, 1]), [(0, 0, 0), RED])
    assert (picture[:, :20] == 100).all() and (picture[:, 20:, 2] > 100).all()
