"""The best picture of each object, written beside the loop: which, what is in it, and what a full disk costs."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from pytest import MonkeyPatch

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


def test_the_oldest_of_all_cameras_go_first_and_days_without_files(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    """More than are listed at a time, with a clock that goes back at last: what is written then stays, too."""
    monkeypatch.setattr("edged.loop.snapshots.LISTED", 3)
    day = "2023-11-14"
    for n in range(20):
        file = tmp_path / f"{'gate' if n % 2 else 'yard'}/{day}/{n:06d}-1.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * 1000)
    out = writer(tmp_path, max_mb=0.0125, keep_days=3660)
    taken = [f"gate/{day}/000021-1.jpg", "gate/2023-11-15/000000-2.jpg", "gate/1970-01-01/000000-3.jpg"]
    for name in taken:
        assert out.take(name, picture(9), PixelFormat.BGR24)
    wait_for(lambda: (tmp_path / taken[-1]).exists())
    out.close()
    assert 11_000 < sum(file.stat().st_size for file in files(tmp_path)) <= 12_500
    assert all((tmp_path / name).exists() for name in taken)
    left = sorted(int(file.name[:6]) for file in tmp_path.glob(f"*/{day}/*.jpg"))
    assert left == [*range(21 - len(left), 20), 21]


def test_a_snapshot_written_again_counts_once_and_a_day_left_empty_is_removed(tmp_path: Path) -> None:
    empty = tmp_path / "gate" / "2023-01-01"
    empty.mkdir(parents=True)
    out = writer(tmp_path, max_mb=0.0125)
    for n in range(30):
        assert out.take(f"gate/2023-11-14/{n % 2:06d}-1.jpg", picture(9), PixelFormat.BGR24)
        wait_for(lambda: out._queue.empty())
    wait_for(lambda: not empty.exists())
    out.close()
    assert len(files(tmp_path)) == 2


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


def test_what_others_put_into_the_directory_stops_nothing(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    day = tmp_path / "gate" / "2023-01-01"
    (day / "directory.jpg").mkdir(parents=True)
    (day / "0.jpg").symlink_to("nowhere")
    (day / "1.jpg").write_bytes(b"x" * 20_000)
    reports: list[str] = []
    unlink = Path.unlink

    def refused(path: Path, missing_ok: bool = False) -> None:
        if path.name == "1.jpg":
            raise PermissionError(1, "Operation not permitted")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)  # root, and the tests may run as root, is refused nothing
    out = writer(tmp_path, reports, max_mb=0.0125)
    for n in range(3):
        assert out.take(f"gate/2023-11-14/{n:06d}-1.jpg", picture(9), PixelFormat.BGR24)
    wait_for(lambda: reports and out._queue.empty())
    out.close()
    monkeypatch.undo()
    assert len(reports) == 1 and "cannot be removed" in reports[0]
    out = writer(tmp_path, reports, max_mb=0.0125)
    out.take("gate/2023-11-14/000009-1.jpg", picture(9), PixelFormat.BGR24)
    wait_for(lambda: not (day / "1.jpg").exists())
    out.close()


def test_a_slow_disk_costs_snapshots_and_counts_them(tmp_path: Path) -> None:
    out = writer(tmp_path)
    out.worker.stop(5)
    taken = [out.take(f"gate/d/{n}.jpg", picture(9), PixelFormat.BGR24) for n in range(QUEUE + 3)]
    assert taken.count(False) == out.dropped == 3
