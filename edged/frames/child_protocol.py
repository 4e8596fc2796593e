"""What a camera's child process and the daemon send each other, over a SOCK_SEQPACKET pair: a packet is a message.

Child to daemon: HELLO with the child's pidfd attached, then JSON lines (Line), and a NOTIFY for each frame: the ring
holds something new, a frame or the count of one that was frozen.
Daemon to child: a ring's name (RingLine) after each `opened`, CREDIT bytes for an unpaced source, and what the motion
gate is to do: GATE_ON, GATE_OFF, TRIGGER (open for some seconds); another cap on its rate (`fps_packet`). The child
decodes untrusted video, so the daemon believes nothing that does not fit these types. Pure data.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from edged.config import CameraConfig

HELLO: Final = b"H"
NOTIFY: Final = b"B"
CREDIT: Final = b"C"
GATE_ON: Final = b"G"
GATE_OFF: Final = b"O"
TRIGGER: Final = b"T"
FPS: Final = b"F"
MAX_PACKET: Final = 4096
MAX_REASON: Final = 400

_Side = Annotated[int, Meta(ge=2, le=8192)]


class StartRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What a child gets at its start. `credentials` is the directory of systemd's credentials; `gate`: whether the
    motion gate is on."""

    camera: CameraConfig
    first_frame: int
    credentials: str | None
    gate: bool = False


class OpenedLine(Struct, frozen=True, forbid_unknown_fields=True):
    """The source is open. `format` is a PixelFormat; `paced` False: it waits for a CREDIT before each further frame."""

    width: _Side
    height: _Side
    format: Annotated[int, Meta(ge=1, le=5)]
    fps: Annotated[float, Meta(gt=0, le=1000)] | None
    codec: Annotated[str, Meta(max_length=40)]
    paced: bool


class Line(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Exactly one of them is set. `waiting`: what an open source has no picture for yet. `final`: trying again cannot
    help."""

    opened: OpenedLine | None = None
    waiting: Annotated[str, Meta(max_length=MAX_REASON)] | None = None
    failed: Annotated[str, Meta(max_length=MAX_REASON)] | None = None
    final: bool = False
    ended: bool = False


class RingLine(Struct, frozen=True, forbid_unknown_fields=True):
    """The ring to write to from now on."""

    ring: str


# made once for all children, before they are forked
START_REQUESTS: Final = msgspec.json.Decoder(StartRequest)
RING_LINES: Final = msgspec.json.Decoder(RingLine)


def fps_packet(fps: float | None) -> bytes:
    """At most so many frames a second from now on; None: all."""
    return FPS + (b"" if fps is None else repr(fps).encode())


def fps_of(packet: bytes) -> float | None:
    """What `fps_packet` was given."""
    return float(packet[1:]) if packet != FPS else None
