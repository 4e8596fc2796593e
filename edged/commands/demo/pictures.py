"""Pictures for people: the frames that results were made from, with boxes, labels, variant and age.

In: results and the pixels a client mapped from the ring. Out: edged-demo.png (every camera under every variant) and
edged-demo.mp4 (the cameras side by side over time). On the demo's main thread, a few times a second.
"""

from __future__ import annotations

import contextlib
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, cast

import av
import cv2
import numpy as np

from edged.bus.client import Client
from edged.bus.schema import Result
from edged.errors import EdgedError
from edged.overlays import Colour, Image, draw_result

PICTURE = "edged-demo.png"
CLIP = "edged-demo.mp4"
CLIP_FPS: Final = 5
CLIP_LONGEST_S: Final = 120.0
CLIP_TILE: Final = (640, 360)
PICTURE_WIDTH: Final = 1920
MAX_TILE_WIDTH: Final = 960
TITLE_HEIGHT: Final = 64
TITLE_LINE: Final = 27
_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
_WHITE: Final = (255, 255, 255)
_DARK: Final = (38, 32, 28)


@dataclass(frozen=True)
class Shot:
    """A result and a copy of its picture, BGR."""

    result: Result
    pixels: Image


class Gallery:
    """The last shot of each camera, and of each camera under each variant."""

    def __init__(self, cameras: Sequence[str]) -> None:
        self.cameras = tuple(cameras)
        self.last: dict[str, Shot] = {}
        self.by_variant: dict[str, dict[str, Shot]] = {}
        self._due_s = dict.fromkeys(self.cameras, 0.0)

    def offer(self, client: Client, result: Result, now_s: float) -> None:
        """Copy its picture from the ring if one is due and the camera has not overwritten it."""
        if now_s < self._due_s[result.camera]:
            return
        pixels = client.frame(result)
        if pixels is None:
            return
        self._due_s[result.camera] = now_s + 1 / CLIP_FPS
        shot = self.last[result.camera] = Shot(result, pixels)
        self.by_variant.setdefault(result.variant, {})[result.camera] = shot

    def save(self, path: Path, title: str, variants: Sequence[str]) -> bool:
        """A row for each variant that ran, a column for each camera. False if there is no picture at all."""
        if not self.by_variant:
            return False
        width = min(MAX_TILE_WIDTH, PICTURE_WIDTH // len(self.cameras))
        size = (width, width * 9 // 16)
        rows = []
        for shots in (self.by_variant[name] for name in variants if name in self.by_variant):
            tiles = [tile(shots.get(camera), camera, size) for camera in self.cameras]
            rows.append(np.hstack([_framed(one) for one in tiles]))
        picture = np.vstack([_title(title, rows[0].shape[1]), *rows])
        write(path, cv2.imencode(".png", picture)[1].tobytes())
        return True


class Clip:
    """An H.264 file to which composed pictures are added one at a time.

    Encoded in memory (some MB at most) and written at the end, since FFmpeg crashes on a full file system.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: Any = None
        self._frames = 0
        write(path, b"")  # fail now, not after all the acts
        self._encoded = io.BytesIO()
        self._container = av.open(self._encoded, "w", format="mp4")

    def __enter__(self) -> Clip:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()
        if self._frames:
            write(self._path, self._encoded.getvalue())
        else:
            self._path.unlink(missing_ok=True)

    def add(self, gallery: Gallery, panel: Sequence[str], now_s: float) -> None:
        """Add the current picture, if one is due. `panel`: a heading, then sentences."""
        if self._frames > now_s * CLIP_FPS or now_s > CLIP_LONGEST_S or not gallery.last:
            return
        picture = _compose([tile(gallery.last.get(name), name, CLIP_TILE) for name in gallery.cameras], panel)
        if self._stream is None:
            options = {"preset": "ultrafast", "crf": "24"}
            self._stream = self._container.add_stream("libx264", rate=CLIP_FPS, options=options)
            self._stream.height, self._stream.width = picture.shape[:2]
            self._stream.pix_fmt = "yuv420p"
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        self._frames += 1


def write(path: Path, content: bytes) -> None:
    """Write all of it or raise EdgedError; no partial file is left."""
    try:
        path.write_bytes(content)
    except OSError as error:
        with contextlib.suppress(OSError):  # it was never made
            path.unlink()
        raise EdgedError(f"cannot write {path}: {error.strerror}", "choose another directory with --out") from error


def tile(shot: Shot | None, camera: str, size: tuple[int, int]) -> Image:
    """One camera: its picture in `size` (width, height) with the detections, under a line with variant and age."""
    if shot is None:
        blank = np.full((size[1], size[0], 3), _DARK, np.uint8)
        _text(blank, f"{camera}: no picture under this variant", (12, 26), 0.6, _WHITE)
        return blank
    result = shot.result
    picture = cast(Image, cv2.resize(shot.pixels, size, interpolation=cv2.INTER_AREA))
    draw_result(picture, result, top=TITLE_LINE)
    late = "" if result.deadline_met else "  LATE"
    line = f"{result.camera}   {result.variant}   {result.age_ms:.1f} ms{late}   frame {result.frame}"
    cv2.rectangle(picture, (0, 0), (size[0], 26), _DARK, -1)
    _text(picture, line, (10, 18), 0.52, _WHITE)
    return picture


def _compose(tiles: list[Image], panel: Sequence[str]) -> Image:
    """Two tiles a row; the words fill what is left, or a row of their own."""
    width, height = CLIP_TILE
    if len(tiles) == 2:
        return np.vstack([np.hstack(tiles), _words(panel, (2 * width, height // 2))])
    rows = [*tiles, _words(panel, CLIP_TILE)]
    return np.vstack([np.hstack(rows[i : i + 2]) for i in range(0, len(rows), 2)])


def _words(lines: Sequence[str], size: tuple[int, int]) -> Image:
    picture = np.full((size[1], size[0], 3), _DARK, np.uint8)
    _text(picture, lines[0], (18, 40), 0.9, _WHITE)
    y = 80
    for sentence in lines[1:]:
        for line in textwrap.wrap(sentence, size[0] // 12):
            _text(picture, line, (18, y), 0.6, (215, 215, 215))
            y += 26
        y += 12
    return picture


def _framed(picture: Image) -> Image:
    picture[:, -2:] = picture[-2:] = _DARK
    return picture


def _title(text: str, width: int) -> Image:
    picture = np.full((TITLE_HEIGHT, width, 3), _DARK, np.uint8)
    _text(picture, text, (18, 40), 0.8, _WHITE)
    return picture


def _text(picture: Image, text: str, origin: tuple[int, int], size: float, colour: Colour) -> None:
    cv2.putText(picture, text, origin, _FONT, size, colour, 1, cv2.LINE_AA)
