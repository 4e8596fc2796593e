"""What to do about a camera's fault, by the reason that its `status` gives: see docs/cameras.md. Pure, any thread."""

from __future__ import annotations

from typing import Final

from edged.bus.schema import CameraState, Status

BY_REASON: Final = (
    ("no keyframe", "wait up to a minute; set the camera's keyframe interval (GOP) to 1 or 2 s"),
    ("packets are lost", 'check the network; use transport = "tcp"; lower the bit rate'),
    ("set its fps", "set fps to the camera's rate"),
    ("by UDP", 'open the firewall for UDP, or use transport = "tcp"'),
    ("with 404", "the path in the URL is wrong: look it up in the camera's manual"),
    ("the user or the password", "sudo edged credential set camera.NAME, then systemctl restart edged"),
    ("web page", "use the URL of the stream, not that of the camera's page"),
    ("gives a single", "set poll_s, or use the URL of the stream"),
    ("frozen picture", "the camera sends the same picture again and again: restart it if that goes on"),
    ("onnection refused", "nothing answers at that address and port: check both, and that the camera's stream is on"),
    ("no answer", "the camera is off or unreachable: check its power, its cable and its address"),
)
"""A part of the reason, and the remedy."""
BY_STATE: Final[dict[CameraState, str]] = {
    "stalled": "edged opens it again by itself; if that does not help, run edged check",
    "backoff": "edged tries again by itself; edged check tries it now and says what it finds",
    "ended": "the file was played to its end; loop=1 in the source plays it again and again",
    "refused": "fix the camera's source in the configuration, then edged ctl reload",
}


def remedy(status: Status) -> str | None:
    """A sentence; None for a camera without a fault."""
    if status.state not in BY_STATE:
        return None
    for part, words in BY_REASON:
        if part in status.reason:
            return words.replace("NAME", status.camera)
    return BY_STATE[status.state]
