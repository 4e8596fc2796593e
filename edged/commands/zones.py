"""`edged zones CAMERA`: a still of the camera with its zones, lines and masks drawn, as a PNG file."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2

from edged import files
from edged.checks.still import still_of
from edged.config import default_path, load
from edged.errors import EdgedError, UsageError
from edged.overlays import draw_regions
from edged.terminal import progress


def run(arguments: argparse.Namespace) -> int:
    path = default_path(arguments.config)
    cameras = {camera.name: camera for camera in load(path).camera}
    camera = cameras.get(arguments.camera)
    if camera is None:
        raise UsageError(f"{path}: there is no camera {arguments.camera!r}", f"cameras are {', '.join(cameras)}")
    with progress(f"waiting for a picture of {camera.name}"):
        picture = still_of(camera)
    draw_regions(picture, camera)
    out = Path(arguments.out or f"edged-zones-{camera.name}.png")
    encoded, png = cv2.imencode(".png", picture)
    if not encoded:
        raise EdgedError(f"the picture of {camera.name} cannot be written as PNG")
    try:
        files.write_atomic(out, png.tobytes())
    except OSError as error:
        raise UsageError(f"{out}: cannot be written: {error.strerror}", "name another file with --out") from error
    counts = [_many(len(camera.zones), "zone"), _many(len(camera.lines), "line"), _many(len(camera.mask), "mask")]
    print(f"{out}: {picture.shape[1]}x{picture.shape[0]}, {', '.join(counts)}")
    return 0


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
