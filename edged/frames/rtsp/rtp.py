"""RTP and RTCP (RFC 3550): packets, what is missing between them, the camera's clock, our receiver reports. Pure."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from edged.clock import NS_PER_S

_NTP_TO_UNIX_S: Final = 2_208_988_800
_SENDER_REPORT, _RECEIVER_REPORT, _BYE = 200, 201, 203
_HEADER: Final = struct.Struct("!BBHII")
_HELD_PACKETS: Final = 64
_HELD_NS: Final = 60 * 1_000_000  # longer than Wi-Fi reorders, shorter than a picture at most rates
_MISORDERED: Final = 100  # packets: what is further behind is no late packet (RFC 3550, A.1)


class RtpPacket(NamedTuple):
    """`arrival_ns` is monotonic; `fresh`: the reader waited for it, so that nothing had queued before it."""

    marker: bool
    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    arrival_ns: int
    fresh: bool


class SenderReport(NamedTuple):
    """The camera's clock: `timestamp` of RTP was `unix_ns`. `ntp_middle`: for our receiver reports."""

    ssrc: int
    unix_ns: int
    timestamp: int
    ntp_middle: int


def parse_rtp(data: bytes, arrival_ns: int, fresh: bool) -> RtpPacket | None:
    """None for what is no RTP packet."""
    if len(data) < 12 or data[0] >> 6 != 2:
        return None
    first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(data)
    start, end = 12, len(data)
    if first != 0x80:  # nothing but the header, as nearly all cameras send it
        start += 4 * (first & 15)
        if first & 0x10:
            if end < start + 4:
                return None
            start += 4 + 4 * int(struct.unpack_from("!H", data, start + 2)[0])
        if first & 0x20:
            end -= data[-1]
    if end <= start:
        return None
    payload = data[start:end]
    return RtpPacket(bool(second & 0x80), second & 0x7F, sequence, timestamp, ssrc, payload, arrival_ns, fresh)


def parse_rtcp(data: bytes) -> tuple[SenderReport | None, bool]:
    """(the sender report in a compound packet, whether the camera says goodbye)."""
    report, bye, at = None, False, 0
    while at + 8 <= len(data):
        kind = data[at + 1]
        if kind == _SENDER_REPORT and at + 20 <= len(data):
            ssrc, seconds, fraction, timestamp = struct.unpack_from("!IIII", data, at + 4)
            unix_ns = (seconds - _NTP_TO_UNIX_S) * NS_PER_S + (fraction * NS_PER_S >> 32)
            if 0 < unix_ns < 1 << 62:
                report = SenderReport(ssrc, unix_ns, timestamp, (seconds & 0xFFFF) << 16 | fraction >> 16)
        bye = bye or kind == _BYE
        at += 4 + 4 * int(struct.unpack_from("!H", data, at + 2)[0])
    return report, bye


class SequenceTracker:
    """Puts packets in order and counts those that are missing; `lost` is of all time.

    Over TCP they come in order (`reorders` False): a gap is a loss at once. Over UDP a gap is a loss when a later
    packet has waited for 60 ms, or 64 of them have. A camera that numbers anew from elsewhere is followed: over UDP
    from the second such packet on, since one alone may be a stray.
    """

    def __init__(self, reorders: bool) -> None:
        self._reorders = reorders
        self._next: int | None = None
        self._held: dict[int, RtpPacket] = {}
        self._after_stray: int | None = None
        self.lost = 0
        self.highest = 0
        self.ssrc: int | None = None

    def push(self, packet: RtpPacket) -> list[tuple[RtpPacket, bool]]:
        """The packets that are next, each with whether some are missing before it. A late or doubled one is dropped."""
        if packet.ssrc != self.ssrc or self._next is None:
            renewed = self.ssrc is not None
            self.ssrc = packet.ssrc
            return self._begin(packet, renewed)
        ahead = packet.sequence - self._next & 0xFFFF
        if ahead >= 0x8000:
            return self._begin(packet, True) if self._renumbered(packet.sequence) else []
        step = packet.sequence - self.highest & 0xFFFF
        self.highest += step if step < 0x8000 else 0  # else it fills a gap below
        if ahead == 0 and not self._held:
            self._next = packet.sequence + 1 & 0xFFFF
            return [(packet, False)]
        self._held[packet.sequence] = packet
        return self._ready(packet.arrival_ns)

    def _begin(self, packet: RtpPacket, gap: bool) -> list[tuple[RtpPacket, bool]]:
        self._held, self._after_stray = {}, None
        self._next = packet.sequence + 1 & 0xFFFF
        self.highest = packet.sequence
        return [(packet, gap)]

    def _renumbered(self, sequence: int) -> bool:
        """Of a packet that is behind: whether the camera has begun to number anew."""
        assert self._next is not None
        behind = self._next - sequence & 0xFFFF
        if not self._reorders:
            return behind > 1  # else it is the one before again
        expected, self._after_stray = self._after_stray, sequence + 1 & 0xFFFF
        return behind > _MISORDERED and sequence == expected

    def _ready(self, now_ns: int) -> list[tuple[RtpPacket, bool]]:
        found: list[tuple[RtpPacket, bool]] = []
        assert self._next is not None
        gap = False
        while self._held:
            packet = self._held.pop(self._next, None)
            if packet is not None:
                found.append((packet, gap))
                gap, self._next = False, self._next + 1 & 0xFFFF
                continue
            oldest_ns = min(held.arrival_ns for held in self._held.values())
            if self._reorders and len(self._held) < _HELD_PACKETS and now_ns - oldest_ns < _HELD_NS:
                break
            following = self._next
            closest = min(self._held, key=lambda sequence: sequence - following & 0xFFFF)
            self.lost += closest - self._next & 0xFFFF
            self._next, gap = closest, True
        return found


def receiver_report(tracker: SequenceTracker, last: SenderReport | None, since_last_ns: int) -> bytes:
    """A receiver report with a name (SDES); some cameras end a session that sends none."""
    delay = min(since_last_ns * 65_536 // NS_PER_S, 0xFFFFFFFF) if last else 0
    source = tracker.ssrc or 0
    body = struct.pack(
        "!BBHIIIIIII",
        0x81,
        _RECEIVER_REPORT,
        7,
        source + 1 & 0xFFFFFFFF,
        source,
        min(tracker.lost, 0x7FFFFF),
        tracker.highest & 0xFFFFFFFF,
        0,
        last.ntp_middle if last else 0,
        delay,
    )
    return body + struct.pack("!BBHIBB", 0x81, 202, 3, source + 1 & 0xFFFFFFFF, 1, 2) + b"ed\0\0\0\0"
