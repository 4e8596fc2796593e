"""Cameras as the engine loop uses them: real children, rings and files; reload, deaths, and counts that add up."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from edged import clock
from edged.config import CameraConfig
from edged.errors import EdgedError, UsageError
from edged.frames import ring as rings
from edged.frames.ring import RingReader, RingSpec
from edged.synthetic.scene import Scene
from tests.support.clips import write_clip
from tests.support.engine_loop import EngineLoop, child_pid, ring_files

SMALL = "test://3?width=320&height=180&fps=50"


def cam(source: str, name: str = "cam", **options: float) -> CameraConfig:
    return CameraConfig(name=name, source=source, **options)  # type: ignore[arg-type]


def test_frames_come_with_their_pixels_and_the_children_end_in_time() -> None:
    with EngineLoop(cam(SMALL)) as loop:
        expected = np.empty((180, 320, 3), np.uint8)
        scene = Scene(3, 320, 180, 50)
        checked = 0

        def check(frame: object) -> None:
            nonlocal checked
            pixels = loop.cameras.pixels(frame).copy()  # type: ignore[arg-type]
            assert loop.cameras.intact(frame)  # type: ignore[arg-type]
            scene.render(frame.frame, expected)  # type: ignore[attr-defined]
            assert (pixels == expected).all()
            checked += 1

        loop.on_frame = check
        loop.until_frames(20)
        assert checked >= 20
        status = loop.status()
        assert (status.state, status.width, status.height, status.clock) == ("live", 320, 180, "arrival")
        assert status.last_frame_age_ms is not None and 0 <= status.last_frame_age_ms < 60_000
        assert [state for _, _, state, _ in loop.changes] == ["opening", "live"]
        assert ring_files(loop) == [loop.cameras.ring_name("cam")]
        last = loop.frames[-1]
        mapped = RingReader.open(loop.cameras.ring_name("cam"), "cam").copy(last.slot, last.seq)
        assert mapped is None or mapped.shape == (180, 320, 3)
        pid = child_pid()
        begin = time.monotonic()
    assert time.monotonic() - begin < 10
    assert not Path(f"/proc/{pid}").exists()
    assert ring_files(loop) == []


def test_what_is_not_looked_at_is_superseded_and_counted() -> None:
    with EngineLoop(cam(SMALL)) as loop:
        loop.until_frames(3)
        time.sleep(0.5)
        loop.until_frames(2)
        status = loop.status()
        assert 18 <= status.drops["superseded"] <= 30
        assert status.captured == status.results + status.drops["superseded"]


def test_counts_add_up_with_every_kind_of_drop_across_kills_and_reloads(tmp_path: Path) -> None:
    still = write_clip(tmp_path / "still.mkv", codec="ffv1", count=30, still=True)
    with EngineLoop(cam(SMALL, "a", fps=20), cam(str(still), "b")) as loop:
        loop.until(lambda: loop.status("a").results > 20 and loop.status("b").drops.get("frozen", 0) > 20, 10)
        os.kill(child_pid("a"), signal.SIGKILL)
        loop.until(lambda: loop.status("a").reconnects == 1 and loop.status("a").state == "live", 5)
        loop.configure(cam(SMALL, "a", fps=10), cam(SMALL, "b"))
        loop.until(lambda: loop.status("b").results > 20, 5)
        loop.cameras.count_drop("a", "late", 0)
        for name in ("a", "b"):
            status = loop.status(name)
            assert status.captured == status.results + sum(status.drops.values())
            assert status.captured > 40
        assert loop.status("a").drops["rate"] > 20
        assert loop.status("b").drops["frozen"] > 20


def test_an_unpaced_file_gives_every_frame_once_and_ends(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", count=60)
    with EngineLoop(cam(f"file://{clip}?pace=0&loop=0")) as loop:
        loop.until_state("ended", 10)
        loop.run(0.1)
        assert [frame.frame for frame in loop.frames] == list(range(60))
        assert loop.status().drops == {}
        assert loop.cameras.ring_name("cam") == ""
        assert loop.cameras.pixels(loop.frames[-1]).shape == (360, 320)  # still there for who is at it


def test_reload_adds_removes_and_restarts_only_what_changed() -> None:
    with EngineLoop(cam(SMALL, "a"), cam(SMALL, "b"), cam(SMALL, "c")) as loop:
        loop.until(lambda: all(loop.status(n).results > 2 for n in "abc"), 10)
        pids = {name: child_pid(name) for name in "abc"}
        removed = next(frame for frame in reversed(loop.frames) if frame.camera == "b")
        results = loop.status("c").results
        loop.configure(cam(SMALL, "d"), cam(SMALL, "a", weight=3.0), cam(SMALL, "c", poll_s=9.0))
        assert loop.cameras.names() == ["d", "a", "c"]
        assert not loop.cameras.intact(removed)
        with pytest.raises(EdgedError, match="is gone"):
            loop.cameras.pixels(removed)
        loop.cameras.count_drop("b", "late")
        loop.cameras.count_result("b")
        loop.cameras.taken(removed)
        loop.cameras.readable("b", clock.mono_ns())
        with pytest.raises(KeyError):
            loop.status("b")
        loop.until(lambda: loop.status("d").results > 2 and loop.status("c").results > results + 3, 20)
        assert child_pid("a") == pids["a"]
        assert child_pid("c") != pids["c"]
        with pytest.raises(UsageError):
            loop.configure(cam(SMALL, "a"), cam("ftp://x/y", "e"))
        assert loop.cameras.names() == ["d", "a", "c"]


def test_a_running_camera_takes_another_rate() -> None:
    with EngineLoop(cam(SMALL)) as loop:
        loop.until(lambda: loop.status("cam").results > 2, 20)
        pid = child_pid("cam")
        loop.configure(cam(SMALL, fps=5))
        loop.until(lambda: loop.status("cam").drops.get("rate", 0) > 5, 20)
        loop.configure(cam(SMALL))
        last_drop = (0, 0)  # how many there are then, and the results before it

        def flows() -> bool:
            nonlocal last_drop
            status = loop.status("cam")
            if status.drops["rate"] != last_drop[0]:
                last_drop = status.drops["rate"], status.results
            return status.results > last_drop[1] + 20

        loop.until(flows, 20)
        assert child_pid("cam") == pid and loop.status("cam").reconnects == 0


def test_sources_that_cannot_be_opened() -> None:
    with EngineLoop(cam("/missing.mp4", "a"), cam("csi://0", "b"), cam("rtsp://u:pw@127.0.0.1:1/x", "c")) as loop:
        for name, state in (("a", "backoff"), ("b", "refused"), ("c", "backoff")):
            loop.until_state(state, 5, name)
        assert loop.status("a").reason == "cannot play /missing.mp4: No such file or directory"
        assert "apt-get install python3-gi" in loop.status("b").reason
        assert (loop.status("c").reason, loop.status("c").source) == ("Connection refused", "rtsp://***@127.0.0.1:1/x")
        loop.until(lambda: loop.status("a").reconnects >= 2, 5)
        assert loop.status("b").reconnects == 0


def test_a_full_shm_is_a_reason_and_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(name: str, spec: RingSpec, first: int = 0) -> None:
        raise EdgedError("cannot reserve 5.3 MiB for the frame ring", "use fewer or smaller cameras")

    with monkeypatch.context() as patched, EngineLoop(cam(SMALL)) as loop:
        patched.setattr(rings, "create", full)
        loop.until_state("backoff", 5)
        assert "cannot reserve 5.3 MiB" in loop.status().reason
        patched.undo()
        loop.until_state("live", 5)


def test_a_ring_that_cannot_be_opened_is_a_reason_and_leaves_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def cut_short(name: str, spec: RingSpec, first: int = 0) -> None:
        made.append(rings.SHM / name)
        made[-1].write_bytes(b"x")

    with monkeypatch.context() as patched, EngineLoop(cam(SMALL)) as loop:
        patched.setattr(rings, "create", cut_short)
        loop.until_state("backoff", 5)
        assert "is not a frame ring" in loop.status().reason and not any(path.exists() for path in made)
        patched.undo()
        loop.until_state("live", 5)
