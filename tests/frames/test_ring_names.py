"""Names of rings: unguessable, cleared after a daemon that died, and nothing of anybody else is touched."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from edged.errors import EdgedError
from edged.frames import ring as rings
from edged.frames.frame import PixelFormat
from edged.frames.ring import RingSpec
from edged.frames.ring_names import RingNames, hold

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


def ring_of(names: RingNames, camera: str, shm: Path) -> int:
    name = names.name(camera, 1)
    rings.create(name, SPEC, directory=shm)
    return hold(name, shm)


def test_two_starts_have_other_names(locks: Path, shm: Path) -> None:
    seen = set()
    for _ in range(3):
        names = RingNames("main", locks, shm)
        seen.add(names.name("gate", 1))
        names.release()
    assert len(seen) == 3
    assert all(name.startswith("edged-") and name.endswith("-gate-1") and len(name) > 30 for name in seen)
    assert list(locks.iterdir()) == []


def test_rings_of_a_live_daemon_stay_and_those_of_a_dead_one_go(locks: Path, shm: Path) -> None:
    live, dead = RingNames("live", locks, shm), RingNames("dead", locks, shm)
    held, lost = ring_of(live, "cam", shm), ring_of(dead, "cam", shm)
    die(dead)
    os.close(lost)
    shutil.rmtree(locks)  # as a service manager does with the runtime directory of a service that failed
    locks.mkdir()
    other = RingNames("other", locks, shm)
    assert [path.name for path in shm.iterdir()] == [live.name("cam", 1)]
    os.close(held)
    other.release()


def test_an_instance_is_had_once(locks: Path, shm: Path) -> None:
    live = RingNames("live", locks, shm)
    with pytest.raises(EdgedError, match="holds the frame rings") as caught:
        RingNames("live", locks, shm)
    assert "another endpoint" in caught.value.hint
    live.release()
    RingNames("live", locks, shm).release()


def test_what_is_no_ring_of_ours_is_reported_and_left(locks: Path, shm: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    token = "0123456789abcdef0123"
    (shm / f"edged-{token}-cam-1").mkdir()
    (shm / "edged-somebody-cam-1").touch()
    (shm / f"edged-{token}-link-1").symlink_to(locks / "precious")
    (locks / "precious").write_text("mine")
    RingNames("main", locks, shm).release()
    assert f"{shm / f'edged-{token}-cam-1'} is not a frame ring of this user" in caplog.text
    assert len(list(shm.iterdir())) == 3 and (locks / "precious").read_text() == "mine"


def test_a_ring_that_is_gone_cannot_be_held(shm: Path) -> None:
    with pytest.raises(EdgedError, match="cannot open the frame ring"):
        hold("edged-x-cam-1", shm)


def test_a_lock_that_is_a_link_is_refused(locks: Path, shm: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (locks / "rings-main.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(EdgedError, match="cannot claim"):
        RingNames("main", locks, shm)
    assert (tmp_path / "precious").read_text() == "mine"
