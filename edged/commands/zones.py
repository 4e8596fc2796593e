"""`edged zones CAMERA`: a still of the camera with its zones, lines and masks drawn, as a PNG file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edged import files
from edged.checks.still import still_of
from edged.config import CameraConfig, default_path, load
from edged.errors import EdgedError, UsageError
from edged.geometry import Point
from edged.terminal import progress

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]

COLOURS: Final[tuple[Colour, ...]] = ((80, 200, 255), (120, 230, 120), (255, 180, 90), (200, 150, 255), (90, 230, 230))
LINE_COLOUR: Final = (60, 60, 255)
MASK_COLOUR: Final = (40, 40, 40)
MOTION_MASK_COLOUR: Final = (120, 60, 60)
FILL: Final = 0.25
MASK_FILL: Final = 0.6


def run(arguments: argparse.Namespace) -> int:
    path = default_path(arguments.config)
    cameras = {camera.name: camera for camera in load(path).camera}
    camera = cameras.get(arguments.camera)
    if camera is None:
        raise UsageError(f"{path}: there is no camera {arguments.camera!r}", f"cameras are {', '.join(cameras)}")
    with progress(f"waiting for a picture of {camera.name}"):
        picture = still_of(camera)
    out = Path(arguments.out or f"edged-zones-{camera.name}.png")
    encoded, png = cv2.imencode(".png", draw(picture, camera))
    if not encoded:
        raise EdgedError(f"the picture of {camera.name} cannot be written as PNG")
    files.write_atomic(out, png.tobytes())
    counts = [_many(len(camera.zones), "zone"), _many(len(camera.lines), "line"), _many(len(camera.mask), "mask")]
    print(f"{out}: {picture.shape[1]}x{picture.shape[0]}, {', '.join(counts)}")
    return 0


def draw(picture: Image, camera: CameraConfig) -> Image:
    """A copy of the BGR picture with everything that the camera's table says of places in it."""
    drawn: Image = picture.copy()
    for polygon in camera.motion.mask:
        _fill(drawn, polygon, MOTION_MASK_COLOUR, MASK_FILL)
    for polygon in camera.mask:
        _fill(drawn, polygon, MASK_COLOUR, MASK_FILL)
    for (name, zone), colour in zip(camera.zones.items(), COLOURS * len(camera.zones), strict=False):
        _fill(drawn, zone.polygon, colour, FILL)
        corners = _pixels(drawn, zone.polygon)
        cv2.polylines(drawn, [corners], True, colour, _width(drawn), cv2.LINE_AA)
        _label(drawn, name, corners.mean(axis=0), colour)
    for name, line in camera.lines.items():
        start, end = _pixels(drawn, [line.start, line.end])
        cv2.arrowedLine(drawn, start.tolist(), end.tolist(), LINE_COLOUR, _width(drawn), cv2.LINE_AA, tipLength=0.04)
        _label(drawn, name, (start + end) / 2, LINE_COLOUR)
    return drawn


def _fill(picture: Image, polygon: Sequence[Point], colour: Colour, share: float) -> None:
    over = picture.copy()
    cv2.fillPoly(over, [_pixels(picture, polygon)], colour, cv2.LINE_AA)
    cv2.addWeighted(over, share, picture, 1 - share, 0, dst=picture)


def _pixels(picture: Image, points: Sequence[Point]) -> NDArray[np.int32]:
    height, width = picture.shape[:2]
    pixels: NDArray[np.int32] = np.round(np.array(points) * (width - 1, height - 1)).astype(np.int32)
    return pixels


def _label(picture: Image, text: str, at: NDArray[np.float64], colour: Colour) -> None:
    scale = picture.shape[0] / 720
    thickness = max(1, round(2 * scale))
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    x = int(np.clip(at[0] - width / 2, 0, picture.shape[1] - width))
    y = int(np.clip(at[1] + height / 2, height, picture.shape[0] - 1))
    for ink, stroke in (((20, 20, 20), 3 * thickness), (colour, thickness)):
        cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, stroke, cv2.LINE_AA)


def _width(picture: Image) -> int:
    return max(1, round(len(picture) / 360))


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
