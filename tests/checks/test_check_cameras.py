"""Cameras as `edged check` tries them: what they give, what their stream costs, and why one gives nothing."""

from __future__ import annotations

from edged.checks.cameras import try_cameras
from edged.config import CameraConfig
from tests.support.clips import coded, numbered
from tests.support.rtsp import RtspCamera


def test_a_camera_with_its_rate_clock_and_cost_beside_one_that_is_not_there() -> None:
    with RtspCamera(coded(numbered(30), 30, 15), fps=30) as camera:
        given, missing = try_cameras(
            [
                CameraConfig(name="gate", source=camera.url, rotate=90),
                CameraConfig(name="yard", source="rtsp://user:secret@127.0.0.1:1/x"),
            ]
        )
    assert given.problem is None
    assert ": 240x320, " in given.text and "capture time by the camera's own clock" in given.text
    for words in ("ms to decode a picture", "Mbit/s", "a keyframe every 0."):
        assert words in given.text
    assert missing.problem == "rtsp://***@127.0.0.1:1/x: Connection refused"
