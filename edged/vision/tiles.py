"""A picture looked at in overlapping tiles, so that small objects keep their pixels: where they lie, and one list of
objects out of those of all tiles. Pure arithmetic, any thread, but `TileCutter`, which is the engine loop's.

An object that two tiles show is one object: within the part of the picture that both see, its two boxes are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edged.frames.frame import PixelFormat
from edged.vision.results import NOTHING, Detections, Floats, Mask, taken

Image = NDArray[np.uint8]

OVERLAP: Final = 0.2
"""of a tile's side, with its neighbour: an object up to that size is whole in one of them"""
SAME: Final = 0.5
"""intersection over union from which on two boxes are the same object, in the part that both tiles see"""
SLIVER: Final = 0.1
"""of the smaller box: less of it in that part tells nothing"""
CUT: Final = 0.01
"""of a tile's side: a box so near to an inner edge is cut off by it"""


class Tile(NamedTuple):
    """Pixels of the picture; even, as NV12 needs."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> tuple[int, int]:
        return self.right - self.left, self.bottom - self.top


def tiles_of(width: int, height: int, columns: int, rows: int) -> tuple[Tile, ...]:
    """Row by row, all of one size, spread evenly over the whole picture."""
    across, down = _spread(width, columns), _spread(height, rows)
    return tuple(Tile(left, top, right, bottom) for top, bottom in down for left, right in across)


def _spread(length: int, count: int) -> list[tuple[int, int]]:
    even = length - length % 2
    side = min(even, 2 * round(length / (count - (count - 1) * OVERLAP) / 2))
    starts = [2 * round(n * (even - side) / max(1, count - 1) / 2) for n in range(count)]
    return [(start, start + side) for start in starts]


class TileCutter:
    """Copies of tiles, a place for each input of each lane: an engine that reads late finds them as they were."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, int], Image] = {}

    def cut(self, pixels: Image, format_: PixelFormat, tile: Tile, lane: int, index: int) -> Image:
        """The tile laid out as `format_` says; good until the next of this lane and index."""
        width, height = tile.size
        shape = (height * 3 // 2, width) if format_.is_nv12 else (height, width, 3)
        part = self._held.get((lane, index))
        if part is None or part.shape != shape:
            part = self._held[lane, index] = np.empty(shape, np.uint8)
        columns = slice(tile.left, tile.right)
        part[:height] = pixels[tile.top : tile.bottom, columns]
        if format_.is_nv12:
            first = pixels.shape[0] * 2 // 3
            part[height:] = pixels[first + tile.top // 2 : first + tile.bottom // 2, columns]
        return part


def merged(tiles: Sequence[Tile], found: Sequence[Detections]) -> Detections:
    """The objects of the picture, best first, from those of each tile in the tile's own pixels."""
    every = _joined([_moved(one, tile) for one, tile in zip(found, tiles, strict=True)])
    if not len(every.scores):
        return every
    owner = np.repeat(np.arange(len(tiles)), [len(one.scores) for one in found])
    bounds = np.array(tiles, np.float32)[owner]
    cut = _cut(every.boxes, bounds, np.array(tiles, np.float32))
    same = _same(every, bounds, owner)
    boxes, scores, kept = every.boxes.copy(), every.scores.copy(), []
    left = np.ones(len(scores), bool)
    for row in np.lexsort((-scores, cut)).tolist():  # objects seen whole come first, and then the best
        if not left[row]:
            continue
        group = _group(same, row, left)
        left[group] = False
        kept.append(row)
        scores[row] = every.scores[group].max()
        if cut[row]:  # no tile shows it whole
            boxes[row, :2], boxes[row, 2:] = every.boxes[group, :2].min(axis=0), every.boxes[group, 2:].max(axis=0)
    kept.sort(key=lambda row: -scores[row])
    return taken(replace(every, boxes=boxes, scores=scores), kept)


def _group(same: NDArray[np.bool_], row: int, left: NDArray[np.bool_]) -> NDArray[np.intp]:
    """`row` and all that are the same object as one of the group: an object may lie in four tiles."""
    group = np.zeros(len(left), bool)
    group[row] = True
    while True:
        wider = left & same[group].any(axis=0) | group
        if (wider == group).all():
            return np.flatnonzero(group)
        group = wider


def _cut(boxes: Floats, bounds: Floats, tiles: Floats) -> NDArray[np.bool_]:
    """Whether an edge of its tile inside the picture cuts a box off."""
    outer = np.array([*tiles[:, :2].min(axis=0), *tiles[:, 2:].max(axis=0)], np.float32)
    near = CUT * np.tile(bounds[:, 2:] - bounds[:, :2], 2)
    cut: NDArray[np.bool_] = ((np.abs(boxes - bounds) < near) & (bounds != outer)).any(axis=1)
    return cut


def _same(found: Detections, bounds: Floats, owner: NDArray[np.intp]) -> NDArray[np.bool_]:
    """(n, n): whether two boxes of different tiles are one object."""
    shared_from = np.maximum(bounds[:, None, :2], bounds[None, :, :2])
    shared_to = np.minimum(bounds[:, None, 2:], bounds[None, :, 2:])
    boxes = found.boxes
    # each box of a pair, in the part that the tiles of both see
    first = np.maximum(boxes[:, None, :2], shared_from), np.minimum(boxes[:, None, 2:], shared_to)
    second = np.maximum(boxes[None, :, :2], shared_from), np.minimum(boxes[None, :, 2:], shared_to)
    common = _area(np.maximum(first[0], second[0]), np.minimum(first[1], second[1]))
    union = _area(*first) + _area(*second) - common
    whole = _area(boxes[:, :2], boxes[:, 2:])
    enough = common > SLIVER * np.minimum(whole[:, None], whole[None, :])
    alike = (owner[:, None] != owner[None, :]) & (found.class_ids[:, None] == found.class_ids[None, :])
    same: NDArray[np.bool_] = alike & enough & (common >= SAME * union)
    return same


def _area(start: Floats, end: Floats) -> Floats:
    area: Floats = np.maximum(end - start, 0).prod(axis=-1)
    return area


def _moved(found: Detections, tile: Tile) -> Detections:
    """From pixels of the tile to those of the picture."""
    x, y = tile.left, tile.top
    masks = found.masks
    if masks is not None:
        masks = tuple(Mask(m.cells, m.x + x, m.y + y, m.cell_width, m.cell_height) for m in masks)
    return Detections(
        found.boxes + np.array((x, y, x, y), np.float32),
        found.scores,
        found.class_ids,
        masks,
        None if found.keypoints is None else found.keypoints + np.array((x, y, 0), np.float32),
        None if found.corners is None else found.corners + np.array((x, y), np.float32),
    )


def _joined(parts: Sequence[Detections]) -> Detections:
    some = [part for part in parts if len(part.scores)] or [NOTHING]
    return Detections(
        np.concatenate([part.boxes for part in some]),
        np.concatenate([part.scores for part in some]),
        np.concatenate([part.class_ids for part in some]),
        None if some[0].masks is None else tuple(mask for part in some for mask in part.masks or ()),
        _stacked([part.keypoints for part in some]),
        _stacked([part.corners for part in some]),
    )


def _stacked(arrays: Sequence[Floats | None]) -> Floats | None:
    known = [array for array in arrays if array is not None]
    return np.concatenate(known) if known else None
