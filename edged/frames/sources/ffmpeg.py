"""Video files, and what comes by the network and is neither RTSP with H.264 or H.265 nor JPEGs: through FFmpeg (PyAV).

In: a path or URL. Out: NV12 frames, the damaged ones marked. Runs in the camera's child process.
"""

from __future__ import annotations

import os
import statistics
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import av
import av.logging
import numpy as np
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

from edged import clock
from edged.clock import NS_PER_S
from edged.errors import EdgedError
from edged.frames.sources.base import Grabbed, SourceInfo, StreamCost
from edged.frames.video.access_unit import UnitFacts
from edged.frames.video.damage import DamageTracker
from edged.frames.video.decoder import prepare
from edged.frames.video.picture import Picture
from edged.uri import SourceUri

av.logging.set_level(None)  # FFmpeg's own lines would carry URLs, and come thousands at a time from a bad stream

_OPEN_S: Final = 5.0
_MAX_BAD: Final = 300  # packets in a row that cannot be decoded
_MAX_TAGS: Final = 64
_MAX_LATE_NS: Final = NS_PER_S // 2
_MAX_AHEAD_NS: Final = NS_PER_S // 2
_MAX_JUMP_NS: Final = 10 * NS_PER_S
_PAUSE_NS: Final = NS_PER_S
_LONGEST_FIRST_NS: Final = 5 * NS_PER_S
_CATCH_UP: Final = 0.01

# A playlist or redirect from outside must not make us open local files.
_RTSP: Final = {
    "analyzeduration": "100000",
    "probesize": "32768",
    "protocol_whitelist": "rtsp,rtsps,rtp,udp,tcp,tls,crypto",
}
_HTTP: Final = {"analyzeduration": "1000000", "protocol_whitelist": "http,https,httpproxy,tcp,tls,crypto"}
_FILE: Final = {"protocol_whitelist": "file"}
_HELD_BACK: Final = ("mpegts", "rtsp", "h264", "hevc", "hls")
"""Formats in which a picture is known to be whole only when the next one begins."""


@dataclass(frozen=True)
class _Decoded:
    """A frame, or (None) a packet that gives no right picture, and when and with what capture time its packet came."""

    frame: av.VideoFrame | None
    mono_ns: int
    wall_ns: int | None = None


class _Tag(NamedTuple):
    """Of a packet: when and with what capture time it came, and whether its picture will be right."""

    mono_ns: int
    wall_ns: int | None
    right: bool


class _Stream:
    """An open container and its first video stream that is no cover picture."""

    def __init__(
        self,
        url: str,
        shown: SourceUri,
        options: dict[str, str],
        timeout: tuple[float, float] | None,
        cost: StreamCost,
    ) -> None:
        self._uri = shown
        self.begun_ns = clock.mono_ns()
        self.cost = cost
        self._damage = DamageTracker()
        self._tags: dict[int, _Tag] = {}
        self._before_ns: int | None = None
        try:
            self._container = av.open(url, options=options, timeout=timeout)
        except (av.FFmpegError, OSError, ValueError) as error:
            # FFmpeg calls a silent camera invalid data; the clock knows better. The cause would carry the URL.
            late = timeout is not None and clock.mono_ns() - self.begun_ns >= timeout[0] * NS_PER_S
            raise EdgedError(f"no answer within {_OPEN_S:.0f} s" if late else self._explain(error)) from None
        streams = self._container.streams.video
        if not streams:
            self.close()
            raise EdgedError("it has no video stream")
        moving = [stream for stream in streams if not stream.disposition & Disposition.attached_pic]
        if not moving:
            self.close()
            raise EdgedError("it has a cover picture and no video stream")
        self.stream: VideoStream = max(moving, key=lambda stream: bool(stream.disposition & Disposition.default))
        self.format = self._container.format.name.split(",")[0]
        prepare(self.stream.codec_context)

    @property
    def fps(self) -> float | None:
        rate = self.stream.average_rate or self.stream.guessed_rate
        return float(rate) if rate and 0 < rate <= 1000 else None

    @property
    def pixel_aspect(self) -> float:
        aspect = self.stream.sample_aspect_ratio or self.stream.codec_context.sample_aspect_ratio
        return float(aspect) if aspect else 1.0

    def decoded(self) -> Iterator[_Decoded]:
        """Every frame to the end of the stream. Raises EdgedError when the stream breaks."""
        bad = 0
        packets = self._container.demux(self.stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.FFmpegError, OSError) as error:
                raise EdgedError(self._explain(error)) from None
            tag = self._tag(packet)
            begun_ns = clock.thread_cpu_ns()
            try:
                frames = packet.decode()
            except (av.FFmpegError, OSError) as error:
                bad += 1
                self._damage.hurt()
                if bad > _MAX_BAD:
                    raise EdgedError(f"{_MAX_BAD} packets in a row cannot be decoded: {self._explain(error)}") from None
                yield _Decoded(None, tag.mono_ns)
                continue
            finally:
                self.cost.decode_ns += clock.thread_cpu_ns() - begun_ns
            for frame in frames:
                bad = 0
                yield self._judged(frame, tag)

    def _tag(self, packet: av.Packet[Any]) -> _Tag:
        """What is known of a packet's picture."""
        now_ns = clock.mono_ns()
        mono_ns = self._before_ns if self._before_ns is not None and self.format in _HELD_BACK else now_ns
        self._before_ns = now_ns
        if not packet.size:  # the end: what the decoder still holds
            return _Tag(mono_ns, None, True)
        # what comes before the first keyframe FFmpeg keeps back by itself
        right = self._damage.unit(_facts(packet), not packet.is_corrupt, now_ns) or self._damage.beginning
        tag = _Tag(mono_ns, _camera_time_ns(packet), right)
        if packet.pts is not None:
            if len(self._tags) >= _MAX_TAGS:
                self._tags.clear()
            self._tags[packet.pts] = tag
        self.cost.bytes += packet.size
        self.cost.keyframe_interval_ns = self._damage.keyframe_interval_ns
        return tag

    def _judged(self, frame: av.VideoFrame, latest: _Tag) -> _Decoded:
        """A decoded frame with what is known of it, and without it if it is damaged."""
        self.cost.pictures += 1
        tag = self._tags.pop(frame.pts, latest) if frame.pts is not None else latest
        damaged = frame.is_corrupt and (self._damage.from_keyframe or self._damage.beginning)
        if damaged:
            self._damage.hurt()
        return _Decoded(frame if tag.right and not damaged else None, tag.mono_ns, tag.wall_ns)

    def close(self) -> None:
        self._container.close()

    def _explain(self, error: Exception) -> str:
        """One sentence without the URL that FFmpeg would put into it."""
        if isinstance(error, av.error.HTTPUnauthorizedError):
            return "the camera refuses the user or the password"
        if isinstance(error, av.error.ExitError | TimeoutError):
            return "no answer in time"
        if isinstance(error, av.error.InvalidDataError):
            return "it is damaged or no video that FFmpeg knows"
        text = getattr(error, "strerror", None) or type(error).__name__
        return self._uri.scrub(str(text))


