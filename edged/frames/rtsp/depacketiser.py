"""RTP payloads of H.264 (RFC 6184) and H.265 (RFC 7798) into access units, each as soon as its last packet is here.

In: packets in order, and where some are missing. Out: access units. Pure.

The marker bit ends an access unit, so that nothing waits for the next one to begin. Cameras that set it on parameter
sets, or on each slice, are found out: then a new time stamp ends the unit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from edged.frames.rtsp.rtp import RtpPacket
from edged.frames.rtsp.sdp import START_CODE
from edged.frames.video.access_unit import Codec, starts_picture

MAX_UNIT_BYTES: Final = 16 << 20
_MAX_SETS_BYTES: Final = 1 << 16


@dataclass
class AccessUnit:
    """`arrival_ns` of its first packet; `fresh`: nothing had queued before that. `after_gap`: packets before it are
    missing; `whole`: none of its own are."""

    timestamp: int
    arrival_ns: int
    fresh: bool
    after_gap: bool
    nals: list[bytes] = field(default_factory=list)
    size: int = 0
    whole: bool = True
    picture: bool = False

    def annex_b(self) -> bytes:
        return b"".join([part for nal in self.nals for part in (START_CODE, nal)])


class Depacketiser:
    """One stream."""

    def __init__(self, codec: Codec) -> None:
        self._codec: Codec = codec
        self._unit: AccessUnit | None = None
        self._fragments: list[bytes] = []
        self._marker_ends = True
        self._ended_timestamp: int | None = None
        self._before: list[bytes] = []
        """parameter sets that came with a time stamp of their own: they belong to the next picture"""
        self._lost_before = False

    def push(self, packet: RtpPacket, gap: bool) -> list[AccessUnit]:
        """The access units that end with this packet: none, one, or the one before as well."""
        done: list[AccessUnit] = []
        if self._unit is not None and self._unit.timestamp != packet.timestamp:
            self._unit.whole &= not gap and not self._fragments
            done += self._end()
        if self._unit is None:
            gap, self._lost_before = gap or self._lost_before, False
            self._unit = AccessUnit(packet.timestamp, packet.arrival_ns, packet.fresh, gap, self._before)
            self._unit.size, self._before = sum(map(len, self._before)), []
        elif gap:
            self._unit.whole = False
            self._fragments.clear()
        self._take(self._unit, packet.payload)
        if packet.marker and self._marker_ends and self._unit.picture:
            self._unit.whole &= not self._fragments
            self._ended_timestamp = packet.timestamp
            done += self._end()
        return done

    def _end(self) -> list[AccessUnit]:
        unit, self._unit = self._unit, None
        self._fragments.clear()
        if unit is None:
            return []
        if unit.picture or not unit.whole or unit.size > _MAX_SETS_BYTES:
            return [unit]
        self._before, self._lost_before = unit.nals, unit.after_gap
        return []

    def _take(self, unit: AccessUnit, payload: bytes) -> None:
        if self._codec == "h264":
            kind = payload[0] & 31
            if kind == 28 and len(payload) > 2:
                header = bytes([payload[0] & 0xE0 | payload[1] & 31])
                self._fragment(unit, header, payload[1], payload[2:])
            elif kind == 24:
                self._aggregate(unit, payload[1:])
            elif 0 < kind < 24:
                self._add(unit, payload)
            else:
                unit.whole = False  # interleaved modes are for devices that ask for them
            return
        kind = payload[0] >> 1 & 63
        if kind == 49 and len(payload) > 3:
            header = bytes([payload[0] & 0x81 | (payload[2] & 63) << 1, payload[1]])
            self._fragment(unit, header, payload[2], payload[3:])
        elif kind == 48:
            self._aggregate(unit, payload[2:])
        elif kind < 48 and len(payload) > 2:
            self._add(unit, payload)
        else:
            unit.whole = False

    def _fragment(self, unit: AccessUnit, header: bytes, flags: int, data: bytes) -> None:
        if flags & 0x80:
            unit.whole &= not self._fragments
            self._fragments = [header]
        elif not self._fragments:
            unit.whole = False  # its beginning is missing
            return
        self._fragments.append(data)
        if flags & 0x40:
            nal = b"".join(self._fragments)
            self._fragments = []
            self._add(unit, nal)

    def _aggregate(self, unit: AccessUnit, data: bytes) -> None:
        while len(data) > 2:
            size = int.from_bytes(data[:2], "big")
            if not 0 < size <= len(data) - 2:
                unit.whole = False
                return
            self._add(unit, data[2 : 2 + size])
            data = data[2 + size :]

    def _add(self, unit: AccessUnit, nal: bytes) -> None:
        first = starts_picture(nal, self._codec)
        if first is not None and not unit.picture:
            unit.picture = True
            if not first:
                if unit.timestamp == self._ended_timestamp:
                    self._marker_ends = False  # the rest of a picture that a marker bit had ended
                unit.whole = False
        unit.size += len(nal)
        if unit.size > MAX_UNIT_BYTES:
            unit.whole = False
            return
        unit.nals.append(nal)
