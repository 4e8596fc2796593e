"""A frame and its result in, a JPEG out with zones, objects and the ways of tracks drawn. On the thread "pictures"."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from edged.bus.schema import Result
from edged.config import CameraConfig
from edged.gateway.jpeg import at_most, encoded
from edged.overlays import Image, colour_of, draw_regions, draw_result

WIDTH: Final = 960
"""Wider pictures are scaled down to this."""
TEXT: Final = 0.65
"""The size of labels in a picture as wide as that: readable in a tile of a third of a screen."""
TRAIL: Final = 25
"""Points of a track's way."""

Trails = dict[int, list[tuple[float, float]]]
"""By track: the bottom centres of its boxes, in shares of the picture, the newest last."""

cv2.setNumThreads(1)  # the daemon needs the cores


def jpeg_of(pixels: Image, result: Result | None, camera: CameraConfig | None, trails: Trails) -> bytes:
    """`pixels`, BGR, are drawn on. `result` None: the frame got none. `trails` is brought up to date."""
    pixels = at_most(WIDTH, pixels)
    if camera is not None:
        draw_regions(pixels, camera)
    if result is not None:
        _draw_trails(pixels, result, trails)
        draw_result(pixels, result, text=TEXT * pixels.shape[1] / WIDTH)
    return encoded(pixels)


def _draw_trails(picture: Image, result: Result, trails: Trails) -> None:
    """Where each object of this result has been, as far as somebody looked."""
    seen = result.detections if isinstance(result.detections, list) else []
    tracked = {one.track: one for one in seen if isinstance(one.track, int)}
    for gone in trails.keys() - tracked:
        del trails[gone]
    height, width = picture.shape[:2]
    for track, one in tracked.items():
        x0, _, x1, y1 = one.box
        trail = trails.setdefault(track, [])
        trail.append(((x0 + x1) / 2 / result.width, y1 / result.height))
        del trail[:-TRAIL]
        points = np.round(np.array(trail) * (width - 1, height - 1)).astype(np.int32)
        cv2.polylines(picture, [points], False, colour_of(one), 2, cv2.LINE_AA)
