"""The time left of a build, from the times of an earlier one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged import clock
from edged_calibration.tensorrt import timing
from edged_calibration.tensorrt.timing import Stopwatch, Times

EARLIER = Times(100.0, {"parse 1/1": 1.0, "timing 50/100": 60.0, "timing 100/100": 90.0})


@pytest.fixture
def now_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    held = [1000.0]
    monkeypatch.setattr(clock, "mono_ns", lambda: int(held[0] * clock.NS_PER_S))
    return held


def test_the_first_build_knows_nothing() -> None:
    watch = Stopwatch(None)
    watch.mark("timing", 1, 2)
    assert watch.left_s() is None


def test_time_left_goes_by_the_pace_of_this_build(now_s: list[float]) -> None:
    watch = Stopwatch(EARLIER)
    assert watch.left_s() == 100.0
    now_s[0] += 10
    assert watch.left_s() == 90.0  # nothing is reached yet: as it was then
    watch.mark("timing", 50, 100)  # after 10 s instead of 60: the kept times of kernels make it six times as fast
    assert watch.left_s() == pytest.approx(40 / 6)
    now_s[0] += 3
    watch.mark("a phase of another version", 1, 1)
    assert watch.left_s() == pytest.approx(40 / 6 - 3)
    now_s[0] += 60
    assert watch.left_s() == 0.0


def test_times_are_kept_thinned(now_s: list[float], tmp_path: Path) -> None:
    watch = Stopwatch(None)
    for step in range(5000):
        now_s[0] += 0.01
        watch.mark("timing", step, 5000)
    times = watch.times()
    assert times.total_s == pytest.approx(50.0, abs=0.01) and 100 <= len(times.marks) <= 200
    (tmp_path / "t.json").write_bytes(timing.dump({"int8": times}))
    assert timing.load(tmp_path / "t.json") == {"int8": times}


@given(st.one_of(st.binary(max_size=80), st.sampled_from([b'{"a":{"total_s":-1,"marks":{}}}', b'{"a":[1]}', b"[]"])))
def test_a_record_that_makes_no_sense_is_as_none(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "record.json"
    path.write_bytes(content)
    found = timing.load(path)
    assert found == {} or all(isinstance(times, Times) for times in found.values())
    assert timing.load(path.with_name("there is none")) == {}
