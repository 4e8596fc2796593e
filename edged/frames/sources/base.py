"""What every kind of source gives: frames one by one, drawn into memory of the caller, and what it knows of itself.

Pure types; a Source runs in the camera's child process (and in `edged check`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edged.frames.frame import CaptureClock, PixelFormat

Report = Callable[[str], None]
"""Called with a sentence while an open source has no frame yet: what it waits for."""


@dataclass(frozen=True)
class SourceInfo:
    """What an open source gives. `fps` None: it does not say. `paced` False: as fast as the reader takes frames.

    As the source signals them: `pixel_aspect` is a pixel's width by its height, `turn` the degrees clockwise (0, 90,
    180, 270) that show the picture upright, after mirroring it left to right where `mirrored` is set.
    """

    width: int
    height: int
    format: PixelFormat
    fps: float | None
    codec: str
    paced: bool = True
    pixel_aspect: float = 1.0
    turn: int = 0
    mirrored: bool = False


@dataclass(frozen=True)
class Grabbed:
    """One frame that has come, not yet drawn.

    `mono_ns` is when it left the camera as nearly as can be known, or when it is due (which may lie ahead) for a source
    that has no arrival. `wall_ns` is the capture time by the camera's own clock, where it sends one. `corrupt` frames
    are not to be drawn.
    """

    mono_ns: int
    wall_ns: int | None = None
    corrupt: bool = False

    @property
    def clock(self) -> CaptureClock:
        return "arrival" if self.wall_ns is None else "camera"


@dataclass
class StreamCost:
    """What a stream has cost since it was opened; the capture process turns it into figures once a second."""

    pictures: int = 0
    decode_ns: int = 0
    bytes: int = 0
    lost_packets: int = 0
    keyframe_interval_ns: int = 0
    """between the last two keyframes; 0 while fewer have come"""


class Source(Protocol):
    """An open source. `info` may change with a `grab`: then the frame just grabbed has the new size."""

    @property
    def info(self) -> SourceInfo: ...

    @property
    def cost(self) -> StreamCost | None:
        """None: the source has no stream to count."""
        ...

    def grab(self) -> Grabbed | None:
        """Wait for the next frame; None at the end of a source that ends. Raises EdgedError when the source fails."""
        ...

    def retrieve(self, into: NDArray[np.uint8]) -> None:
        """Draw the frame grabbed last into an array of the shape that info's size and format have."""
        ...

    def close(self) -> None: ...
