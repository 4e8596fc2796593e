"""Packets in order, out of order, lost and doubled; and reports that say so."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.frames.rtsp.rtp import RtpPacket, SequenceTracker, parse_rtcp, parse_rtp, receiver_report

MS = 1_000_000


def packet(sequence: int, at_ms: float = 0.0, ssrc: int = 1) -> RtpPacket:
    return RtpPacket(False, 96, sequence & 0xFFFF, 0, ssrc, b"x", int(at_ms * MS), True)


def numbers(found: list[tuple[RtpPacket, bool]]) -> list[tuple[int, bool]]:
    return [(p.sequence, gap) for p, gap in found]


def test_a_packet_with_csrc_extension_and_padding() -> None:
    head = struct.pack("!BBHII", 0x80 | 0x20 | 0x10 | 1, 0x80 | 96, 7, 1234, 99)
    data = head + b"csrc" + struct.pack("!HH", 1, 1) + b"exte" + b"payload" + b"\0\0\3"
    found = parse_rtp(data, 5, True)
    assert found == RtpPacket(True, 96, 7, 1234, 99, b"payload", 5, True)
    assert parse_rtp(b"\x00" * 20, 0, True) is None
    assert parse_rtp(head + b"c", 0, True) is None


@given(st.binary(max_size=80))
def test_any_bytes_are_a_packet_or_none(data: bytes) -> None:
    parse_rtp(data, 0, False)
    parse_rtp(b"\xb1\x60" + data, 0, False)
    parse_rtcp(data)
    parse_rtcp(b"\x80\xc8" + data)


def test_over_tcp_a_gap_is_a_loss_at_once_also_where_numbers_wrap() -> None:
    tracker = SequenceTracker(reorders=False)
    found = [numbers(tracker.push(packet(n))) for n in (65533, 65534, 65536, 65538)]
    assert found == [[(65533, False)], [(65534, False)], [(0, True)], [(2, True)]]
    assert tracker.lost == 2


def test_over_udp_what_comes_late_is_put_in_order_and_nothing_is_lost() -> None:
    tracker = SequenceTracker(reorders=True)
    found = [numbers(tracker.push(packet(n, at))) for at, n in enumerate((10, 12, 13, 11, 14))]
    assert found == [[(10, False)], [], [], [(11, False), (12, False), (13, False)], [(14, False)]]
    assert tracker.lost == 0
    assert tracker.push(packet(12)) == [] == tracker.push(packet(14))


def test_the_highest_number_counts_wraps_and_no_late_packet() -> None:
    tracker = SequenceTracker(reorders=True)
    for number in (65_533, 65_535, 65_534, 1, 0, 3, 2):
        tracker.push(packet(number))
    assert tracker.highest == 0x1_0003


def test_over_udp_a_gap_is_a_loss_after_60_ms_or_64_packets() -> None:
    tracker = SequenceTracker(reorders=True)
    tracker.push(packet(1))
    assert tracker.push(packet(3, 10)) == []
    assert numbers(tracker.push(packet(4, 71))) == [(3, True), (4, False)]
    assert tracker.lost == 1
    many = SequenceTracker(reorders=True)
    many.push(packet(1))
    found = [numbers(many.push(packet(n))) for n in range(3, 68)]
    assert sum(map(len, found)) == 65 and found[-2][0] == (3, True)
    assert many.lost == 1


@given(st.permutations(range(12)))
def test_any_order_within_the_window_comes_out_right(order: list[int]) -> None:
    tracker = SequenceTracker(reorders=True)
    tracker.push(packet(65530))
    out = list(itertools.chain.from_iterable(numbers(tracker.push(packet(65531 + n))) for n in order))
    assert out == [((65531 + n) & 0xFFFF, False) for n in range(12)]
    assert tracker.lost == 0


def test_another_source_begins_anew_and_is_a_gap() -> None:
    tracker = SequenceTracker(reorders=False)
    tracker.push(packet(5))
    assert numbers(tracker.push(packet(900, ssrc=2))) == [(900, True)]
    assert numbers(tracker.push(packet(901, ssrc=2))) == [(901, False)]
    assert tracker.lost == 0


@pytest.mark.parametrize("reorders", [False, True])
def test_a_camera_that_numbers_anew_is_followed(reorders: bool) -> None:
    tracker = SequenceTracker(reorders)
    tracker.push(packet(30_000))
    found = [item for n in range(4) for item in numbers(tracker.push(packet(10_000 + n)))]
    first = 1 if reorders else 0  # one packet alone may be a stray
    assert found == [(10_000 + n, n == first) for n in range(first, 4)]
    assert tracker.lost == 0


@pytest.mark.parametrize("reorders", [False, True])
def test_a_packet_that_comes_twice_harms_nothing(reorders: bool) -> None:
    tracker = SequenceTracker(reorders)
    found = [item for n in (1, 1, 2, 2, 2, 3) for item in numbers(tracker.push(packet(n)))]
    assert found == [(1, False), (2, False), (3, False)] and tracker.lost == 0


def test_late_and_stray_datagrams_are_no_new_count() -> None:
    tracker = SequenceTracker(reorders=True)
    tracker.push(packet(30_000))
    for stray in (29_950, 29_951, 29_952, 10_000, 20_000):
        assert tracker.push(packet(stray)) == []
    assert numbers(tracker.push(packet(30_001))) == [(30_001, False)]


def test_reports_both_ways() -> None:
    seconds, half = 2_208_988_800 + 1_700_000_000, 1 << 31
    data = struct.pack("!BBHIIIIII", 0x80, 200, 6, 42, seconds, half, 777, 0, 0)
    report, bye = parse_rtcp(data + struct.pack("!BBHI", 0x81, 203, 1, 42))
    assert bye and report is not None
    assert (report.ssrc, report.unix_ns, report.timestamp) == (42, 1_700_000_000_500_000_000, 777)
    tracker = SequenceTracker(reorders=False)
    for n in (65534, 65537):
        tracker.push(packet(n))
    ours = receiver_report(tracker, report, 500 * MS)
    kind, source, lost, highest = ours[1], *struct.unpack_from("!III", ours, 8)
    assert (kind, source, lost, highest) == (201, 1, 2, 65537)
    assert struct.unpack_from("!II", ours, 24) == (report.ntp_middle, 32768)
    assert len(ours) % 4 == 0
