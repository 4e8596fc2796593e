"""Network streams that are neither RTSP with H.264 or H.265 nor JPEGs: MPEG-TS, HLS and the like, through FFmpeg.

In: an http:// or rtsp:// source. Out: NV12 frames, the damaged ones marked. Runs in the camera's child process.
"""

from __future__ import annotations

from typing import Final

import av
import numpy as np
from numpy.typing import NDArray

from edged import clock
from edged.clock import NS_PER_S
from edged.errors import EdgedError
from edged.frames.sources.base import Grabbed, SourceInfo, StreamCost
from edged.frames.sources.container import OPEN_S, Container
from edged.frames.sources.pace import Steps
from edged.frames.video.picture import Picture
from edged.uri import SourceUri

_MAX_AHEAD_NS: Final = NS_PER_S // 2
_MAX_JUMP_NS: Final = 10 * NS_PER_S
_CATCH_UP: Final = 0.01

# A playlist or redirect from outside must not make us open local files.
_RTSP: Final = {
    "analyzeduration": "100000",
    "probesize": "32768",
    "protocol_whitelist": "rtsp,rtsps,rtp,udp,tcp,tls,crypto",
}
_HTTP: Final = {
    "analyzeduration": "1000000",
    "protocol_whitelist": "http,https,httpproxy,tcp,tls,crypto",
    "extension_picky": "0",  # the segments of a camera's playlist are often answers of a program, named as it likes
    "allowed_extensions": "ALL",
    "allowed_segment_extensions": "ALL",
}


class NetworkSource:
    """A stream by RTSP or HTTP; its end is a failure. What comes faster than it is to be played (a file on a server,
    the segments of a playlist) is paced by its time stamps; a live stream never waits."""

    def __init__(self, uri: SourceUri, transport: str, read_s: float) -> None:
        options = {**_RTSP, "rtsp_transport": transport} if uri.kind == "rtsp" else dict(_HTTP)
        self.cost = StreamCost()
        self._stream = Container(uri.url(), uri, options, (OPEN_S, read_s), self.cost)
        self._frames = self._stream.decoded()
        self._picture = Picture()
        self._anchor_ns: int | None = None
        self._media_ns: int | None = None
        self._steps = Steps(round(NS_PER_S / (self._stream.fps or 25.0)))
        self._next: Grabbed | None = None
        try:
            while self._next is None or self._next.corrupt:  # only a decoded frame tells the real size
                self._next = self._advance()
        except EdgedError:
            self.close()
            raise

    @property
    def info(self) -> SourceInfo:
        assert self._picture.info is not None, "the constructor waits for the first picture"
        return self._picture.info

    def grab(self) -> Grabbed:
        grabbed, self._next = self._next, None
        return grabbed if grabbed is not None else self._advance()

    def _advance(self) -> Grabbed:
        item = next(self._frames, None)
        if item is None:
            raise EdgedError("the camera ended the stream")
        if item.frame is None:
            return Grabbed(item.mono_ns, corrupt=True)
        stream = self._stream
        self._picture.take(item.frame, stream.pixel_aspect, stream.fps, stream.stream.codec_context.name)
        return Grabbed(self._due(item.frame, item.mono_ns), item.wall_ns)

    def _due(self, frame: av.VideoFrame, arrival_ns: int) -> int:
        """Its arrival; later, if it is ahead of its time stamp by more than live streams are."""
        if frame.pts is None or frame.time_base is None:
            return arrival_ns
        media_ns = int(frame.pts * frame.time_base * NS_PER_S)
        step_ns = media_ns - self._media_ns if self._media_ns is not None else 0
        self._media_ns = media_ns
        if self._anchor_ns is None:
            self._anchor_ns = self._stream.begun_ns - media_ns
        elif not 0 <= step_ns <= _MAX_JUMP_NS:
            self._anchor_ns = clock.mono_ns() + _MAX_AHEAD_NS - media_ns
        else:
            played_ns = self._steps.played_ns(step_ns)
            self._anchor_ns -= step_ns - played_ns
            step_ns = played_ns
        due_ns = self._anchor_ns + media_ns - _MAX_AHEAD_NS
        if due_ns <= clock.mono_ns():
            return arrival_ns
        self._anchor_ns -= int(step_ns * _CATCH_UP)  # a camera's clock may be faster than ours, and stay so
        return due_ns

    def retrieve(self, into: NDArray[np.uint8]) -> None:
        self._picture.draw(into)

    def close(self) -> None:
        self._stream.close()
