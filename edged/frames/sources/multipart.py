"""The pictures of an HTTP stream, each as soon as its last byte is here: multipart/x-mixed-replace, or JPEG after JPEG.

In: the bytes of an answer as they come, its boundary. Out: pictures with their arrival. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from edged.frames.sources.jpeg import EOI, SOI, jpeg_length

MAX_PART_BYTES: Final = 16 << 20
_MAX_HEAD: Final = 1 << 14
_LENGTH: Final = re.compile(rb"(?im)^content-length:\s*(\d{1,9})\s*$")
_FIRST_LINES: Final = re.compile(rb"\s*([^\r\n:]{1,200})\r?\n[\w-]+:")
_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
_TYPE: Final = re.compile(rb"(?im)^content-type:\s*([\w.+-]+/[\w.+-]+)")


@dataclass(frozen=True)
class Part:
    """`arrival_ns` of its first bytes."""

    content_type: str
    data: bytes
    arrival_ns: int


class MultipartReader:
    """Push what comes, take what is whole. Cameras write the boundary with and without its leading dashes, or use
    another than they said; many give no length or a wrong one: then a JPEG's own end counts, or the next boundary."""

    def __init__(self, boundary: str) -> None:
        plain = boundary.strip().strip('"')
        self._boundary = b"--" + plain.removeprefix("--").encode() if plain else b"--"
        self._buffer = bytearray()
        self._arrival_ns = 0
        self._begun = False
        self._lengths_hold: bool | None = None

    def push(self, data: bytes, arrival_ns: int) -> list[Part]:
        """The parts that end within these bytes."""
        if not self._picture_begun():
            self._arrival_ns = arrival_ns
        self._buffer += data
        parts: list[Part] = []
        while (part := self._part()) is not None:
            parts.append(part)
            self._arrival_ns = arrival_ns
        if len(self._buffer) > MAX_PART_BYTES + _MAX_HEAD:
            self._buffer.clear()
        return parts

    def _picture_begun(self) -> bool:
        """Many cameras send the next boundary, some all of the head, with the end of the picture before."""
        start = self._buffer.find(self._boundary)
        head = self._head(start) if start >= 0 else None
        return head is not None and head.end() < len(self._buffer)

    def _head(self, start: int) -> re.Match[bytes] | None:
        return _HEAD_END.search(self._buffer, start, start + _MAX_HEAD)

    def _part(self) -> Part | None:
        buffer = self._buffer
        start = buffer.find(self._boundary)
        if start < 0 and not self._begun and (first := _FIRST_LINES.match(buffer)):
            self._boundary, start = first.group(1), first.start(1)
        if start < 0:
            if len(buffer) > _MAX_HEAD:
                del buffer[: -len(self._boundary)]
            return None
        head = self._head(start)
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
        self._begun = True
        part = Part(kind.group(1).decode().lower() if kind else "", bytes(buffer[head.end() : end]), self._arrival_ns)
        del buffer[:end]
        return part

    def _end(self, start: int, length: int | None) -> int | None:
        buffer = self._buffer
        if length is not None and 0 < length <= MAX_PART_BYTES and self._lengths_hold is not False:
            end = start + length
            if len(buffer) < end:
                return None
            if self._lengths_hold or buffer[start : start + 2] != SOI or buffer[end - 2 : end] == EOI:
                return end
            after = bytes(buffer[end : end + 2 + len(self._boundary)])  # cut, padded, or counted wrongly: that tells
            if len(after) < 2 + len(self._boundary):
                return None
            self._lengths_hold = after.lstrip(b"\r\n").startswith(self._boundary)
            if self._lengths_hold:
                return end
        following = buffer.find(b"\n" + self._boundary, start)
        if buffer[start : start + 2] == SOI:
            length = jpeg_length(buffer, start)
            if length is not None and (following < 0 or start + length <= following):
                return start + length
        if following < 0:
            return None
        return following - 1 if buffer[following - 1 : following] == b"\r" else following


class JpegReader:
    """The same for JPEGs that follow each other with nothing between them."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._arrival_ns = 0

    def push(self, data: bytes, arrival_ns: int) -> list[Part]:
        """The pictures that end within these bytes."""
        if SOI not in self._buffer:
            self._arrival_ns = arrival_ns
        self._buffer += data
        parts: list[Part] = []
        while (start := self._buffer.find(SOI)) >= 0 and (length := jpeg_length(self._buffer, start)) is not None:
            parts.append(Part("image/jpeg", bytes(self._buffer[start : start + length]), self._arrival_ns))
            del self._buffer[: start + length]
            self._arrival_ns = arrival_ns
        if len(self._buffer) > MAX_PART_BYTES:
            self._buffer.clear()
        return parts
