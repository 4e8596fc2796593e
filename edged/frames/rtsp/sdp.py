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
_MEDIA: Final = re.compile(r"^m=", re.MULTILINE)
_ENCODING: Final = re.compile(r"([\w.-]+)/(\d{1,9})")
_RATE: Final = re.compile(r"\d+(\.\d+)?")


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
    session, *media = _MEDIA.split(text[:_MAX_BYTES])
    for section in media:
        words = section.split("\n", 1)[0].split()
        if len(words) >= 4 and words[0] == "video" and words[3].isdecimal():
            return _track(section, int(words[3]), _attribute(session, "control") or "*")
    return None


def _track(section: str, payload_type: int, session_control: str) -> VideoTrack:
    named = _ENCODING.match(_of_payload(section, "rtpmap", payload_type))
    codec, clock_hz = (named.group(1).upper(), int(named.group(2))) if named else ("", 0)
    if named is None and payload_type == 26:
        codec = "JPEG"  # a static type of RFC 3551
    rate = _RATE.match(_attribute(section, "framerate"))
    fps = float(rate.group()) if rate else 0.0
    return VideoTrack(
        codec,
        payload_type,
        clock_hz or 90_000,
        _attribute(section, "control") or "*",
        session_control,
        _parameter_sets(_of_payload(section, "fmtp", payload_type)),
        fps if 0 < fps <= 1000 else None,
    )


def _attributes(section: str, name: str) -> list[str]:
    prefix = f"a={name}:"
    return [line[len(prefix) :].strip() for line in section.split("\n") if line.startswith(prefix)]


def _attribute(section: str, name: str) -> str:
    """The value of the first of that name; "" if there is none."""
    return next(iter(_attributes(section, name)), "")


def _of_payload(section: str, name: str, payload_type: int) -> str:
    """What the first attribute of that name says of a payload type; "" if there is none."""
    for value in _attributes(section, name):
        words = value.split(None, 1)
        if len(words) == 2 and words[0] == str(payload_type):
            return words[1]
    return ""


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
    if control.lower().startswith(("rtsp://", "rtsps://")):
        return control
    if control in ("", "*"):
        return base
    return base + ("" if base.endswith("/") or control.startswith("/") else "/") + control
