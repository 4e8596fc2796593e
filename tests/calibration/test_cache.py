"""Steps are there whole or not at all, and a second run takes what a first one left."""

from __future__ import annotations

import functools
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edged.errors import EdgedError
from edged_calibration.cache import StepCache
from edged_calibration.progress import Advance, silent

CALLS: list[str] = []


@pytest.fixture(autouse=True)
def no_calls() -> None:
    CALLS.clear()


def make_text(into: Path, advance: Advance, text: str, of: object = None) -> None:
    CALLS.append(text)
    (into / "result").write_text(text)


def fail(into: Path, advance: Advance) -> None:
    (into / "half").write_text("x")
    raise ValueError("no")


def make_much(into: Path, advance: Advance) -> None:
    (into / "big").write_bytes(bytes(100_000))


def test_a_step_is_made_once_for_the_same_inputs(tmp_path: Path) -> None:
    for _ in range(2):
        with StepCache(tmp_path) as cache:
            path = cache.step("one", silent, make_text, "x", {"a": np.ones(3)})
            assert (path / "result").read_text() == "x"
    assert CALLS == ["x"]


def test_other_inputs_make_it_again_and_the_old_result_goes(tmp_path: Path) -> None:
    with StepCache(tmp_path) as cache:
        first = cache.step("one", silent, make_text, "x")
        other = cache.step("one-more", silent, make_text, "z")
        second = cache.step("one", silent, make_text, "y")
    assert CALLS == ["x", "z", "y"]
    assert second.exists() and other.exists() and not first.exists()


def test_a_step_that_could_read_more_than_its_inputs_is_refused(tmp_path: Path) -> None:
    def inner(into: Path, advance: Advance) -> None: ...

    refused: list[Any] = [inner, lambda into, advance: None, functools.partial(make_text, text="x"), [].append]
    with StepCache(tmp_path) as cache:
        for make in refused:
            with pytest.raises(ValueError, match="may read more than its inputs"):
                cache.step("one", silent, make)
        with pytest.raises(TypeError, match="object has no digest"):
            cache.step("one", silent, make_text, "x", object())


def test_a_result_that_was_changed_is_made_again(tmp_path: Path) -> None:
    with StepCache(tmp_path) as cache:
        path = cache.step("one", silent, make_text, "x")
        (path / "result").write_text("tampered")
        assert (cache.step("one", silent, make_text, "x") / "result").read_text() == "x"
        (path / "done.json").write_text("{")
        cache.step("one", silent, make_text, "x")
        (path / "result").unlink()
        cache.step("one", silent, make_text, "x")
    assert len(CALLS) == 4


def test_a_step_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with StepCache(tmp_path) as cache:
        with pytest.raises(ValueError, match="no"):
            cache.step("one", silent, fail)
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_two_runs_do_not_share_a_directory(tmp_path: Path) -> None:
    with StepCache(tmp_path), pytest.raises(EdgedError, match="another edged-calibrate"), StepCache(tmp_path):
        pass
    with StepCache(tmp_path):
        pass


KILLED = """
import sys, time
from pathlib import Path
from edged_calibration.cache import StepCache

def first(into, advance):
    (into / "r").write_text("done")

def second(into, advance):
    (into / "half").write_text("x"); print("at it", flush=True); time.sleep(60)

with StepCache(Path(sys.argv[1])) as cache:
    cache.step("first", None, first)
    cache.step("second", None, second)
"""


def test_a_run_that_was_killed_leaves_no_half_step_to_the_next(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(KILLED)
    kept = tmp_path / "cache"
    for _ in range(2):  # the second finds the first step of the one before
        with subprocess.Popen([sys.executable, str(script), str(kept)], stdout=subprocess.PIPE) as run:
            assert run.stdout is not None and run.stdout.readline() == b"at it\n"
            run.send_signal(signal.SIGKILL)
            run.wait(10)
        names = sorted(path.name.partition("-")[0] for path in kept.iterdir())
        assert names == [".lock", "first", "second"]
        assert len(list(kept.glob("second-*.partial"))) == 1
    with StepCache(kept):
        assert not list(kept.glob("*.partial"))


def test_a_full_disk_is_reported_in_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        with StepCache(tmp_path) as cache, pytest.raises(EdgedError, match="no space left") as reported:
            cache.step("one", silent, make_much)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "make room" in reported.value.hint
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
