"""The best picture of each tracked object, as JPEG files in a bounded directory.

On the engine loop's thread a part of the frame is copied when an object is visible better than before, and passed on
when an event of it is published. Converting, encoding and writing are the thread "snapshots"'s. A full queue or a full
disk costs snapshots only.
"""

from __future__ import annotations

import contextlib
import datetime
import heapq
import logging
import os
import queue
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edged import clock, files
from edged.bus.client import bgr
from edged.config import SnapshotConfig
from edged.errors import EdgedError
from edged.frames.frame import Frame, PixelFormat
from edged.worker import Worker

Pixels = NDArray[np.uint8]
Box = tuple[float, float, float, float]

MARGIN: Final = 0.25
"""of the box's sides, around it"""
BETTER: Final = 1.15
"""how much better an object must be visible than before: score times the root of its area"""
LONGEST_SIDE: Final = 640
QUALITY: Final = 85
KEPT: Final = 128
"""objects whose best picture is in memory, some megabytes; of more the oldest is let go"""
QUEUE: Final = 32
LISTED: Final = 256
"""files that are removed next, as known: there may be 100,000, whose paths would take 50 MB"""
DAY: Final = "????-??-??"
MB: Final = 1_000_000
STOP_S: Final = 3.0

log = logging.getLogger("edged")


@dataclass
class _Best:
    name: str
    quality: float
    pixels: Pixels
    format: PixelFormat


class Snapshots:
    """Every method is called on the engine loop's thread."""

    def __init__(
        self, pixels: Callable[[Frame], Pixels], intact: Callable[[Frame], bool], writer: SnapshotWriter
    ) -> None:
        self._pixels, self._intact, self._writer = pixels, intact, writer
        self._best: dict[tuple[str, int], _Best] = {}

    def offer(self, frame: Frame, track: int, box: Box, score: float) -> None:
        """An object of the frame; its part of the picture is copied if it is the best so far."""
        x0, y0, x1, y1 = box
        quality = score * max((x1 - x0) * (y1 - y0), 0.0) ** 0.5
        best = self._best.get((frame.camera, track))
        if best is not None and quality < best.quality * BETTER:
            return
        try:
            part = cut(self._pixels(frame), frame.format, frame.width, frame.height, box)
        except EdgedError:  # the camera was opened again meanwhile
            return
        if not self._intact(frame):
            return
        name = best.name if best is not None else name_of(frame, track)
        if best is None and len(self._best) >= KEPT:
            del self._best[next(iter(self._best))]
        self._best[frame.camera, track] = _Best(name, quality, part, frame.format)

    def write(self, camera: str, track: int, last: bool) -> str | None:
        """Hand the best picture on to be written; its name, None if there is none. `last`: it is not needed again."""
        best = self._best.pop((camera, track), None) if last else self._best.get((camera, track))
        if best is None or not self._writer.take(best.name, best.pixels, best.format):
            return None
        return best.name


