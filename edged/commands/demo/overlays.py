"""What a model gives beside boxes, drawn on a picture: masks, key points, oriented boxes, a class for each cell.

In: a result and its picture, BGR, of any size. The picture is drawn on. Runs on the demo's main thread.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from edged.bus.cells import class_ids, mask_cells
from edged.bus.schema import ClassMap, Detection, Mask

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]
Scale = tuple[float, float]

_OPACITY = 0.45
_SURE_POINT = 0.5


def draw_object(picture: Image, seen: Detection, scale: Scale, colour: Colour) -> None:
    """The mask, the key points and the oriented box of an object, where it has them; `scale`: picture pixels per source
    pixel."""
    if isinstance(seen.mask, Mask):
        _draw_mask(picture, seen.mask, scale, colour)
    if isinstance(seen.corners, tuple):
        around = np.rint(np.array(seen.corners) * scale).astype(np.int32)
        cv2.polylines(picture, [around], True, colour, 2, cv2.LINE_AA)
    for x, y, sure in seen.keypoints if isinstance(seen.keypoints, list) else ():
        if sure >= _SURE_POINT:
            cv2.circle(picture, (round(x * scale[0]), round(y * scale[1])), 4, colour, -1, cv2.LINE_AA)
            cv2.circle(picture, (round(x * scale[0]), round(y * scale[1])), 4, (0, 0, 0), 1, cv2.LINE_AA)


def draw_class_map(picture: Image, found: ClassMap, colours: Sequence[Colour]) -> None:
    """A colour for each class over the picture; class 0, mostly the background, stays as it is."""
    ids = cv2.resize(class_ids(found).astype(np.uint16), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    for class_id in np.unique(ids[ids > 0]).tolist():
        _tint(picture, ids == class_id, colours[class_id % len(colours)])


def _draw_mask(picture: Image, mask: Mask, scale: Scale, colour: Colour) -> None:
    x0, y0 = round(mask.x * scale[0]), round(mask.y * scale[1])
    width = max(round(mask.columns * mask.cell_width * scale[0]), 1)
    height = max(round(mask.rows * mask.cell_height * scale[1]), 1)
    cells = cv2.resize(mask_cells(mask).astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    whole = np.zeros(picture.shape[:2], bool)
    rows, columns = slice(max(y0, 0), max(y0 + height, 0)), slice(max(x0, 0), max(x0 + width, 0))
    part = whole[rows, columns]
    top, left = max(-y0, 0), max(-x0, 0)
    part[:] = cells[top : top + part.shape[0], left : left + part.shape[1]]
    _tint(picture, whole, colour)


def _tint(picture: Image, where: NDArray[np.bool_], colour: Colour) -> None:
    mixed = picture[where] * (1 - _OPACITY) + np.array(colour) * _OPACITY
    picture[where] = mixed.astype(np.uint8)
