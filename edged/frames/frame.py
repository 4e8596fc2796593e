"""A frame as it travels: where its pixels lie in the ring and when it was captured. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal


class PixelFormat(IntEnum):
    """How a slot's pixels are laid out, as rows of uint8, and what their numbers mean.

    BGR24: (height, width, 3). The others are NV12, (height * 3 // 2, width): luma rows, then interleaved Cb Cr rows at
    half resolution; width and height are even. Plain NV12 is BT.601 (and what signals nothing); 709: BT.709; FULL:
    luma from 0 to 255, not from 16 to 235.
    """

    BGR24 = 1
    NV12 = 2
    NV12_FULL = 3
    NV12_709 = 4
    NV12_709_FULL = 5

    @property
    def is_nv12(self) -> bool:
        return self is not PixelFormat.BGR24

    @property
    def nv12_kind(self) -> int:
        """0: no NV12; 1 to 4: which of its matrices and ranges, in the order above."""
        return self - PixelFormat.BGR24


DropCause = Literal[
    "superseded", "late", "overload", "budget", "torn", "frozen", "rate", "corrupt", "still", "engine", "shutdown"
]
"""Why a captured frame gave no result.

superseded: a newer frame of the same camera came first.   late: it could no longer meet its deadline.
overload: given up so that heavier or more urgent cameras hold theirs.   budget: skipped by choice, so that power,
energy or heat hold.   torn: overwritten while being read.   frozen: the same picture as before.   rate: above the
camera's configured fps.   corrupt: the decoder flagged it.   still: nothing moved in it, and the motion gate is on.
engine: inference failed.   shutdown: the daemon was stopping.
"""

DROP_CAUSES: tuple[DropCause, ...] = (
    "superseded", "late", "overload", "budget", "torn", "frozen", "rate", "corrupt", "still", "engine", "shutdown",
)  # fmt: skip

CaptureClock = Literal["camera", "arrival"]
"""Whose clock `t_capture` is: the camera's own (RTCP sender reports), or the arrival at this machine."""


@dataclass(frozen=True)
class Frame:
    """One captured frame, by reference.

    `mono_capture_ns` is the arrival on this machine's monotonic clock: ages and deadlines count from it.
    `t_capture_ns` is Unix time by `clock`. `slot` and `seq` find the pixels in the camera's ring.
    `still`: nothing moved in it; the motion gate let it through to see whether that is so.
    """

    camera: str
    frame: int
    slot: int
    seq: int
    width: int
    height: int
    format: PixelFormat
    mono_capture_ns: int
    t_capture_ns: int
    clock: CaptureClock
    still: bool = False
