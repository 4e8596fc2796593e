"""What the NAL units of real streams tell: keyframes, refresh cycles, parameter sets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.frames.video.access_unit import Codec, starts_picture, unit_facts
from tests.support.clips import coded, numbered

CODECS: tuple[Codec, ...] = ("h264", "hevc")


@pytest.mark.parametrize("codec", CODECS)
def test_keyframes_of_a_real_stream(codec: Codec) -> None:
    facts = [unit_facts(unit, codec) for unit in coded(numbered(12), 10, 5, codec)]
    assert [f.keyframe for f in facts] == [n % 5 == 0 for n in range(12)]
    assert [f.parameter_sets for f in facts] == [n % 5 == 0 for n in range(12)]
    assert all(f.picture and f.whole_start and not f.leading and f.recovery is None for f in facts)


@pytest.mark.parametrize("codec", CODECS)
def test_refresh_cycles(codec: Codec) -> None:
    units = coded(numbered(25), 10, 10, codec, "intra-refresh=1", sei=True)
    facts = [unit_facts(unit, codec) for unit in units]
    assert [n for n, f in enumerate(facts) if f.keyframe] == [0]
    assert [n for n, f in enumerate(facts) if f.parameter_sets] == [0, 10, 20]
    recoveries = {n: f.recovery for n, f in enumerate(facts) if f.recovery is not None and n}
    assert recoveries.keys() == ({10, 20} if codec == "h264" else set()), "x265 writes none"
    assert all(0 < count <= 10 for count in recoveries.values())


def test_a_recovery_point_of_h265() -> None:
    sei = bytes([39 << 1, 1, 6, 1, 0b0001_0001, 0x80])  # recovery_poc_cnt: se(v) of 0001000 is 4
    assert unit_facts([sei, b"\x02\x01\x80"], "hevc").recovery == 4


def test_an_intra_picture_that_is_no_idr_is_a_keyframe_too() -> None:
    units = coded(numbered(12), 10, 5, "h264", "open-gop=1:bframes=1:b-adapt=0", sei=True)
    facts = [unit_facts(unit, "h264") for unit in units]
    assert sum(f.keyframe for f in facts) >= 2


def test_a_slice_in_the_middle_starts_no_picture() -> None:
    assert starts_picture(b"\x41\x9a", "h264") and not starts_picture(b"\x41\x40", "h264")
    assert starts_picture(b"\x67\x42", "h264") is None and starts_picture(b"", "h264") is None
    assert starts_picture(b"\x26\x01\x80", "hevc") and not starts_picture(b"\x26\x01\x00", "hevc")
    assert starts_picture(b"\x40\x01\x80", "hevc") is None


@given(st.lists(st.binary(max_size=30), max_size=5))
def test_any_bytes_give_facts(nals: list[bytes]) -> None:
    for codec in CODECS:
        unit_facts(nals, codec)
        unit_facts([b"\x06" + nal for nal in nals] + [b"\x4e\x01" + nal for nal in nals], codec)
