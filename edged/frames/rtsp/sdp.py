"""What a camera says of its video (SDP, RFC 8866; parameters of RFC 6184 and RFC 7798).

In: the body of an answer to DESCRIBE. Out: its first video track. Pure.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final

START_CODE: Final = b"\0\0\0\1"
_SETS: Final = ("sprop-vps", "sprop-sps", "sprop-pps", "sprop-parameter-sets")
_MAX_BYTES: Final = 1 << 16


@dataclass(frozen=True)
class VideoTrack:
    """`codec` is as in rtpmap, in capitals. `parameter_sets`: Annex B, b"" where they only come in the stream."""

    codec: str
    payload_type: int
    clock_hz: int
    control: str
    session_control: str
    parameter_sets: bytes
    fps: float | None


def video_track(text: str) -> VideoTrack | None:
    """The first video track; None if there is none."""
    session, *media = re.split(r"(?m)^m=", text[:_MAX_BYTES])
    for section in media:
        words = section.split("\n", 1)[0].split()
        if len(words) >= 4 and words[0] == "video" and words[3].isdecimal():
            return _track(section, int(words[3]), _attribute(session, "control") or "*")
    return None


def _track(section: str, payload_type: int, session_control: str) -> VideoTrack:
    named = re.search(rf"(?m)^a=rtpmap:{payload_type}\s+([\w.-]+)/(\d{{1,9}})", section)
    codec, clock_hz = (named.group(1).upper(), int(named.group(2))) if named else ("", 0)
    if named is None and payload_type == 26:
        codec = "JPEG"  # a static type of RFC 3551
    form = re.search(rf"(?m)^a=fmtp:{payload_type}\s+(.*)$", section)
    rate = re.match(r"\d+(\.\d+)?", _attribute(section, "framerate") or "")
    fps = float(rate.group()) if rate else 0.0
    return VideoTrack(
        codec,
        payload_type,
        clock_hz or 90_000,
        _attribute(section, "control") or "*",
        session_control,
        _parameter_sets(form.group(1) if form else ""),
        fps if 0 < fps <= 1000 else None,
    )


def _attribute(section: str, name: str) -> str | None:
    found = re.search(rf"(?m)^a={name}:[ \t]*(.*?)\s*$", section)
    return found.group(1) if found else None


def _parameter_sets(form: str) -> bytes:
    pairs = dict(pair.strip().split("=", 1) for pair in form.split(";") if "=" in pair)
    found = b""
    for key in _SETS:
        for text in pairs.get(key, "").split(","):
            try:
                unit = base64.b64decode(text.strip(), validate=True)
            except (binascii.Error, ValueError):
                continue  # a camera that writes nonsense here sends them in its stream
            found += START_CODE + unit if unit else b""
    return found


def resolve(base: str, control: str) -> str:
    """The URL of a control attribute, as cameras mean it: appended to the base, query or not."""
    if re.match(r"(?i)rtsps?://", control):
        return control
    if control in ("", "*"):
        return base
    return base + ("" if base.endswith("/") or control.startswith("/") else "/") + control
