"""Video files through FFmpeg, at the pace of their time stamps.

In: a path. Out: NV12 frames with the time at which each is due. Runs in the camera's child process.
"""

from __future__ import annotations

import os
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray

from edged import clock
from edged.clock import NS_PER_S
from edged.errors import EdgedError
from edged.frames.sources.base import Grabbed, SourceInfo, StreamCost
from edged.frames.sources.container import Container
from edged.frames.sources.pace import Steps
from edged.frames.video.picture import Picture
from edged.uri import SourceUri

_MAX_LATE_NS: Final = NS_PER_S // 2

# A playlist from outside must not make us open other files.
_OPTIONS: Final = {"protocol_whitelist": "file"}


class FileSource:
    """A video file, at its own pace or (pace=0) unpaced, over and over or (loop=0) once."""

    def __init__(self, uri: SourceUri) -> None:
        _check_path(uri.target)
        self._uri = uri
        self._paced, self._loop = uri.options["pace"] == 1, uri.options["loop"] == 1
        self._picture = Picture()
        self.cost = StreamCost()
        self._reopen()
        self._fps = self._stream.fps or 25.0
        period_ns = round(NS_PER_S / self._fps)
        self._steps = Steps(period_ns)
        self._due_ns = clock.mono_ns() - period_ns
        self._first: Grabbed | None = None
        while self._first is None or self._first.corrupt:  # only a decoded frame tells how it is to be shown
            grabbed = self._advance()
            if grabbed is None:
                raise EdgedError(f"{self._uri.target} holds no picture that can be decoded")
            self._first = grabbed

    @property
    def info(self) -> SourceInfo:
        assert self._picture.info is not None, "the constructor looks at the first picture"
        return self._picture.info

    def _reopen(self) -> None:
        try:
            self._stream = Container("file:" + self._uri.target, self._uri, dict(_OPTIONS), None, self.cost)
        except EdgedError as error:
            raise EdgedError(f"cannot play {self._uri.target}: {error.message}") from None
        self._frames = self._stream.decoded()
        self._drawn = 0  # frames since the file was opened
        self._last_pts: int | None = None

    def grab(self) -> Grabbed | None:
        grabbed, self._first = self._first, None
        return grabbed if grabbed is not None else self._advance()

    def _advance(self) -> Grabbed | None:
        item = next(self._frames, None)
        if item is None:
            if not self._drawn:
                raise EdgedError(f"{self._uri.target} holds no picture that can be decoded")
            if not self._loop:
                return None
            self._stream.close()
            self._reopen()
            return self._advance()
        if item.frame is None:
            return Grabbed(clock.mono_ns(), corrupt=True)
        self._drawn += 1
        stream = self._stream
        self._picture.take(item.frame, stream.pixel_aspect, self._fps, stream.stream.codec_context.name, self._paced)
        return Grabbed(self._due(item.frame) if self._paced else clock.mono_ns())

    def _due(self, frame: av.VideoFrame) -> int:
        """When the frame is due: as far after the one before as their time stamps say, where those make sense."""
        stamped_ns = 0
        if frame.pts is not None and frame.time_base is not None:
            if self._last_pts is not None:
                stamped_ns = int((frame.pts - self._last_pts) * frame.time_base * NS_PER_S)
            self._last_pts = frame.pts
        self._due_ns += self._steps.played_ns(stamped_ns)
        now_ns = clock.mono_ns()
        if now_ns - self._due_ns > _MAX_LATE_NS:
            self._due_ns = now_ns  # this machine cannot decode that fast: slower, rather than ever later
        return self._due_ns

    def retrieve(self, into: NDArray[np.uint8]) -> None:
        self._picture.draw(into)

    def close(self) -> None:
        self._stream.close()


def _check_path(path: str) -> None:
    """EdgedError for the paths that users write by mistake and FFmpeg has no words for."""
    if os.path.isdir(path):
        raise EdgedError(f"cannot play {path}: it is a directory", "name one video file, in a [[camera]] table each")
    if os.path.lexists(path):
        return
    if any(character in path for character in "*[") or (path.count("?") and "=" not in path):
        raise EdgedError(
            f"cannot play {path}: a pattern names no file", "name one video file, in a [[camera]] table each"
        )
    plain, question, options = path.partition("?")
    if question and os.path.isfile(plain):
        raise EdgedError(
            f"cannot play {path}: a path takes no options", f"write file://{os.path.abspath(plain)}?{options}"
        )
