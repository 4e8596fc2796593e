"""Names of rings: unguessable, cleared after a daemon that died, and nothing of anybody else is touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edged.errors import EdgedError
from edged.frames import ring as rings
from edged.frames.frame import PixelFormat
from edged.frames.ring import RingSpec
from edged.frames.ring_names import RingNames

SPEC = RingSpec(64, 48, PixelFormat.NV12)


@pytest.fixture
def shm(tmp_path: Path) -> Path:
    (tmp_path / "shm").mkdir()
    return tmp_path / "shm"


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def die(names: RingNames) -> None:
    os.close(names._lock)  # what the kernel does for a process that dies


def test_two_starts_have_other_names(locks: Path, shm: Path) -> None:
    seen = set()
    for _ in range(3):
        names = RingNames("main", locks, shm)
        seen.add(names.name("gate", 1))
        names.release()
    assert len(seen) == 3
    assert all(name.startswith("edged-") and name.endswith("-gate-1") and len(name) > 25 for name in seen)
    assert list(locks.iterdir()) == []


def test_a_live_instance_is_left_alone_and_a_dead_one_is_cleared(locks: Path, shm: Path) -> None:
    live, dead = RingNames("live", locks, shm), RingNames("dead", locks, shm)
    for names in (live, dead):
        rings.create(names.name("cam", 1), SPEC, directory=shm)
    die(dead)
    other = RingNames("other", locks, shm)
    assert [path.name for path in shm.iterdir()] == [live.name("cam", 1)]
    assert sorted(path.name for path in locks.iterdir()) == [
        f"rings-{name}.{kind}" for name in ("live", "other") for kind in ("lock", "token")
    ]
    with pytest.raises(EdgedError, match="cannot claim the frame rings") as caught:
        RingNames("live", locks, shm)
    assert "same endpoint" in caught.value.hint
    live.release()
    other.release()


def test_the_same_instance_clears_what_its_dead_forerunner_left(locks: Path, shm: Path) -> None:
    dead = RingNames("main", locks, shm)
    rings.create(dead.name("cam", 7), SPEC, directory=shm)
    die(dead)
    names = RingNames("main", locks, shm)
    assert list(shm.iterdir()) == []
    names.release()


def test_what_is_no_ring_of_ours_is_reported_and_left(locks: Path, shm: Path, caplog: pytest.LogCaptureFixture) -> None:
    dead = RingNames("main", locks, shm)
    strange = shm / dead.name("cam", 1)
    strange.mkdir()
    (shm / "edged-somebody-cam-1").touch()
    die(dead)
    names = RingNames("main", locks, shm)
    assert strange.is_dir() and (shm / "edged-somebody-cam-1").exists()
    assert f"{strange} is not a frame ring of this user" in caplog.text
    names.release()


def test_a_lock_that_holds_nonsense_removes_nothing(locks: Path, shm: Path) -> None:
    (locks / "rings-main.token").write_text("*")
    (shm / "edged-x-cam-1").touch()
    RingNames("main", locks, shm).release()
    assert (shm / "edged-x-cam-1").exists()


def test_a_lock_that_is_a_link_is_refused(locks: Path, shm: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (locks / "rings-main.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(EdgedError, match="cannot claim"):
        RingNames("main", locks, shm)
    assert (tmp_path / "precious").read_text() == "mine"
