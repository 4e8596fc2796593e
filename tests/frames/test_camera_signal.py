"""A real camera over a socket that loses packets, sends noise, changes its resolution or has the wrong time."""

from __future__ import annotations

import time

import pytest

from edged import clock
from edged.config import CameraConfig
from tests.support.clips import AccessUnits, access_units
from tests.support.engine_loop import EngineLoop
from tests.support.mjpeg import MjpegCamera
from tests.support.rtsp import RtspCamera


@pytest.fixture(scope="module")
def clip() -> AccessUnits:
    return access_units()


def cam(url: str) -> CameraConfig:
    return CameraConfig(name="cam", source=url)


def test_lost_packets_and_garbage_cost_frames_and_nothing_else(clip: AccessUnits) -> None:
    with RtspCamera(clip) as camera, EngineLoop(cam(camera.url)) as loop:
        loop.until_frames(5)
        camera.faults.loss = 0.05
        loop.run(1)
        camera.faults.loss = 0.0
        loop.until_frames(10)
        camera.faults.garbage = 0.5
        loop.run(1.5)
        camera.faults.garbage = 0.0
        loop.until_state("live", 15)
        loop.until_frames(10)
        ids = [frame.frame for frame in loop.frames]
        assert ids == sorted(set(ids))


def test_a_camera_that_sends_only_noise_gives_no_frames_and_a_reason(clip: AccessUnits) -> None:
    with RtspCamera(clip) as camera:
        camera.faults.garbage = 1.0
        with EngineLoop(cam(camera.url)) as loop:
            loop.run(2)
            assert loop.frames == []
            assert loop.status().state in ("opening", "backoff")
            camera.faults.garbage = 0.0
            loop.until_state("live", 15)


def test_a_frozen_picture_is_stalled_until_it_moves_again(clip: AccessUnits) -> None:
    with RtspCamera(clip) as camera, EngineLoop(cam(camera.url)) as loop:
        loop.until_frames(10)
        camera.play(access_units(frozen=True))
        loop.until_state("stalled", 4)
        assert loop.status().reason == "frozen picture"
        count = len(loop.frames)
        loop.run(0.2)
        assert len(loop.frames) == count
        camera.play(clip)
        loop.until_state("live", 3)
        assert loop.status().reconnects == 0


def test_a_change_of_resolution_is_followed(clip: AccessUnits) -> None:
    larger = access_units(640, 360)
    with RtspCamera(clip) as camera, EngineLoop(cam(camera.url)) as loop:
        loop.until_frames(10)
        first = loop.cameras.ring_name("cam")
        camera.play(larger)
        loop.until(lambda: loop.frames[-1].width == 640, 8)
        frame = loop.frames[-1]
        assert (frame.width, frame.height) == (640, 360)
        assert loop.cameras.pixels(frame).shape == (540, 640)
        assert loop.cameras.ring_name("cam") != first
        assert (loop.status().width, loop.status().height) == (640, 360)
        camera.play(clip)
        loop.until(lambda: loop.frames[-1].width == 320, 8)


def test_the_time_of_capture_is_that_of_the_cameras_own_clock_and_says_so(clip: AccessUnits) -> None:
    with RtspCamera(clip) as camera:
        camera.faults.skew_s = -3600.0
        with EngineLoop(cam(camera.url)) as loop:
            loop.until(lambda: bool(loop.frames) and loop.frames[-1].clock == "camera", 5)
            loop.until_frames(5)
            frame = loop.frames[-1]
            assert abs((frame.t_capture_ns - clock.wall_ns()) / 1e9 + 3600) < 60
            assert 0 <= (clock.mono_ns() - frame.mono_capture_ns) / 1e9 < 60  # ages do not come from that clock
            assert loop.status().clock == "camera"


def test_a_silent_mjpeg_camera_is_noticed_within_three_seconds() -> None:
    with MjpegCamera() as camera, EngineLoop(cam(camera.url)) as loop:
        loop.until_frames(10)
        camera.stalled.set()
        assert loop.until_state("stalled", 3) < 3
        camera.stalled.clear()
        loop.until_state("live", 8)


def test_the_first_frame_comes_within_a_second(clip: AccessUnits) -> None:
    with RtspCamera(clip) as camera, EngineLoop(cam(camera.url)) as loop:
        loop.until_frames(1)
        took_s = []
        for _ in range(3):
            loop.configure()
            begin = time.monotonic()
            loop.configure(cam(camera.url))
            loop.until_frames(1)
            took_s.append(time.monotonic() - begin)
        assert min(took_s) < 1
