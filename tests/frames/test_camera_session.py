"""One camera of the daemon: what becomes of a child that dies, hangs, freezes, waits or leaves garbage."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from edged import clock
from edged.config import CameraConfig
from edged.frames import ring as rings
from tests.support.clips import write_clip
from tests.support.engine_loop import EngineLoop, child_pid, ring_files

SMALL = "test://3?width=320&height=180&fps=50"


def cam(source: str) -> CameraConfig:
    return CameraConfig(name="cam", source=source)


def test_a_killed_child_is_noticed_at_once_and_the_scene_goes_on_where_it_was() -> None:
    with EngineLoop(cam(SMALL)) as loop:
        took_s = []
        for n in range(1, 4):
            loop.until_frames(10)
            begin = time.monotonic()
            os.kill(child_pid(), signal.SIGKILL)
            loop.until_state("backoff", 1)
            took_s.append(time.monotonic() - begin)
            assert loop.status().reason == "the capture process died"
            loop.until_state("live", 5)
            assert loop.status().reconnects == n
        assert min(took_s) < 0.2
        loop.until_frames(10)
        ids = [frame.frame for frame in loop.frames]
        assert ids == sorted(set(ids))
        # an id that is missing is a frame that was counted as dropped, or died half drawn with its child
        status = loop.status()
        assert status.captured - 3 <= ids[-1] + 1 <= status.captured + 3
        assert ring_files(loop) == [loop.cameras.ring_name("cam")]


def test_a_stopped_child_is_noticed_within_three_seconds_and_replaced() -> None:
    with EngineLoop(cam(SMALL)) as loop:
        loop.until_frames(10)
        pid = child_pid()
        os.kill(pid, signal.SIGSTOP)
        assert loop.until_state("stalled", 3) < 3
        assert "no frame for 2.0 s" in loop.status().reason
        loop.until_state("live", 5)
        assert child_pid() != pid


def test_a_frozen_picture_is_stalled_and_not_given_again(tmp_path: Path) -> None:
    still = write_clip(tmp_path / "still.mkv", codec="ffv1", count=30, still=True)
    with EngineLoop(cam(str(still))) as loop:
        loop.until_state("live", 5)
        took = loop.until_state("stalled", 5)
        assert 1.8 < took < 3
        assert loop.status().reason == "frozen picture"
        loop.run(0.3)
        assert len(loop.frames) == 1
        assert loop.status().drops["frozen"] > 50


def test_an_unpaced_file_that_nobody_takes_is_no_stall(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", count=10)
    with EngineLoop(cam(f"file://{clip}?pace=0")) as loop:
        loop.until_frames(1)
        cameras = loop.cameras
        end = time.monotonic() + 3
        while time.monotonic() < end:  # a slow engine: it looks, and takes nothing
            cameras.tick(clock.mono_ns())
            time.sleep(0.02)
        assert cameras.status("cam", clock.mono_ns()).state == "live"


@pytest.mark.parametrize("word", [8, 9])
def test_a_child_that_leaves_garbage_in_its_ring_is_replaced(word: int) -> None:
    with EngineLoop(cam(SMALL)) as loop:
        loop.until_frames(3)
        os.kill(child_pid(), signal.SIGSTOP)  # or it would write the word again with its next frame
        with open(rings.SHM / loop.cameras.ring_name("cam"), "r+b") as file:
            file.seek(word * 8)
            file.write(b"\xff" * 8)
        loop.until_state("backoff", 3)
        assert "garbage" in loop.status().reason
        loop.until_state("live", 5)
        loop.until_frames(3)
