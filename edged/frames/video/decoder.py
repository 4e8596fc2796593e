"""Compressed pictures into pictures, one at a time (libavcodec through PyAV), with what is known of each kept by it.

In: access units and a tag for each. Out: pictures with the tags of their units. One thread and no delay of the
decoder's own: a picture is out as soon as its unit is in, unless the stream has B frames. Runs in the camera's child.
"""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

import av
from av.video.codeccontext import VideoCodecContext

from edged import clock
from edged.frames.ring import MAX_SIDE

Tag = TypeVar("Tag")

_MAX_TAGS: Final = 64


STILLS: Final = {b"\xff\xd8": "mjpeg", b"\x89PNG": "png", b"RIFF": "webp"}
"""The codecs of single pictures, by their first bytes."""


def still_codec(data: bytes) -> str | None:
    """The codec of a single picture, from its first bytes; None if it is none."""
    codec = next((codec for signature, codec in STILLS.items() if data.startswith(signature)), None)
    return None if codec == "webp" and data[8:12] != b"WEBP" else codec  # AVI begins like that too


class DamagedError(Exception):
    """The unit cannot be decoded."""


def prepare(context: Any, live: bool) -> None:
    """The decoder's settings, before its first picture. `explode` makes it report stills that are cut or have holes;
    of other codecs the damage is tracked outside, and their damaged pictures keep the decoder in step. `live`: without
    delay, which some decoders would buy with the order of B frames."""
    context.thread_count = 1
    context.thread_type = "NONE"
    options = {"max_pixels": str(MAX_SIDE * MAX_SIDE)}
    if context.name in STILLS.values():
        options["err_detect"] = "explode"
    else:
        options["flags"] = "output_corrupt" + ("+low_delay" if live else "")
    context.options = {**context.options, **options}


class Decoder(Generic[Tag]):
    """A decoder of one stream."""

    def __init__(self, codec: str, parameter_sets: bytes = b"") -> None:
        self._context: Any = av.CodecContext.create(codec, "r")
        if parameter_sets:
            self._context.extradata = parameter_sets
        prepare(self._context, live=True)
        self._stills = codec in STILLS.values()
        self._tags: dict[int, Tag] = {}
        self._number = 0
        self.cpu_ns = 0

    @property
    def context(self) -> VideoCodecContext:
        context: VideoCodecContext = self._context
        return context

    def decode(self, data: bytes, tag: Tag) -> list[tuple[av.VideoFrame, Tag]]:
        """The pictures that are ready. Raises DamagedError."""
        if not data:  # to the decoder it would be the end: it would take nothing more
            raise DamagedError
        packet: Any = av.Packet(data)
        packet.pts = self._number = self._number + 1
        if self._stills:
            packet.is_keyframe = True  # PNG's decoder would add others to the picture before
        if len(self._tags) >= _MAX_TAGS:
            self._tags.clear()
        self._tags[self._number] = tag
        begun_ns = clock.thread_cpu_ns()
        try:
            frames = self._context.decode(packet)
        except (av.FFmpegError, OSError):
            self._tags.pop(self._number, None)
            raise DamagedError from None
        finally:
            self.cpu_ns += clock.thread_cpu_ns() - begun_ns
        return [(frame, self._tags.pop(frame.pts)) for frame in frames if frame.pts in self._tags]
