"""Cameras as `edged check` tries them: what they give, what their stream costs, and why one gives nothing."""

from __future__ import annotations

import cv2

from edged.checks.cameras import try_cameras
from edged.config import CameraConfig
from tests.support.clips import coded, numbered
from tests.support.http_camera import HttpCamera, parts
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


def test_why_a_camera_that_answers_gives_nothing_and_a_rate_that_is_too_slow_to_measure() -> None:
    image = bytes(cv2.imencode(".jpg", numbered(1)[0])[1].tobytes())
    with HttpCamera(parts([image[: len(image) // 2]], 10)) as cut, HttpCamera(parts([image], 0.1)) as slow:
        broken, seldom = try_cameras(
            [
                CameraConfig(name="broken", source=cut.url),
                CameraConfig(name="seldom", source=slow.url, fps=0.1),
            ]
        )
    assert broken.problem is not None and broken.problem.endswith(
        "no frame within 12 s: connected, pictures come, and none can be decoded"
    )
    assert seldom.problem is None and seldom.fps is None and "fps" not in seldom.text
