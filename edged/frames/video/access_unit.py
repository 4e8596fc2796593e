"""Access units of H.264 and H.265: what of the NAL units' headers tells where a decoder may begin.

In: NAL units without start codes. Out: facts. Pure; the few bits that are read are those of ITU-T H.264 and H.265,
section 7.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Codec = Literal["h264", "hevc"]

_RECOVERY_POINT: Final = 6
_EMULATION: Final = b"\0\0\3"


@dataclass(frozen=True)
class UnitFacts:
    """`picture`: it has slices. `whole_start`: the first of them is the picture's first. `keyframe`: decoding may begin
    here. `leading`: a picture that may refer to what was before the keyframe just passed (RASL). `parameter_sets`: it
    brings some. `recovery`: of a recovery point, how many pictures later all is right; None where there is none."""

    picture: bool
    whole_start: bool
    keyframe: bool
    leading: bool
    parameter_sets: bool
    recovery: int | None


def unit_facts(nals: Sequence[bytes], codec: Codec) -> UnitFacts:
    """Facts of one access unit."""
    return _h264(nals) if codec == "h264" else _hevc(nals)


def starts_picture(nal: bytes, codec: Codec) -> bool | None:
    """Whether a slice is its picture's first; None for what is no slice. The first bytes of the NAL unit will do."""
    if codec == "h264":
        return bool(len(nal) > 1 and nal[1] & 0x80) if nal and nal[0] & 31 in (1, 2, 5) else None
    return bool(len(nal) > 2 and nal[2] & 0x80) if nal and nal[0] >> 1 & 63 < 32 else None


def _h264(nals: Sequence[bytes]) -> UnitFacts:
    slices = [nal for nal in nals if nal and nal[0] & 31 in (1, 2, 5)]
    intra = bool(slices) and all(nal[0] & 31 == 5 or _is_intra_slice(nal) for nal in slices)
    return UnitFacts(
        picture=bool(slices),
        whole_start=bool(slices) and bool(starts_picture(slices[0], "h264")),
        keyframe=intra,
        leading=False,
        parameter_sets=any(nal and nal[0] & 31 == 7 for nal in nals),
        recovery=_recovery([nal[1:] for nal in nals if nal and nal[0] & 31 == 6], signed=False),
    )


def _is_intra_slice(nal: bytes) -> bool:
    bits = _Bits(nal[1:16])
    bits.unsigned()  # first_mb_in_slice
    return bits.unsigned() % 5 in (2, 4)  # I or SI


def _hevc(nals: Sequence[bytes]) -> UnitFacts:
    kinds = [nal[0] >> 1 & 63 for nal in nals if nal]
    slices = [nal for nal in nals if nal and nal[0] >> 1 & 63 < 32]
    return UnitFacts(
        picture=bool(slices),
        whole_start=bool(slices) and bool(starts_picture(slices[0], "hevc")),
        keyframe=bool(slices) and all(16 <= nal[0] >> 1 & 63 <= 23 for nal in slices),
        leading=any(kind in (8, 9) for kind in kinds),
        parameter_sets=any(kind == 33 for kind in kinds),
        recovery=_recovery([nal[2:] for nal in nals if nal and nal[0] >> 1 & 63 == 39], signed=True),
    )


def _recovery(messages: Sequence[bytes], signed: bool) -> int | None:
    """The count of a recovery point in the bodies of SEI units."""
    for body in messages:
        data, at = body.replace(_EMULATION, b"\0\0"), 0
        while at + 2 <= len(data) and data[at] != 0x80:
            kind, at = _ff_coded(data, at)
            size, at = _ff_coded(data, at)
            if kind == _RECOVERY_POINT:
                value = _Bits(data[at : at + 8]).unsigned()
                return max(0, (value + 1) // 2 if value % 2 else -(value // 2)) if signed else value
            at += size
    return None


def _ff_coded(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    while at < len(data) and data[at] == 0xFF:
        value, at = value + 255, at + 1
    return (value + data[at], at + 1) if at < len(data) else (value, at)


class _Bits:
    """Exp-Golomb codes of the first bytes of a NAL unit."""

    def __init__(self, data: bytes) -> None:
        clean = data.replace(_EMULATION, b"\0\0")
        self._value, self._left = int.from_bytes(clean, "big"), 8 * len(clean)

    def unsigned(self) -> int:
        """ue(v); 0 at the end of the data."""
        zeros = 0
        while self._left and not self._bit():
            zeros += 1
        value = 1
        for _ in range(min(zeros, self._left)):
            value = value << 1 | self._bit()
        return value - 1

    def _bit(self) -> int:
        self._left -= 1
        return self._value >> self._left & 1
