"""A real RTSP camera over a socket that stalls, drops, resets and comes back."""

from __future__ import annotations

import pytest

from edged.config import CameraConfig
from tests.support.clips import AccessUnits, access_units
from tests.support.engine_loop import EngineLoop
from tests.support.rtsp import RtspCamera


@pytest.fixture(scope="module")
def clip() -> AccessUnits:
    return access_units()


def cam(url: str) -> CameraConfig:
    return CameraConfig(name="cam", source=url)


def test_a_silent_camera_is_noticed_within_three_seconds_and_comes_back(clip: AccessUnits) -> None:
    with RtspCamera(clip) as camera, EngineLoop(cam(camera.url)) as loop:
        loop.until_frames(10)
        camera.faults.stalled = True
        assert loop.until_state("stalled", 3) < 3
        count = len(loop.frames)
        loop.run(0.3)
        assert len(loop.frames) == count
        camera.faults.stalled = False
        loop.until_state("live", 8)
        loop.until_frames(10)
        assert loop.status().reconnects >= 1


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_dropped_connection_is_noticed_at_once_and_opened_again(clip: AccessUnits, reset: bool) -> None:
    with RtspCamera(clip) as camera, EngineLoop(cam(camera.url)) as loop:
        loop.until_frames(10)
        camera.drop_clients(reset=reset)
        assert loop.until_state("backoff", 3) < 1
        loop.until_state("live", 5)
        loop.until_frames(10)
        assert (camera.connections, loop.status().reconnects) == (2, 1)


def test_a_camera_that_is_switched_off_and_on_again(clip: AccessUnits) -> None:
    with RtspCamera(clip) as camera, EngineLoop(cam(camera.url)) as loop:
        loop.until_frames(10)
        camera.stop()
        loop.until_state("backoff", 2)
        loop.until(lambda: loop.status().reason == "Connection refused", 5)
        camera.start()
        loop.until_state("live", 10)
        ids = [frame.frame for frame in loop.frames]
        assert ids == sorted(set(ids))
        assert loop.status().captured == ids[-1] + 1
