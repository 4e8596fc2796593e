"""A log file's bytes: frames of a length, a checksum and a body, so that a torn tail costs no more than its last frame.

The first body is the Header; each other is the next piece of one zlib stream of records, flushed so that it can be read
without what follows. `Packer` makes bytes, `read` takes them; neither opens a file. Pure.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, Final, Protocol

import msgspec

import edged
from edged.errors import UsageError
from edged.replay import record
from edged.replay.record import Entry, Header

MAGIC: Final = b"edgedlog"
FRAME: Final = struct.Struct("<II")
MAX_FRAME: Final = 16 << 20
MAX_UNPACKED: Final = 64 << 20
"""Of one frame: no honest one is a tenth of it."""
LEVEL: Final = 6


class Packer:
    """One file's writer: the header first, then one frame of all that was added since the last."""

    def __init__(self) -> None:
        self._zlib = zlib.compressobj(LEVEL)
        self._encoder = msgspec.msgpack.Encoder()
        self._records: list[Any] = []
        self._last_ns = 0

    def begin(self, header: Header) -> bytes:
        self._last_ns = header.mono_ns
        return MAGIC + _frame(self._encoder.encode(header))

    def add(self, at_ns: int, request: Any, answer: Any = None) -> None:
        self._records.append(record.freeze(at_ns - self._last_ns, request, answer))
        self._last_ns = at_ns

    @property
    def waiting(self) -> int:
        """Records not yet in a frame."""
        return len(self._records)

    def frame(self) -> bytes:
        """The records added since, as bytes to append; empty if there are none."""
        if not self._records:
            return b""
        body = self._zlib.compress(self._encoder.encode(self._records)) + self._zlib.flush(zlib.Z_SYNC_FLUSH)
        self._records = []
        return _frame(body)


class Source(Protocol):
    """What is read from: a file opened for reading bytes."""

    def read(self, size: int, /) -> bytes: ...


def header(source: Source, name: str) -> Header:
    """The head of a log. UsageError for any other file, and for a log of another version."""
    if source.read(len(MAGIC)) != MAGIC:
        raise UsageError(f"{name} is not a log of edged", "give a file, or the directory, that [record] path names")
    body, torn = _body(source)
    try:
        found = None if torn else msgspec.msgpack.decode(body, type=Header)
    except msgspec.DecodeError:
        found = None
    if found is None:
        raise UsageError(f"{name}: its header is damaged", "nothing in it can be read")
    if found.version != record.VERSION or found.shape != record.SHAPE:
        build = f"{'another build of ' if found.edged == edged.__version__ else ''}edged {found.edged[:40]}"
        raise UsageError(
            f"{name} is a log of version {found.version} by {build}, this edged replays version {record.VERSION}",
            f"replay it with {build}",
        )
    return found


def read(source: Source, head: Header) -> Iterator[Entry | str]:
    """Every entry after the header; at the end one sentence, if the end is torn or damaged."""
    unpack, at_ns = zlib.decompressobj(), head.mono_ns
    decoder = msgspec.msgpack.Decoder()
    while True:
        body, torn = _body(source)
        if torn:
            yield torn
        if not body:
            return
        try:
            raw = unpack.decompress(body, MAX_UNPACKED)
            if unpack.unconsumed_tail:
                raise ValueError("a frame is too large")
            records = decoder.decode(raw)
            if not isinstance(records, list):
                raise ValueError("a frame holds no records")
            for one in records:
                entry = record.thaw(one, at_ns)
                at_ns = entry.at_ns
                yield entry
        except (zlib.error, msgspec.DecodeError, ValueError, RecursionError) as error:
            yield f"damaged: {error}"
            return


def _frame(body: bytes) -> bytes:
    return FRAME.pack(len(body), zlib.crc32(body)) + body


def _body(source: Source) -> tuple[bytes, str]:
    """The next body (empty at the end), and what is wrong with the end, if anything."""
    head = source.read(FRAME.size)
    if not head:
        return b"", ""
    if len(head) < FRAME.size:
        return b"", "the last record is torn: the device lost power, or the log is still being written"
    size, check = FRAME.unpack(head)
    if size > MAX_FRAME:
        return b"", "damaged: a frame is too long"
    body = source.read(size)
    if len(body) < size:
        return b"", "the last record is torn: the device lost power, or the log is still being written"
    if zlib.crc32(body) != check:
        return b"", "damaged: a checksum is wrong"
    return body, ""
