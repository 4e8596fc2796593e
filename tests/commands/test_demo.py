"""`edged demo`: once whole, with a real daemon; its statistics, its script and its pictures by themselves."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import msgspec
import numpy as np
import pytest
from rich.console import Console

from edged.bus.schema import Alternative, Decision, Detection, Gate, State
from edged.commands.demo import summary
from edged.commands.demo.fixture import CAMERAS, FPS, HEIGHT, VIDEO_SEED, WIDTH, encode_scene
from edged.commands.demo.pictures import Clip, Gallery, Shot, tile
from edged.commands.demo.screen import View, picture_of
from edged.commands.demo.script import Script
from edged.commands.demo.stats import Stats, compare, iou
from edged.errors import EdgedError
from edged.overlays import CLASS_COLOURS
from edged.synthetic.scene import Scene, SceneObject
from tests.support import messages
from tests.support.bus import wait_for
from tests.support.models import center_model, write_bundle

DEMO = (sys.executable, "-m", "edged", "demo")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"), {"fine": center_model(-100.0), "fast": center_model(-90.0)})


# --- the whole ----------------------------------------------------------------------------------------------------


def test_the_demo_adds_up_and_leaves_pictures_and_nothing_else(bundle: Path, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="edged-") as temporary:  # the paths of sockets must be short
        done = subprocess.run(
            [*DEMO, "--seconds", "6", "--cameras", "2", "--bundle", str(bundle), "--out", str(tmp_path), "--json"],
            env={**os.environ, "TMPDIR": temporary},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert not list(Path(temporary).glob("edged-demo-*")), "its private directory is gone"
    assert done.returncode == 0, done.stderr
    reported: dict[str, Any] = json.loads(done.stdout)
    assert [camera["camera"] for camera in reported["cameras"]] == ["belt-1", "video"]
    for camera in reported["cameras"]:
        assert camera["captured"] == camera["results"] + sum(camera["drops"].values()) + camera["on_its_way"]
        assert camera["on_its_way"] in (0, 1)
        assert camera["results"] > 3 * FPS
    frames = sum(variant["frames"] for variant in reported["variants"])
    assert 0 < frames <= sum(camera["results"] for camera in reported["cameras"])
    assert all(variant["age_p50_ms"] <= variant["age_p99_ms"] for variant in reported["variants"])
    for act in ("act 1 of 3, normal", "act 2 of 3, pressure", "act 3 of 3, relief"):
        assert act in done.stderr

    picture = cv2.imread(str(tmp_path / "edged-demo.png"))
    assert picture is not None and picture.shape[1] == 1920 and picture.shape[0] > 540
    drawn = (picture[..., None, :] == np.array(CLASS_COLOURS[:3], np.uint8)).all(axis=-1).any(axis=-1)
    assert drawn.sum() > 1000, "boxes and labels in the colours of the classes"
    with av.open(str(tmp_path / "edged-demo.mp4")) as clip:
        assert sum(1 for _ in clip.decode(video=0)) > 10


@contextlib.contextmanager
def long_demo(bundle: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A demo whose daemon is ready, and the daemon's pid."""
    with subprocess.Popen(
        [*DEMO, "--seconds", "60", "--cameras", "1", "--bundle", str(bundle), "--out", str(tmp_path), "--plain"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for(lambda: any("ready:" in log.read_text() for log in tmp_path.glob("edged-demo-*/daemon.log")), 30.0)
        yield process, int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])


def test_a_daemon_that_dies_is_exit_1_with_its_last_words(bundle: Path, tmp_path: Path) -> None:
    with long_demo(bundle, tmp_path) as (process, daemon):
        os.kill(daemon, signal.SIGKILL)
        _, err = process.communicate(timeout=100)
    assert process.returncode == 1
    page, _, err = err.partition("\n")
    assert "http://127.0.0.1:" in page
    assert err.startswith("edged: the daemon ended with code -9\n  hint: the end of its log:\n")
    assert "ready: 1 cameras" in err


def test_terminated_it_takes_its_daemon_with_it(bundle: Path, tmp_path: Path) -> None:
    with long_demo(bundle, tmp_path) as (process, daemon):
        process.terminate()
        _, err = process.communicate(timeout=100)
    assert process.returncode == 130 and err.count("\n") == 1 and "http://127.0.0.1:" in err
    wait_for(lambda: not Path(f"/proc/{daemon}").exists())
    assert not list(tmp_path.glob("edged-demo-*"))


def test_killed_it_takes_its_daemon_with_it(bundle: Path, tmp_path: Path) -> None:
    with long_demo(bundle, tmp_path) as (process, daemon):
        process.kill()
        process.communicate(timeout=100)
        wait_for(lambda: not Path(f"/proc/{daemon}").exists(), 10.0)


# --- what it counts -----------------------------------------------------------------------------------------------


def seen(label: str, score: float, *box: float) -> Detection:
    return Detection(label, 0, score, (box[0], box[1], box[2], box[3]))


