"""Tiles: where they lie, what is cut out of a picture, and one object out of what several tiles show of it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.frames.frame import PixelFormat
from edged.vision.results import NOTHING, Detections, Mask
from edged.vision.tiles import OVERLAP, Tile, TileCutter, merged, tiles_of

Box = tuple[float, float, float, float]

GRID = tiles_of(1280, 720, 2, 2)


def found(*objects: tuple[Box, float, int]) -> Detections:
    return Detections(
        np.array([box for box, _, _ in objects], np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in objects], np.float32),
        np.array([kind for _, _, kind in objects], np.int64),
    )


def seen_of(objects: list[tuple[Box, int]], jitter: float = 0.0, least: float = 8.0) -> list[Detections]:
    """What a detector sees of these objects of the picture in each tile: what lies in it, in its own pixels."""
    rng = np.random.default_rng(1)
    every = []
    for tile in GRID:
        here = []
        for (x0, y0, x1, y1), kind in objects:
            box = np.array([max(x0, tile.left), max(y0, tile.top), min(x1, tile.right), min(y1, tile.bottom)])
            if box[2] - box[0] >= least and box[3] - box[1] >= least:
                box = box - np.array([tile.left, tile.top] * 2) + rng.uniform(-jitter, jitter, 4)
                here.append(((box[0], box[1], box[2], box[3]), float(rng.uniform(0.5, 0.9)), kind))
        every.append(found(*here))
    return every


@given(st.integers(64, 4096), st.integers(64, 2160), st.integers(1, 4), st.integers(1, 4))
def test_tiles_cover_the_picture_and_overlap(width: int, height: int, columns: int, rows: int) -> None:
    tiles = tiles_of(width, height, columns, rows)
    assert len(tiles) == columns * rows and len({tile.size for tile in tiles}) == 1
    assert all(value % 2 == 0 for tile in tiles for value in tile)
    assert (tiles[0].left, tiles[0].top) == (0, 0)
    assert (tiles[-1].right, tiles[-1].bottom) == (width - width % 2, height - height % 2)
    for left, right in itertools.pairwise(tiles[:columns]):
        assert abs(left.right - right.left - OVERLAP * left.size[0]) <= 6


@pytest.mark.parametrize("format_", [PixelFormat.BGR24, PixelFormat.NV12])
def test_a_tile_is_laid_out_as_its_picture(format_: PixelFormat) -> None:
    shape = (72, 64) if format_.is_nv12 else (48, 64, 3)
    pixels = np.random.default_rng(2).integers(0, 255, shape).astype(np.uint8)
    cutter, tile = TileCutter(), Tile(10, 8, 40, 32)
    part = cutter.cut(pixels, format_, tile, 0, 1)
    assert part.flags.c_contiguous
    assert (part[:24] == pixels[8:32, 10:40]).all()
    if format_.is_nv12:
        assert (part[24:] == pixels[48 + 4 : 48 + 16, 10:40]).all()
    again = cutter.cut(pixels, format_, tile, 0, 1)
    assert again is part, "the same memory, which a GPU has registered"
    assert cutter.cut(pixels, format_, tile, 0, 0) is not part


@pytest.mark.parametrize(
    "box",
    [(100, 100, 160, 150), (640, 100, 690, 150), (600, 330, 700, 420), (500, 100, 900, 300), (300, 200, 1000, 600)],
    ids=["in one tile", "whole in two", "in four", "larger than the overlap", "larger than a tile"],
)
@pytest.mark.parametrize("jitter", [0.0, 3.0])
def test_an_object_is_one_in_whatever_tiles_it_lies(box: Box, jitter: float) -> None:
    objects = merged(GRID, seen_of([(box, 1)], jitter))
    assert len(objects.scores) == 1 and objects.class_ids.tolist() == [1]
    assert np.abs(objects.boxes[0] - np.array(box)).max() <= 2 * jitter + 0.01


def test_neighbours_and_other_classes_stay_apart() -> None:
    real: list[tuple[Box, int]] = [
        ((610, 100, 650, 140), 0),
        ((655, 100, 695, 140), 0),  # beside it, both where two tiles see them
        ((610, 100, 650, 140), 1),  # another class in the same place
        ((100, 340, 200, 380), 0),
        ((100, 385, 200, 420), 0),
    ]
    objects = merged(GRID, seen_of(real, 2.0))
    assert len(objects.scores) == len(real)
    assert (np.diff(objects.scores) <= 0).all(), "best first"


def test_what_is_seen_whole_counts_before_a_better_score_of_a_part() -> None:
    whole, part = (560.0, 100.0, 700.0, 160.0), (0.0, 100.0, 700.0 - GRID[1].left, 160.0)
    objects = merged(GRID, [found((whole, 0.6, 0)), found((part, 0.9, 0)), NOTHING, NOTHING])
    assert objects.boxes.tolist() == [list(whole)] and objects.scores[0] == pytest.approx(0.9)


def test_masks_and_points_move_with_their_object() -> None:
    one = Detections(
        np.array([[10, 20, 30, 40]], np.float32),
        np.array([0.8], np.float32),
        np.array([2]),
        (Mask(np.ones((4, 4), bool), 10, 20, 5, 5),),
        np.array([[[12, 22, 0.9]]], np.float32),
        np.array([[[10, 20], [30, 20], [30, 40], [10, 40]]], np.float32),
    )
    objects = merged(GRID, [NOTHING, NOTHING, NOTHING, one])
    x, y = GRID[3].left, GRID[3].top
    assert objects.masks is not None and (objects.masks[0].x, objects.masks[0].y) == (10 + x, 20 + y)
    assert objects.keypoints is not None and objects.keypoints[0, 0].tolist() == pytest.approx([12 + x, 22 + y, 0.9])
    assert objects.corners is not None and objects.corners[0, 2].tolist() == [30 + x, 40 + y]


def test_nothing_in_all_tiles_is_nothing() -> None:
    assert len(merged(GRID, [NOTHING] * 4).scores) == 0
