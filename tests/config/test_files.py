"""The atomic write and the lock, with real files, real processes and a disk that is full."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edged import files


def test_a_file_is_replaced_whole_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    files.write_atomic(path, b"new", 0o600)
    assert path.read_text() == "new" and stat.S_IMODE(path.stat().st_mode) == 0o600
    files.write_atomic(path, "newer")
    assert os.listdir(tmp_path) == ["a"] and path.read_text() == "newer"


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_a_mode_holds_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        files.make_directory(tmp_path / "a" / "b", 0o755)
        files.write_atomic(tmp_path / "a" / "b" / "public", "", 0o644)
        files.write_atomic(tmp_path / "a" / "b" / "secret", "", 0o600)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a").rglob("*")}
    assert modes == {"b": 0o755, "public": 0o644, "secret": 0o600}
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        files.make_directory(tmp_path / "file", 0o755)


@pytest.mark.parametrize("odd", ["a pipe", "a directory", "a device", "nothing"])
def test_only_a_regular_file_is_read_and_nothing_is_waited_for(tmp_path: Path, odd: str) -> None:
    path = Path("/dev/zero") if odd == "a device" else tmp_path / "odd"
    if odd == "a pipe":
        os.mkfifo(path)
    if odd == "a directory":
        path.mkdir()
    with pytest.raises(OSError):
        files.open_regular(path)


@pytest.mark.parametrize("linked", [False, True])
def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path, linked: bool) -> None:
    """`--out /dev/stdout`, as root, must leave /dev as it is."""
    pipe = path = tmp_path / "pipe"
    os.mkfifo(pipe)
    if linked:
        path = tmp_path / "link"
        path.symlink_to(pipe)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(OSError, match="not a regular file"):
        files.write_atomic(path, "new")
    assert sorted(os.listdir(tmp_path)) == before and pipe.is_fifo() and path.is_symlink() == linked


def test_what_a_killed_writer_left_is_no_obstacle_and_no_trap(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("precious")
    (tmp_path / ".a.new").symlink_to(tmp_path / "elsewhere")
    files.write_atomic(tmp_path / "a", "new")
    assert (tmp_path / "elsewhere").read_text() == "precious" and (tmp_path / "a").read_text() == "new"


def test_on_a_full_disk_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError):
            files.write_atomic(path, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path) == ["a"] and path.read_text() == "old"


@pytest.mark.parametrize("there", [True, False])
def test_a_directory_takes_the_place_of_another(tmp_path: Path, there: bool) -> None:
    fresh, path = tmp_path / "fresh", tmp_path / "path"
    fresh.mkdir()
    (fresh / "new").touch()
    if there:
        path.mkdir()
        (path / "old").touch()
    files.replace_directory(fresh, path)
    assert os.listdir(tmp_path) == ["path"] and os.listdir(path) == ["new"]


def test_a_lock_is_exclusive_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    program = f"""
import pathlib, sys
from edged import files
files.lock(pathlib.Path({str(path)!r}))
print("held", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(files.LockHeldError) as caught:
            files.lock(path)
        assert caught.value.holder == str(holder.pid)
        holder.kill()
    files.unlock(files.lock(path))
    assert path.exists()
    files.unlock(files.lock(path), path)
    assert not path.exists()


def test_a_link_is_no_lock_and_a_missing_one_is_not_made_unasked(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError):
        files.lock(tmp_path / "link")
    with pytest.raises(FileNotFoundError):
        files.lock(tmp_path / "none", create=False)
    assert sorted(os.listdir(tmp_path)) == ["link"]