def there(label: str, *box: float) -> SceneObject:
    return SceneObject(0, label, (box[0], box[1], box[2], box[3]), 0)


def test_iou() -> None:
    assert iou((0, 0, 10, 10), (0, 0, 10, 10)) == 1.0
    assert iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert iou((0, 0, 10, 10), (10, 0, 20, 10)) == 0.0


def test_each_object_is_found_once_with_its_own_label() -> None:
    truth = [there("gear", 100, 100, 200, 200), there("nut", 300, 100, 400, 200), there("bolt", 500, 100, 600, 200)]
    found = [
        seen("gear", 0.9, 102, 100, 202, 200),
        seen("gear", 0.8, 100, 100, 200, 200),  # again
        seen("gear", 0.7, 300, 100, 400, 200),  # it is a nut
        seen("bolt", 0.6, 560, 100, 660, 200),  # too far off
    ]
    assert compare(found, truth, 1280) == (1, 3, 2)
    assert compare([], truth, 1280) == (0, 0, 3)
    assert compare(found[:1], truth[:1], 1280) == (1, 0, 0)


def test_what_the_edge_cuts_off_counts_neither_way() -> None:
    truth = [there("gear", 0, 100, 40, 200), there("nut", 1250, 100, 1280, 200)]
    assert compare([], truth, 1280) == (0, 0, 0)
    assert compare([seen("gear", 0.9, 0, 100, 40, 200), seen("bolt", 0.5, 1270, 0, 1280, 20)], truth, 1280) == (0, 0, 0)


def test_a_perfect_detector_has_precision_and_recall_1() -> None:
    stats = Stats(CAMERAS[:1], measured=True)
    scene = Scene(CAMERAS[0].seed, WIDTH, HEIGHT, FPS)
    for frame in range(0, 100, 10):
        detections = [Detection(o.label, o.class_id, 0.9, o.box) for o in scene.truth(frame)]
        result = messages.result(CAMERAS[0].name, frame)
        stats.add(msgspec.structs.replace(result, detections=detections, age_ms=12.0, deadline_met=True), frame / FPS)
    (variant,) = stats.variants.values()
    assert (variant.frames, variant.late, variant.precision, variant.recall) == (10, 0, 1.0, 1.0)
    assert variant.age_ms(0.5) == 12.0


def test_a_change_of_variant_begins_a_new_run() -> None:
    stats = Stats(CAMERAS[:1], measured=False)
    for at_s, variant in ((0.0, "a"), (1.0, "a"), (2.0, "b"), (3.0, "a")):
        stats.add(msgspec.structs.replace(messages.result(CAMERAS[0].name), variant=variant), at_s)
    assert stats.runs == [(0.0, "a"), (2.0, "b"), (3.0, "a")]
    assert stats.cameras["belt-1"].fps(3.5) == pytest.approx(1.0)
    assert [v.precision for v in stats.variants.values()] == [None, None]


@pytest.mark.parametrize("saved_w, text", [(1.234, "about 1.2 W saved"), (None, "watts unknown here")])
def test_the_summary_tells_what_the_motion_gate_spared(saved_w: float | None, text: str) -> None:
    gate = Gate(False, 0.4, saved_w, 9, 0, 0.0, 0.3)
    camera = msgspec.structs.replace(messages.status("belt-2"), gate=gate, captured=250, drops={"still": 110})
    out = Console(width=120, record=True, file=io.StringIO())
    summary.show(out, Stats(CAMERAS, measured=False), msgspec.structs.replace(messages.state(), cameras=[camera]), 9, 0)
    spared = f"the motion gate spared it 110 inferences in 250 frames, {text}."
    assert f"belt-2 stands still now and then: {spared}" in out.export_text()


# --- its script ---------------------------------------------------------------------------------------------------


class FakeControl:
    """A daemon's control socket whose variants need these milliseconds, the most accurate first."""

    def __init__(self, **predicted_ms: float) -> None:
        self.predicted_ms = predicted_ms
        self.deadlines: list[float] = []

    def __call__(self, op: str, **arguments: Any) -> dict[str, Any]:
        if op == "set":
            self.deadlines.append(arguments["deadline_ms"])
            return {"ok": True}
        known = [Alternative(name, None, ms, True, "") for name, ms in self.predicted_ms.items()]
        decision = Decision(variant="x", max_batch=1, bound="none", reason="", alternatives=known, pinned=False)
        return {"ok": True, "decisions": [msgspec.to_builtins(decision)]}


@pytest.mark.parametrize(("slow", "fast"), [(20.0, 5.0), (40.0, 21.0), (4.0, 2.0), (300.0, 200.0), (30.0, 26.0)])
def test_pressure_lies_between_the_two_variants(slow: float, fast: float) -> None:
    ask = FakeControl(fp16=slow, int8=fast)
    script = Script(9, 1000.0, ask)
    normal = script.advance(0.0)
    assert normal is not None and normal.deadline_ms >= 2 * slow
    assert script.advance(1.0) is None
    pressure = script.advance(3.0)
    assert pressure is not None and fast < pressure.deadline_ms < slow
    relief = script.advance(6.0)
    assert relief is not None and relief.deadline_ms == normal.deadline_ms == ask.deadlines[-1]


