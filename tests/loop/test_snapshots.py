"""The best picture of each object, written beside the loop: which, what is in it, and what a full disk costs."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from edged.clock import NS_PER_S
from edged.config import SnapshotConfig
from edged.frames.frame import Frame, PixelFormat
from edged.loop.snapshots import QUEUE, Snapshots, SnapshotWriter, cut, name_of
from tests.support.bus import wait_for

DAY_NS = 1_700_000_000 * NS_PER_S


def frame(track_s: int = 0, format_: PixelFormat = PixelFormat.BGR24) -> Frame:
    return Frame(
        camera="gate",
        frame=1,
        slot=0,
        seq=2,
        width=200,
        height=100,
        format=format_,
        mono_capture_ns=0,
        t_capture_ns=DAY_NS + track_s * NS_PER_S,
        clock="arrival",
    )


def picture(level: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    made = np.full((100, 200, 3), 20, np.uint8)
    made[40:60, 80:120] = level
    return made


def writer(path: Path, reports: list[str] | None = None, **keys: float) -> SnapshotWriter:
    return SnapshotWriter(SnapshotConfig(path=str(path), **keys), path, (reports if reports is not None else []).append)


def files(path: Path) -> list[Path]:
    return sorted(path.glob("*/*/*.jpg"))


def test_the_best_sight_is_written_with_a_margin(tmp_path: Path) -> None:
    shown = picture(255)
    out = writer(tmp_path)
    snapshots = Snapshots(lambda f: shown, lambda f: True, out)
    snapshots.offer(frame(), 7, (80, 40, 120, 60), 0.9)
    shown = picture(60)
    snapshots.offer(frame(1), 7, (80, 40, 120, 60), 0.95)  # hardly better: the first stays
    name = snapshots.write("gate", 7, last=True)
    assert name == name_of(frame(), 7) == "gate/2023-11-14/221320-7.jpg"
    wait_for(lambda: files(tmp_path))
    out.close()
    jpeg = cv2.imread(str(tmp_path / str(name)))
    assert jpeg is not None and jpeg.shape == (32, 60, 3)  # 40 x 20 and a quarter, to even pixels
    assert jpeg[15, 30].min() > 230 and jpeg[1, 1].max() < 60
    assert snapshots.write("gate", 7, last=True) is None


def test_a_frame_overwritten_meanwhile_is_no_snapshot(tmp_path: Path) -> None:
    out = writer(tmp_path)
    snapshots = Snapshots(lambda f: picture(255), lambda f: False, out)
    snapshots.offer(frame(), 7, (80, 40, 120, 60), 0.9)
    assert snapshots.write("gate", 7, last=True) is None
    out.close()


@pytest.mark.parametrize("box", [(0, 0, 3, 3), (150.5, 60.2, 200, 100), (-5, -5, 250, 140), (199, 99, 200, 100)])
@pytest.mark.parametrize("format_", [PixelFormat.BGR24, PixelFormat.NV12])
def test_any_box_gives_a_part_with_even_sides(box: tuple[float, float, float, float], format_: PixelFormat) -> None:
    pixels = picture(9) if format_ is PixelFormat.BGR24 else np.zeros((150, 200), np.uint8)
    part = cut(pixels, format_, 200, 100, box)
    height = part.shape[0] if format_ is PixelFormat.BGR24 else part.shape[0] * 2 // 3
    assert part.shape[1] >= 2 and height >= 2 and part.shape[1] % 2 == height % 2 == 0


def test_the_oldest_go_when_there_are_too_many_megabytes_or_days(tmp_path: Path) -> None:
    old = tmp_path / "gate" / "2023-01-01" / "000000-1.jpg"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"x" * 100)
    os.utime(old, (1, 1))
    out = writer(tmp_path, max_mb=0.02)
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)
    for track in range(5):
        assert out.take(f"gate/2023-11-14/22132{track}-{track}.jpg", noise, PixelFormat.BGR24)
    wait_for(lambda: (tmp_path / "gate/2023-11-14/221324-4.jpg").exists())
    out.close()
    assert not old.exists() and files(tmp_path)[-1].name == "221324-4.jpg"
    assert sum(file.stat().st_size for file in files(tmp_path)[:-1]) < 20_000


def test_a_directory_that_takes_nothing_is_reported_once_and_when_it_does_again(tmp_path: Path) -> None:
    reports: list[str] = []
    path = tmp_path / "shots"
    path.write_text("a file where the directory should be")
    out = writer(path, reports)
    for track in range(3):
        out.take(f"gate/d/{track}.jpg", picture(9), PixelFormat.BGR24)
    wait_for(lambda: reports and out._queue.empty())
    path.unlink()
    out.take("gate/d/9.jpg", picture(9), PixelFormat.BGR24)
    wait_for(lambda: len(reports) == 2)
    out.close()
    assert "cannot be written" in reports[0] and "again" in reports[1]
    assert (path / "gate/d/9.jpg").exists()


def test_a_slow_disk_costs_snapshots_and_counts_them(tmp_path: Path) -> None:
    out = writer(tmp_path)
    out.worker.stop(5)
    taken = [out.take(f"gate/d/{n}.jpg", picture(9), PixelFormat.BGR24) for n in range(QUEUE + 3)]
    assert taken.count(False) == out.dropped == 3
