"""One build of a bundle at a time, among real processes: who waits, for how long, and what a killed one leaves."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.errors import EdgedError
from edged_calibration.tensorrt.lock import LOCK_NAME, only_build

HOLD = """
import sys
from pathlib import Path
from edged_calibration.tensorrt.lock import only_build
with only_build(Path(sys.argv[1]), lambda pid: print("waits for", pid, flush=True)):
    print("holds", flush=True)
    sys.stdin.read()
"""


def hold(directory: Path) -> subprocess.Popen[str]:
    """A process that builds until its input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@contextlib.contextmanager
def ended(*processes: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate(timeout=100)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def nobody(pid: str) -> None:
    pytest.fail(f"waits for {pid}")


@pytest.mark.parametrize("end", ["in order", "killed"])
def test_the_second_waits_until_the_first_has_ended_however_it_ends(tmp_path: Path, end: str) -> None:
    first = hold(tmp_path)
    with ended(first):
        assert line(first) == "holds"
        second = hold(tmp_path)
        with ended(second):
            assert line(second) == f"waits for {first.pid}"
            if end == "killed":
                first.send_signal(signal.SIGKILL)
            else:
                first.communicate(timeout=100)
            assert line(second) == "holds"
            assert (tmp_path / LOCK_NAME).read_text().strip() == str(second.pid)
            second.communicate(timeout=100)
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_does_not_end_is_named_when_time_is_up(tmp_path: Path) -> None:
    first = hold(tmp_path)
    with ended(first):
        assert line(first) == "holds"
        reported: list[str] = []
        late = pytest.raises(EdgedError, match=f"pid {first.pid}.* has not ended in")
        with late as caught, only_build(tmp_path, reported.append, wait_s=0.5):
            pytest.fail("two at once")
        assert reported == [str(first.pid)] and "end that one" in caught.value.hint


def test_what_a_killed_build_left_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text("4711")
    with only_build(tmp_path, nobody):
        assert (tmp_path / LOCK_NAME).read_text().strip() == str(os.getpid())


def test_a_bundle_that_is_replaced_has_a_lock_of_its_own(tmp_path: Path) -> None:
    """The old one's build goes on where it is, and does not let a third in when it ends."""
    directory = tmp_path / "b"
    directory.mkdir()
    with contextlib.ExitStack() as old:
        old.enter_context(only_build(directory, nobody))
        directory.rename(tmp_path / "old")
        shutil.rmtree(tmp_path / "old")
        directory.mkdir()
        with only_build(directory, nobody):
            old.close()
            with pytest.raises(EdgedError, match=f"pid {os.getpid()}"), only_build(directory, lambda pid: None, 0.0):
                pytest.fail("two at once")


def test_of_many_at_once_never_two_build(tmp_path: Path) -> None:
    """The file goes with every build that ends, while others wait on it."""
    build_in_turn = """
import sys
from pathlib import Path
from edged_calibration.tensorrt import lock
lock._POLL_S = 0.001
for _ in range(40):
    with lock.only_build(Path(sys.argv[1]), lambda pid: None):
        (Path(sys.argv[2]) / "building").mkdir()
        (Path(sys.argv[2]) / "building").rmdir()
"""
    (tmp_path / "b").mkdir()
    command = [sys.executable, "-c", build_in_turn, str(tmp_path / "b"), str(tmp_path)]
    builds = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    with ended(*builds):
        reported = [build.communicate(timeout=60)[1] for build in builds]
    assert reported == [""] * 4 and [build.returncode for build in builds] == [0] * 4


def test_a_lock_that_cannot_be_had_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / LOCK_NAME).symlink_to(tmp_path / "elsewhere")
    refused = pytest.raises(EdgedError, match=r"\.build\.lock cannot be locked: ")
    with refused as caught, only_build(tmp_path, nobody):
        pytest.fail("a link leads elsewhere")
    assert "who owns the bundle" in caught.value.hint
    (tmp_path / LOCK_NAME).unlink()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(EdgedError, match="cannot be locked: No space left on device"), only_build(tmp_path, nobody):
        pytest.fail("nobody could tell who has it")
