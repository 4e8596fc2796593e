"""A container that FFmpeg (PyAV) reads, and its video as decoded pictures: whether they are right and when they came.

In: a path or URL. Out: pictures. Runs in the camera's child process.
"""

from __future__ import annotations

import errno
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import av
import av.logging
from av.stream import Disposition
from av.video.stream import VideoStream

from edged import clock
from edged.clock import NS_PER_S
from edged.errors import EdgedError
from edged.frames.sources.base import StreamCost
from edged.frames.video.access_unit import UnitFacts
from edged.frames.video.damage import DamageTracker
from edged.frames.video.decoder import prepare
from edged.uri import SourceUri

av.logging.set_level(None)  # FFmpeg's own lines would carry URLs, and come thousands at a time from a bad stream

OPEN_S: Final = 5.0
_MAX_BAD: Final = 300  # packets in a row that cannot be decoded
_MAX_TAGS: Final = 64
_HELD_BACK: Final = {"mpegts": 2, "hls": 2, "rtsp": 1, "h264": 1, "hevc": 1}
"""Formats in which a picture comes out late, by how many that had to begin first: a parser needs the beginning of the
next one, and gets that of MPEG-TS only when the packet that holds it is complete, as the one after it begins."""


@dataclass(frozen=True)
class Decoded:
    """A frame, or (None) a packet that gives no right picture, and when and with what capture time its packet came."""

    frame: av.VideoFrame | None
    mono_ns: int
    wall_ns: int | None = None


class _Tag(NamedTuple):
    """Of a packet: when and with what capture time it came, and whether its picture will be right."""

    mono_ns: int
    wall_ns: int | None
    right: bool


class Container:
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
        self._was_corrupt, self._whole_so_far = False, True
        try:
            self._container = av.open(url, options=options, timeout=timeout)
        except (av.FFmpegError, OSError, ValueError) as error:
            # FFmpeg calls a silent camera invalid data; the clock knows better. The cause would carry the URL.
            late = timeout is not None and clock.mono_ns() - self.begun_ns >= timeout[0] * NS_PER_S
            raise EdgedError(f"no answer within {OPEN_S:.0f} s" if late else self._explain(error)) from None
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
        self._came_ns: deque[int] = deque(maxlen=1 + _HELD_BACK.get(self.format, 0))
        prepare(self.stream.codec_context, live=False)

    @property
    def fps(self) -> float | None:
        rate = self.stream.average_rate or self.stream.guessed_rate
        return float(rate) if rate and 0 < rate <= 1000 else None

    @property
    def pixel_aspect(self) -> float:
        of_file, of_codec = self.stream.sample_aspect_ratio, self.stream.codec_context.sample_aspect_ratio
        # the formats of broadcasting have none of their own: of the stream's, FFmpeg keeps the first
        aspect = of_codec or of_file if self.format in _HELD_BACK else of_file or of_codec
        return float(aspect) if aspect else 1.0

    def decoded(self) -> Iterator[Decoded]:
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
                yield Decoded(None, tag.mono_ns)
                continue
            finally:
                self.cost.decode_ns += clock.thread_cpu_ns() - begun_ns
            for frame in frames:
                bad = 0
                yield self._judged(frame, tag)

    def _tag(self, packet: av.Packet[Any]) -> _Tag:
        """What is known of a packet's picture."""
        now_ns = clock.mono_ns()
        self._came_ns.append(now_ns)
        mono_ns = self._came_ns[0]  # when it began: what it waited for is what the ones before had waited for
        if not packet.size:  # the end: what the decoder still holds
            return _Tag(mono_ns, None, True)
        if self.format == "hls":
            packet.is_corrupt = False  # nothing is lost on this way; cameras count the packets of each segment anew
        # A parser marks the picture that it gives out when it meets a loss, which is in the one that follows.
        whole = not (packet.is_corrupt or self._was_corrupt)
        self._was_corrupt = packet.is_corrupt and self.format in _HELD_BACK
        self._whole_so_far = self._whole_so_far and whole
        # what comes before the first keyframe FFmpeg keeps back by itself
        right = self._damage.unit(_facts(packet), whole, now_ns, packet.pts)
        right = right or (self._damage.beginning and self._whole_so_far)
        tag = _Tag(mono_ns, _camera_time_ns(packet), right)
        if packet.pts is not None:
            if len(self._tags) >= _MAX_TAGS:
                self._tags.clear()
            self._tags[packet.pts] = tag
        self.cost.bytes += packet.size
        self.cost.keyframe_interval_ns = self._damage.keyframe_interval_ns
        return tag

    def _judged(self, frame: av.VideoFrame, latest: _Tag) -> Decoded:
        """A decoded frame with what is known of it, and without it if it is damaged."""
        self.cost.pictures += 1
        tag = self._tags.pop(frame.pts, latest) if frame.pts is not None else latest
        damaged = frame.is_corrupt and (self._damage.from_keyframe or self._damage.beginning)
        if damaged:
            self._damage.hurt()
        return Decoded(frame if tag.right and not damaged else None, tag.mono_ns, tag.wall_ns)

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
        if isinstance(error, OSError) and error.errno == errno.EIO:
            return "it breaks off (an MP4 file needs its index at its beginning, or a server with ranges)"
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
