"""Where a JPEG ends (ITU-T T.81, annex B). In: bytes from its first marker on. Out: the length of the picture. Pure."""

from __future__ import annotations

from typing import Final

SOI: Final = b"\xff\xd8"
EOI: Final = b"\xff\xd9"
_ALONE: Final = frozenset([0x01, *range(0xD0, 0xD9)])
_SOS: Final = 0xDA
_EOI_KIND: Final = EOI[1]


def jpeg_length(data: bytes | bytearray, start: int = 0) -> int | None:
    """How many bytes from `start` belong to the picture; None while its end is not among them.

    Segments are passed over by their lengths, since a preview within one has an end of its own.
    """
    at, size = start, len(data)
    while at + 2 <= size:
        if data[at] != 0xFF:
            return None
        kind = data[at + 1]
        if kind == 0xFF:  # fill bytes before a marker
            at += 1
        elif kind == _EOI_KIND:
            return at + 2 - start
        elif kind in _ALONE:
            at += 2
        else:
            if at + 4 > size:
                return None
            at += 2 + (data[at + 2] << 8 | data[at + 3])
            if kind == _SOS:
                at = _after_scan(data, at)
    return None


def _after_scan(data: bytes | bytearray, at: int) -> int:
    """Where the next marker after entropy-coded data lies; the end of the data if none does."""
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= len(data):
            return len(data)
        if data[at + 1] != 0 and not 0xD0 <= data[at + 1] <= 0xD7:
            return at
        at += 2
