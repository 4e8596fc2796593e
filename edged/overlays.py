"""What was seen and what is configured, drawn on pictures: boxes, masks, key points, classes, zones, lines.

In: a result or a camera's table, and a picture, BGR, of any size. Any thread, one picture per thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edged.bus.cells import class_ids, mask_cells
from edged.bus.schema import ClassMap, Detection, Mask, Result
from edged.geometry import Point
from edged.regions import HasRegions

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]
Scale = tuple[float, float]

# One BGR colour for each class, bright enough for dark text on it.
CLASS_COLOURS: Final[tuple[Colour, ...]] = (
    (80, 200, 255), (120, 230, 120), (255, 180, 90), (200, 150, 255), (90, 230, 230), (255, 220, 130), (150, 160, 255),
    (190, 230, 160),
)  # fmt: skip
REGION_COLOURS: Final[tuple[Colour, ...]] = CLASS_COLOURS[:5]
LINE_COLOUR: Final = (60, 60, 255)
MASK_COLOUR: Final = (40, 40, 40)
MOTION_MASK_COLOUR: Final = (120, 60, 60)
FILL: Final = 0.25
MASK_FILL: Final = 0.6
_DARK: Final = (38, 32, 28)
_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
_OPACITY = 0.45
_SURE_POINT = 0.5


def draw_result(picture: Image, result: Result, top: int = 0, text: float = 0.42) -> None:
    """Draw what a result saw on its picture, the surest on top. Labels stay below the first `top` rows; `text` is their
    size."""
    scale = picture.shape[1] / result.width, picture.shape[0] / result.height
    if isinstance(result.class_map, ClassMap):
        draw_class_map(picture, result.class_map, CLASS_COLOURS)
    detections = result.detections if isinstance(result.detections, list) else []
    for seen in sorted(detections, key=lambda detection: detection.score):
        colour = colour_of(seen)
        draw_object(picture, seen, scale, colour)
        x0, y0, x1, y1 = (round(value * by) for value, by in zip(seen.box, scale * 2, strict=True))
        track = f" #{seen.track}" if isinstance(seen.track, int) else ""
        _box(picture, (x0, y0, x1, y1), f"{seen.label} {seen.score:.2f}{track}", colour, top, text)


def colour_of(seen: Detection) -> Colour:
    """That of its class."""
    return CLASS_COLOURS[seen.class_id % len(CLASS_COLOURS)]


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


def _box(picture: Image, box: tuple[int, int, int, int], label: str, colour: Colour, top: int, text: float) -> None:
    x0, y0, x1, y1 = box
    cv2.rectangle(picture, (x0, y0), (x1, y1), colour, 2)
    (width, height), _ = cv2.getTextSize(label, _FONT, text, 1)
    left = min(max(0, x0 - 1), max(0, picture.shape[1] - width - 6))
    above = y0 - height - 7
    at = above if above >= top else y1
    cv2.rectangle(picture, (left, at), (left + width + 6, at + height + 7), colour, -1)
    cv2.putText(picture, label, (left + 3, at + height + 3), _FONT, text, _DARK, 1, cv2.LINE_AA)


def draw_regions(picture: Image, camera: HasRegions) -> None:
    """Draw everything that the camera's table says of places in it on the picture."""
    for polygon in camera.motion.mask:
        _fill(picture, polygon, MOTION_MASK_COLOUR, MASK_FILL)
    for polygon in camera.mask:
        _fill(picture, polygon, MASK_COLOUR, MASK_FILL)
    for (name, zone), colour in zip(camera.zones.items(), REGION_COLOURS * len(camera.zones), strict=False):
        _fill(picture, zone.polygon, colour, FILL)
        corners = _pixels(picture, zone.polygon)
        cv2.polylines(picture, [corners], True, colour, _width(picture), cv2.LINE_AA)
        _name(picture, name, corners.mean(axis=0), colour)
    for name, line in camera.lines.items():
        start, end = _pixels(picture, [line.start, line.end])
        cv2.arrowedLine(
            picture, start.tolist(), end.tolist(), LINE_COLOUR, _width(picture), cv2.LINE_AA, tipLength=0.04
        )
        _name(picture, name, (start + end) / 2, LINE_COLOUR)


def _fill(picture: Image, polygon: Sequence[Point], colour: Colour, share: float) -> None:
    over = picture.copy()
    cv2.fillPoly(over, [_pixels(picture, polygon)], colour, cv2.LINE_AA)
    cv2.addWeighted(over, share, picture, 1 - share, 0, dst=picture)


def _pixels(picture: Image, points: Sequence[Point]) -> NDArray[np.int32]:
    height, width = picture.shape[:2]
    pixels: NDArray[np.int32] = np.round(np.array(points) * (width - 1, height - 1)).astype(np.int32)
    return pixels


def _name(picture: Image, text: str, at: NDArray[np.float64], colour: Colour) -> None:
    scale = picture.shape[0] / 720
    thickness = max(1, round(2 * scale))
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    x = int(np.clip(at[0] - width / 2, 0, picture.shape[1] - width))
    y = int(np.clip(at[1] + height / 2, height, picture.shape[0] - 1))
    for ink, stroke in (((20, 20, 20), 3 * thickness), (colour, thickness)):
        cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, stroke, cv2.LINE_AA)


def _width(picture: Image) -> int:
    return max(1, round(len(picture) / 360))
