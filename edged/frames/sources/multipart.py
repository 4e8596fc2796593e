"""The parts of a multipart/x-mixed-replace stream, each as soon as its last byte is here.

In: the bytes of an HTTP answer as they come, its boundary. Out: pictures with their arrival. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from edged.frames.sources.jpeg import SOI, jpeg_length

MAX_PART_BYTES: Final = 16 << 20
_MAX_HEAD: Final = 1 << 14
_LENGTH: Final = re.compile(rb"(?im)^content-length:\s*(\d{1,9})\s*$")
_TYPE: Final = re.compile(rb"(?im)^content-type:\s*([\w.+-]+/[\w.+-]+)")


@dataclass(frozen=True)
class Part:
    """`arrival_ns` of its first bytes."""

    content_type: str
    data: bytes
    arrival_ns: int


class MultipartReader:
    """Push what comes, take what is whole. Cameras write the boundary with and without its leading dashes, and many
    no length: then a JPEG's own end counts, or the next boundary."""

    def __init__(self, boundary: str) -> None:
        plain = boundary.strip().strip('"')
        self._boundary = b"--" + plain.removeprefix("--").encode() if plain else b"--"
        self._buffer = bytearray()
        self._arrival_ns = 0

    def push(self, data: bytes, arrival_ns: int) -> list[Part]:
        """The parts that end within these bytes."""
        if len(self._buffer) <= 4 and not self._buffer.strip(b"\r\n"):  # what ended the part before is not this one's
            self._arrival_ns = arrival_ns
        self._buffer += data
        parts: list[Part] = []
        while (part := self._part()) is not None:
            parts.append(part)
            self._arrival_ns = arrival_ns
        if len(self._buffer) > MAX_PART_BYTES + _MAX_HEAD:
            self._buffer.clear()
        return parts

    def _part(self) -> Part | None:
        buffer = self._buffer
        start = buffer.find(self._boundary)
        if start < 0:
            if len(buffer) > _MAX_HEAD:
                del buffer[: -len(self._boundary)]
            return None
        head = re.compile(rb"\r?\n\r?\n").search(buffer, start, start + _MAX_HEAD)
        if head is None:
            if len(buffer) - start > _MAX_HEAD:
                del buffer[: start + len(self._boundary)]
            return None
        fields = bytes(buffer[start : head.start()])
        length = _LENGTH.search(fields)
        end = self._end(head.end(), int(length.group(1)) if length else None)
        if end is None:
            return None
        kind = _TYPE.search(fields)
        part = Part(kind.group(1).decode().lower() if kind else "", bytes(buffer[head.end() : end]), self._arrival_ns)
        del buffer[:end]
        return part

    def _end(self, start: int, length: int | None) -> int | None:
        buffer = self._buffer
        if length is not None and 0 < length <= MAX_PART_BYTES:
            return start + length if len(buffer) >= start + length else None
        following = buffer.find(b"\n" + self._boundary, start)
        if buffer[start : start + 2] == SOI:
            length = jpeg_length(buffer, start)
            if length is not None and (following < 0 or start + length <= following):
                return start + length
        if following < 0:
            return None
        return following - 1 if buffer[following - 1 : following] == b"\r" else following
