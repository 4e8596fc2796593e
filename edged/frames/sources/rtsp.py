"""RTSP cameras with H.264 or H.265: each picture as soon as its last packet is here.

In: an rtsp:// or rtsps:// source. Out: NV12 frames with the time at which they left the camera; damaged ones are
marked. Runs in the camera's child process. Other codecs go through FFmpeg's own RTSP (network.py).
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from edged import clock
from edged.clock import NS_PER_S
from edged.errors import EdgedError
from edged.frames.rtsp.capture_time import CaptureTime
from edged.frames.rtsp.depacketiser import AccessUnit
from edged.frames.rtsp.session import CODECS, RtspSession, Transport
from edged.frames.sources.base import Grabbed, Report, SourceInfo, StreamCost
from edged.frames.video.access_unit import unit_facts
from edged.frames.video.damage import DamageTracker
from edged.frames.video.decoder import DamagedError, Decoder
from edged.frames.video.picture import Picture
from edged.uri import SourceUri

OPEN_S: Final = 5.0
_REPORT_NS: Final = NS_PER_S
_MAX_BAD: Final = 300


class _Tag(NamedTuple):
    """What is known of a picture's access unit."""

    grabbed: Grabbed
    right: bool


class RtspSource:
    """The end of the stream is a failure. `read_s`: how long the camera may be silent."""

    def __init__(self, uri: SourceUri, transport: Transport, read_s: float, report: Report) -> None:
        self._session = RtspSession(uri, transport, OPEN_S, read_s)
        track = self._session.track
        self._codec = CODECS[track.codec]
        self._decoder: Decoder[_Tag] = Decoder(self._codec, track.parameter_sets)
        self._damage = DamageTracker()
        self._time = CaptureTime(track.clock_hz)
        self._picture = Picture()
        self._ready: deque[tuple[Grabbed, av.VideoFrame | None]] = deque()
        self._bad = 0
        self.cost = StreamCost()
        try:
            self._first: Grabbed | None = self._first_picture(report)
        except EdgedError:
            self._session.close()
            raise

    @property
    def info(self) -> SourceInfo:
        assert self._picture.info is not None, "the constructor waits for the first picture"
        return self._picture.info

    def _first_picture(self, report: Report) -> Grabbed:
        """Wait for the first right picture, which alone tells the size, and say now and then what is missing."""
        begun_ns = reported_ns = clock.mono_ns()
        while True:
            grabbed = self._next()
            if not grabbed.corrupt:
                return grabbed
            now_ns = clock.mono_ns()
            if now_ns - reported_ns >= _REPORT_NS:
                reported_ns = now_ns
                report(
                    "connected, packets come, no keyframe yet"
                    if self._damage.beginning
                    else "connected, packets come, no picture can be decoded"
                )
                if self._session.packets and not self.cost.pictures and now_ns - begun_ns > 60 * NS_PER_S:
                    raise EdgedError(
                        "packets came for 60 s, and no keyframe", "set the camera's keyframe interval to 1 or 2 s"
                    )

    def grab(self) -> Grabbed:
        grabbed, self._first = self._first, None
        return grabbed if grabbed is not None else self._next()

    def _next(self) -> Grabbed:
        while not self._ready:
            self._decode(self._session.next_unit())
        grabbed, frame = self._ready.popleft()
        if frame is not None:
            aspect = self._decoder.context.sample_aspect_ratio
            self._picture.take(frame, float(aspect) if aspect else 1.0, self._fps(), self._codec)
        return grabbed

    def _fps(self) -> float | None:
        if self._session.track.fps is not None:
            return self._session.track.fps
        rate = self._decoder.context.framerate
        return float(rate) if rate and 0 < rate <= 1000 else None

    def _decode(self, unit: AccessUnit) -> None:
        """Decode it, and queue what is to be seen of it: its picture, or the fact that it is damaged."""
        facts = unit_facts(unit.nals, self._codec)
        now_ns = clock.mono_ns()
        if unit.after_gap:
            self._damage.hurt()
        right = self._damage.unit(facts, unit.whole and facts.whole_start, now_ns, unit.timestamp)
        mono_ns = self._time.mono_ns(unit.timestamp, unit.arrival_ns, unit.fresh)
        tag = _Tag(Grabbed(mono_ns, self._session.wall_ns(unit.timestamp)), right)
        frames: list[tuple[av.VideoFrame, _Tag]] = []
        if unit.nals:
            try:
                frames = self._decoder.decode(unit.annex_b(), tag)
                self._bad = 0
            except DamagedError:
                self._spoilt(right)
                right = False
        if not right:
            self._ready.append((Grabbed(mono_ns, corrupt=True), None))
        for frame, known in frames:
            if known.right and frame.is_corrupt and self._damage.from_keyframe:
                self._damage.hurt()
                self._ready.append((Grabbed(known.grabbed.mono_ns, corrupt=True), None))
            elif known.right:
                self._ready.append((known.grabbed, frame))
        self._count(len(frames))

    def _spoilt(self, right: bool) -> None:
        """A unit that arrived whole cannot be decoded."""
        if right:
            self._damage.hurt()
        self._bad += 1
        if self._bad > _MAX_BAD:
            raise EdgedError(f"{_MAX_BAD} pictures in a row cannot be decoded", "try the stream in another player")

    def _count(self, pictures: int) -> None:
        cost = self.cost
        cost.pictures += pictures
        cost.decode_ns, cost.bytes = self._decoder.cpu_ns, self._session.bytes
        cost.lost_packets = self._session.lost_packets
        cost.keyframe_interval_ns = self._damage.keyframe_interval_ns

    def retrieve(self, into: NDArray[np.uint8]) -> None:
        self._picture.draw(into)

    def close(self) -> None:
        self._session.close()
