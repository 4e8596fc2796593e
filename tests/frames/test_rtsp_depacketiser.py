"""Payloads of RTP into access units: when they end, what is missing, and cameras that set the marker bit wrongly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.frames.rtsp.depacketiser import AccessUnit, Depacketiser
from edged.frames.rtsp.rtp import RtpPacket
from edged.frames.video.access_unit import Codec
from tests.support.rtsp import _fragments

IDR, SLICE = b"\x65\x88" + bytes(3000), b"\x41\x9a" + bytes(900)
SECOND_SLICE = b"\x41\x40" + bytes(900)  # first_mb_in_slice is not 0
SPS, PPS = b"\x67\x42\0\x1f", b"\x68\xce"

Sent = tuple[bytes, int, bool, bool]  # payload, time stamp, marker, whether some are missing before it


def units(sent: list[Sent], codec: Codec = "h264") -> list[AccessUnit]:
    depacketiser, found = Depacketiser(codec), list[AccessUnit]()
    for n, (payload, timestamp, marker, gap) in enumerate(sent):
        found += depacketiser.push(RtpPacket(marker, 96, n, timestamp, 1, payload, n, n == 0), gap)
    return found


def whole(nals: list[bytes], timestamp: int, codec: str = "h264") -> list[Sent]:
    pieces = [piece for nal in nals for piece, _ in _fragments(nal, codec)]
    return [(piece, timestamp, n == len(pieces) - 1, False) for n, piece in enumerate(pieces)]


def test_a_unit_is_there_with_its_last_packet() -> None:
    sent = whole([SPS, PPS, IDR], 100) + whole([SLICE], 200)
    found = [units(sent[:n]) for n in range(1, len(sent) + 1)]
    assert [len(f) for f in found] == [0, 0, 0, 0, 1, 2]
    first, second = found[-1]
    assert first.nals == [SPS, PPS, IDR] and first.whole and not first.after_gap and first.fresh
    assert first.annex_b() == b"\0\0\0\1" + SPS + b"\0\0\0\1" + PPS + b"\0\0\0\1" + IDR
    assert (first.arrival_ns, second.arrival_ns, second.nals) == (0, 5, [SLICE])


def test_h265_fragments_and_aggregates() -> None:
    vps, idr = b"\x40\x01\x0c", b"\x26\x01\xaf" + bytes(4000)
    aggregate = b"\x60\x01" + len(vps).to_bytes(2, "big") + vps + b"\0\3\x42\x01\x01"
    [unit] = units([(aggregate, 1, False, False), *whole([idr], 1, "hevc")], "hevc")
    assert unit.nals == [vps, b"\x42\x01\x01", idr] and unit.whole and unit.picture


def test_h264_aggregates() -> None:
    aggregate = b"\x78" + b"".join(len(n).to_bytes(2, "big") + n for n in (SPS, PPS, SLICE))
    [unit] = units([(aggregate, 1, True, False)])
    assert unit.nals == [SPS, PPS, SLICE] and unit.whole
    [cut] = units([(aggregate[:-5], 1, True, False), (SLICE, 2, True, False)])[:1]
    assert not cut.whole


@pytest.mark.parametrize("lost", range(3))
def test_a_missing_fragment_spoils_its_unit_and_no_other(lost: int) -> None:
    sent = whole([IDR], 100)
    assert len(sent) == 3
    kept = [(p, t, m, n == lost + 1) for n, (p, t, m, _) in enumerate(sent + whole([SLICE], 200)) if n != lost]
    found = units(kept)
    assert [unit.timestamp for unit in found] == [100, 200]
    assert not found[0].whole
    assert found[1].whole and found[1].after_gap == (lost == 2)


def test_a_unit_that_is_missing_altogether_is_a_gap_before_the_next() -> None:
    payload, timestamp, marker, _ = whole([SLICE], 300)[0]
    found = units([*whole([SLICE], 100), (payload, timestamp, marker, True)])
    assert [(unit.whole, unit.after_gap) for unit in found] == [(True, False), (True, True)]


def test_a_marker_on_parameter_sets_ends_nothing() -> None:
    sent = [(SPS, 1, True, False), (PPS, 1, True, False), *whole([IDR], 1)]
    [unit] = units(sent)
    assert unit.nals == [SPS, PPS, IDR] and unit.whole


def test_parameter_sets_with_a_time_stamp_of_their_own_belong_to_the_next_picture() -> None:
    found = units([*whole([SPS, PPS], 1), *whole([IDR], 2), *whole([SLICE], 3)])
    assert [(unit.timestamp, unit.nals, unit.whole, unit.after_gap) for unit in found] == [
        (2, [SPS, PPS, IDR], True, False),
        (3, [SLICE], True, False),
    ]
    [lost] = units([(SPS, 1, False, True), *whole([SLICE], 2)])
    assert lost.after_gap and lost.whole


def test_a_marker_on_each_slice_is_found_out() -> None:
    picture = [SLICE, SECOND_SLICE]
    sent = [(nal, n, True, False) for n in range(4) for nal in picture]
    found = units([*sent, (SLICE, 9, True, False)])
    assert not all(unit.whole for unit in found[:2])
    assert [(unit.nals, unit.whole) for unit in found[2:]] == [(picture, True)] * 3


def test_without_markers_a_new_time_stamp_ends_a_unit() -> None:
    sent = [(p, t, False, g) for n in range(3) for p, t, _, g in whole([SLICE, SECOND_SLICE], n)]
    found = units(sent)
    assert [unit.timestamp for unit in found] == [0, 1] and all(unit.whole for unit in found)


def test_two_fields_of_a_frame_with_one_time_stamp_are_two_units() -> None:
    found = units(whole([SLICE], 5) + whole([SLICE], 5))
    assert [unit.whole for unit in found] == [True, True]


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.integers(0, 3), st.booleans(), st.booleans())))
def test_any_payloads_give_units(sent: list[Sent]) -> None:
    codecs: tuple[Codec, ...] = ("h264", "hevc")
    for codec in codecs:
        for unit in units(sent, codec):
            assert unit.size == sum(map(len, unit.nals))
