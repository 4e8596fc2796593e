"""Steps are there whole or not at all, and a second run takes what a first one left."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edged.errors import EdgedError
from edged_calibration.cache import StepCache, write_whole


def make_text(text: str, calls: list[str]) -> Callable[[Path], None]:
    def make(into: Path) -> None:
        calls.append(text)
        (into / "result").write_text(text)

    return make


def test_a_step_is_made_once_for_the_same_inputs(tmp_path: Path) -> None:
    calls: list[str] = []
    for _ in range(2):
        with StepCache(tmp_path) as workshop:
            path = workshop.step("one", ["a"], make_text("x", calls))
            assert (path / "result").read_text() == "x"
    assert calls == ["x"]


def test_other_inputs_make_it_again_and_the_old_result_goes(tmp_path: Path) -> None:
    calls: list[str] = []
    with StepCache(tmp_path) as workshop:
        first = workshop.step("one", ["a"], make_text("x", calls))
        other = workshop.step("one-more", ["a"], make_text("z", calls))
        second = workshop.step("one", ["b"], make_text("y", calls))
    assert calls == ["x", "z", "y"]
    assert second.exists() and other.exists() and not first.exists()


def test_a_result_that_was_changed_is_made_again(tmp_path: Path) -> None:
    calls: list[str] = []
    with StepCache(tmp_path) as workshop:
        path = workshop.step("one", ["a"], make_text("x", calls))
        (path / "result").write_text("tampered")
        assert (workshop.step("one", ["a"], make_text("x", calls)) / "result").read_text() == "x"
    assert len(calls) == 2


def test_a_step_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def broken(into: Path) -> None:
        (into / "half").write_text("x")
        raise ValueError("no")

    with StepCache(tmp_path) as workshop:
        with pytest.raises(ValueError, match="no"):
            workshop.step("one", [], broken)
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_two_runs_do_not_share_a_workshop(tmp_path: Path) -> None:
    with StepCache(tmp_path), pytest.raises(EdgedError, match="another edged-calibrate"), StepCache(tmp_path):
        pass
    with StepCache(tmp_path):
        pass


def test_a_run_that_was_killed_leaves_no_half_step_to_the_next(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom edged_calibration.cache import StepCache\n"
        "def make(into):\n    (into / 'half').write_text('x'); print('at it', flush=True); time.sleep(60)\n"
        "with StepCache(Path(sys.argv[1])) as w:\n"
        "    w.step('first', [], lambda into: (into / 'r').write_text('done'))\n    w.step('second', [], make)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as run:
        assert run.stdout is not None and run.stdout.readline() == b"at it\n"
        run.send_signal(signal.SIGKILL)
        run.wait(10)
    assert any(path.name.endswith(".partial") for path in tmp_path.iterdir())
    calls: list[str] = []
    with StepCache(tmp_path) as workshop:
        assert not any(path.name.endswith(".partial") for path in tmp_path.iterdir())
        workshop.step("first", [], make_text("x", calls))
        workshop.step("second", [], make_text("y", calls))
    assert calls == ["y"]


def make_big(into: Path) -> None:
    (into / "big").write_bytes(bytes(100_000))


def test_a_full_disk_is_told_in_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        with StepCache(tmp_path) as workshop, pytest.raises(EdgedError, match="no space left") as told:
            workshop.step("one", [], make_big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "make room" in told.value.hint
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    write_whole(target, b"new")
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]
    assert time.time() - target.stat().st_mtime < 60