def _facts(packet: av.Packet[Any]) -> UnitFacts:
    """As far as FFmpeg tells."""
    return UnitFacts(True, True, packet.is_keyframe, False, False, None)


def _camera_time_ns(packet: av.Packet[Any]) -> int | None:
    """Unix time of the capture by the camera's clock, from its RTCP sender reports; None until the first of them."""
    if not hasattr(packet, "has_sidedata") or not packet.has_sidedata("prft"):  # PyAV before 16 does not have it
        return None
    data = bytes(packet.get_sidedata("prft"))
    if len(data) < 8:
        return None
    (microseconds,) = struct.unpack_from("=q", data)
    return microseconds * 1000 if 0 < microseconds < 1 << 52 else None


class NetworkSource:
    """A stream by RTSP or HTTP; its end is a failure. What comes faster than it is to be played (a file on a server,
    the segments of a playlist) is paced by its time stamps; a live stream never waits."""

    def __init__(self, uri: SourceUri, transport: str, read_s: float) -> None:
        options = {**_RTSP, "rtsp_transport": transport} if uri.kind == "rtsp" else dict(_HTTP)
        self.cost = StreamCost()
        self._stream = _Stream(uri.url(), uri, options, (_OPEN_S, read_s), self.cost)
        self._frames = self._stream.decoded()
        self._picture = Picture()
        self._anchor_ns: int | None = None
        self._media_ns: int | None = None
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
        due_ns = self._anchor_ns + media_ns - _MAX_AHEAD_NS
        if due_ns <= clock.mono_ns():
            return arrival_ns
        self._anchor_ns -= int(step_ns * _CATCH_UP)  # a camera's clock may be faster than ours, and stay so
        return due_ns

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
        self._period_ns = round(NS_PER_S / self._fps)
        self._steps_ns: deque[int] = deque(maxlen=9)
        self._due_ns = clock.mono_ns() - self._period_ns
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
            self._stream = _Stream("file:" + self._uri.target, self._uri, dict(_FILE), None, self.cost)
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
        """When the frame is due: as far after the one before as their time stamps say, where those make sense. A pause
        (a recording made on motion) is cut to a second, or to twice a picture's usual time."""
        usual_ns = int(statistics.median(self._steps_ns)) if self._steps_ns else min(self._period_ns, _LONGEST_FIRST_NS)
        step_ns = usual_ns
        if frame.pts is not None and frame.time_base is not None:
            if self._last_pts is not None:
                stamped_ns = int((frame.pts - self._last_pts) * frame.time_base * NS_PER_S)
                if stamped_ns > 0:
                    step_ns = min(stamped_ns, max(_PAUSE_NS, 2 * usual_ns))
                    self._steps_ns.append(stamped_ns)
            self._last_pts = frame.pts
        self._due_ns += step_ns
        now_ns = clock.mono_ns()
        if now_ns - self._due_ns > _MAX_LATE_NS:
            self._due_ns = now_ns  # this machine cannot decode that fast: slower, rather than ever later
        return self._due_ns

    def retrieve(self, into: NDArray[np.uint8]) -> None:
        self._picture.draw(into)

    def close(self) -> None:
        self._stream.close()