class SnapshotWriter:
    """`report(text)` is called from its thread when the disk begins to refuse snapshots, and when it takes them."""

    def __init__(self, config: SnapshotConfig, path: Path, report: Callable[[str], None]) -> None:
        self._config, self._path, self._report = config, path, report
        self._queue: queue.Queue[tuple[str, Pixels, PixelFormat]] = queue.Queue(QUEUE)
        self._refused = self._cannot_prune = False
        found = map(_status, filter(os.path.isfile, path.glob(f"*/{DAY}/*.jpg")))
        self._bytes = sum(status.st_size for status in found if status is not None)
        self._oldest: deque[Path] = deque()
        self.dropped = 0
        self.worker = Worker("snapshots", self._turn)
        self.worker.start()

    def take(self, name: str, pixels: Pixels, format_: PixelFormat) -> bool:
        """False, and counted, if the disk is too slow. Any thread; never blocks."""
        try:
            self._queue.put_nowait((name, pixels, format_))
        except queue.Full:
            self.dropped += 1
            return False
        return True

    def close(self) -> None:
        """Write what waits, for some seconds at most."""
        until_ns = clock.mono_ns() + int(STOP_S * clock.NS_PER_S)
        while not self._queue.empty() and clock.mono_ns() < until_ns:
            self.worker.stopping.wait(0.02)
        self.worker.stop(STOP_S)

    def _turn(self) -> None:
        try:
            name, pixels, format_ = self._queue.get(timeout=0.5)
        except queue.Empty:
            return
        _, jpeg = cv2.imencode(".jpg", _small(bgr(pixels, format_)), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        path = self._path / name
        replaced = _status(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_atomic(path, jpeg.tobytes(), 0o640)
        except OSError as error:
            if not self._refused:
                self._report(f"snapshots cannot be written to {self._path}: {error.strerror}")
            self._refused = True
            return
        if self._refused:
            self._report(f"snapshots are written to {self._path} again")
            self._refused = False
        self._bytes += len(jpeg) - (replaced.st_size if replaced is not None else 0)
        self._prune(path)

    def _prune(self, written: Path) -> None:
        """Remove the oldest files beyond `max_mb` and `keep_days`, never the one just written."""
        oldest_ns = clock.wall_ns() - int(self._config.keep_days * 86_400 * clock.NS_PER_S)
        while (file := self._oldest_but(written)) is not None:
            status = _status(file)
            if status is not None:
                if self._bytes <= self._config.max_mb * MB and status.st_mtime_ns >= oldest_ns:
                    return
                try:
                    file.unlink(missing_ok=True)
                except OSError as error:
                    if not self._cannot_prune:
                        self._report(f"{file} cannot be removed to make room for snapshots: {error.strerror}")
                    self._cannot_prune = True
                    return
                self._bytes -= status.st_size
            self._oldest.popleft()

    def _oldest_but(self, written: Path) -> Path | None:
        if self._oldest and self._oldest[0] == written:
            self._oldest.popleft()
        if not self._oldest:
            self._oldest.extend(file for file in _oldest_files(self._path) if file != written)
        return self._oldest[0] if self._oldest else None


def name_of(frame: Frame, track: int) -> str:
    """CAMERA/DAY/TIME-TRACK.jpg, in UTC: names sort as their times do within a camera."""
    at = datetime.datetime.fromtimestamp(frame.t_capture_ns / clock.NS_PER_S, datetime.timezone.utc)
    return f"{frame.camera}/{at:%Y-%m-%d}/{at:%H%M%S}-{track}.jpg"


def cut(pixels: Pixels, format_: PixelFormat, width: int, height: int, box: Box) -> Pixels:
    """A copy of the box with a margin around it, laid out as the picture is; even sides and corners, as NV12 needs."""
    x0, y0, x1, y1 = box
    margin_x, margin_y = MARGIN * (x1 - x0), MARGIN * (y1 - y0)
    left, top = (max(0, int(value)) // 2 * 2 for value in (x0 - margin_x, y0 - margin_y))
    right = min(width // 2 * 2, max(left + 2, (int(x1 + margin_x) + 1) // 2 * 2))
    bottom = min(height // 2 * 2, max(top + 2, (int(y1 + margin_y) + 1) // 2 * 2))
    left, top = min(left, right - 2), min(top, bottom - 2)
    if not format_.is_nv12:
        part: Pixels = pixels[top:bottom, left:right].copy()
        return part
    chroma = pixels[height + top // 2 : height + bottom // 2, left:right]
    return np.concatenate([pixels[top:bottom, left:right], chroma])


def _small(picture: Pixels) -> Pixels:
    scale = LONGEST_SIDE / max(picture.shape[:2])
    if scale >= 1:
        return picture
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    smaller: Pixels = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return smaller


def _oldest_files(path: Path) -> list[Path]:
    """The first LISTED files of the oldest day that has any, of all cameras in the order of their times; days without
    files are removed."""
    for day in sorted({directory.name for directory in path.glob(f"*/{DAY}")}):
        files_of_day = filter(os.path.isfile, path.glob(f"*/{day}/*.jpg"))
        if oldest := heapq.nsmallest(LISTED, files_of_day, key=lambda file: file.name):
            return oldest
        for directory in path.glob(f"*/{day}"):
            with contextlib.suppress(OSError):  # something else is in it
                directory.rmdir()
    return []


def _status(path: Path) -> os.stat_result | None:
    """None: there is no such file."""
    try:
        return path.stat()
    except OSError:
        return None