def test_with_variants_alike_it_says_so_and_sets_nothing() -> None:
    ask = FakeControl(fp16=10.0, int8=9.8)
    script = Script(9, 1000.0, ask)
    script.advance(0.0)
    act = script.advance(3.0)
    assert act is not None and "no variant is clearly faster" in act.caption
    assert set(ask.deadlines) == {1000.0, act.deadline_ms}


# --- its pictures -------------------------------------------------------------------------------------------------


def test_a_tile_shows_the_frame_with_its_boxes() -> None:
    pixels = np.full((720, 1280, 3), 90, np.uint8)
    result = messages.result(objects=1)
    plain = tile(Shot(msgspec.structs.replace(result, detections=[]), pixels), "gate", (640, 360))
    shown = tile(Shot(result, pixels), "gate", (640, 360))
    assert shown.shape == (360, 640, 3) and (plain[40:] == 90).all()
    differs = np.argwhere((shown != plain).any(axis=2))
    (top, left), (bottom, right) = differs.min(axis=0), differs.max(axis=0)
    assert left <= 1 and top <= 27 and 50 <= right < 100 and 99 <= bottom < 130, (
        "box 1.5 2.5 100 200 at half size, and label"
    )
    assert (pixels == 90).all(), "the frame itself is not drawn on"


def test_the_picture_has_a_row_for_each_variant(tmp_path: Path) -> None:
    gallery = Gallery(["a", "b"])
    shot = Shot(messages.result(), np.full((720, 1280, 3), 90, np.uint8))
    assert not gallery.save(tmp_path / "x.png", "title", ["fp16"])
    gallery.by_variant = {"int8": {"a": shot}, "fp16": {"a": shot, "b": shot}}
    assert gallery.save(tmp_path / "x.png", "title", ["fp16", "int8", "never ran"])
    picture = cv2.imread(str(tmp_path / "x.png"))
    assert picture is not None and picture.shape == (64 + 2 * 540, 1920, 3)


def test_a_full_disk_is_reported_and_leaves_no_half_of_a_file(tmp_path: Path) -> None:
    for name in ("clip", "picture", "video"):
        (tmp_path / name).symlink_to("/dev/full")
    gallery = Gallery(["gate"])
    shot = Shot(messages.result("gate", 1), np.zeros((720, 1280, 3), np.uint8))
    gallery.last["gate"] = shot
    gallery.by_variant["fp16"] = {"gate": shot}
    with pytest.raises(EdgedError, match=r"cannot write .*/clip: No space left"), Clip(tmp_path / "clip") as clip:
        for second in range(5):
            clip.add(gallery, ["act", "words"], float(second))
    with pytest.raises(EdgedError, match=r"cannot write .*/picture: No space left"):
        gallery.save(tmp_path / "picture", "title", ["fp16"])
    with pytest.raises(EdgedError, match=r"cannot write .*/video: No space left"):
        encode_scene(tmp_path / "video", VIDEO_SEED, 2)
    assert not (tmp_path / "clip").is_symlink() and not (tmp_path / "picture").is_symlink()


def test_the_video_shows_the_scene(tmp_path: Path) -> None:
    encode_scene(tmp_path / "v.mp4", VIDEO_SEED, 12)
    expected = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    Scene(VIDEO_SEED, WIDTH, HEIGHT, FPS).render(7, expected)
    with av.open(str(tmp_path / "v.mp4")) as container:
        frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    assert len(frames) == 12
    assert np.abs(frames[7].astype(int) - expected).mean() < 8


@pytest.mark.parametrize("width", [60, 80, 100])
def test_the_live_screen_fits_a_terminal(width: int) -> None:
    state: State = msgspec.structs.replace(messages.state(), cameras=[messages.status("belt-1")])
    stats = Stats(CAMERAS[:1], measured=False)
    for n in range(200):
        stats.add(msgspec.structs.replace(messages.result("belt-1", n), variant="fp32", age_ms=20.0), n / 20)
    act = Script(30, 100.0, FakeControl(fp32=20.0, int8=5.0)).advance(0.0)
    assert act is not None
    console = Console(width=width, height=30, record=True, force_terminal=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(picture_of(View(10.0, 30.0, act, stats, state, messages.decision(), 2, None), console))
    console.file.close()
    text = console.export_text()
    assert len(text.splitlines()) <= 28 and max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text, "a column that does not fit goes, and no number is cut"
    for part in (
        "act 1 of 3: normal",
        "belt-1",
        "live",
        "superseded 1",
        "20.0 ms",
        "the most accurate that fits",
        "2 messages lost",
    ):
        assert part in text
