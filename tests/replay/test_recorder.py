"""The recorder: a ring that stays small and replays file by file, losses that are told, disks that fail."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.cli import main
from edged.config import RecordConfig
from edged.errors import EdgedError
from edged.governor.governor import Governor
from edged.governor.messages import Device, Sensed, Tick
from edged.replay import log
from edged.replay import recorder as recorders
from edged.replay.record import Entry, Sampled
from edged.replay.recorder import PATTERN, LogFile, Recorder, directory_of
from edged.replay.replayer import Outcome, replay
from tests.replay.test_replay import BUDGET, VARIANTS, drive
from tests.support.bus import wait_for


class Events(list[tuple[str, str]]):
    def __call__(self, kind: str, text: str) -> None:
        self.append((kind, text))


def opened(path: Path, max_mb: float = 100.0) -> tuple[Recorder, Events]:
    events = Events()
    recorder = Recorder.open(RecordConfig(str(path), max_mb), "b" * 64, events)
    assert recorder is not None
    return recorder, events


def replayed(path: Path) -> Outcome:
    with path.open("rb") as source:
        return replay(log.read(source, log.header(source, str(path))))


def test_what_was_decided_replays_and_samples_are_there(tmp_path: Path) -> None:
    recorder, events = opened(tmp_path / "record")
    recorder.start()
    governor = Governor(VARIANTS, BUDGET, 0, Device((4.0,)), recorder.on_call)
    recorder.sample({"power_w": 5.5, "temperature_c": None}, 0)
    drive(governor)
    assert recorder.close(10.0) and not events
    (file,) = (tmp_path / "record").glob(PATTERN)
    outcome = replayed(file)
    assert outcome.exact and outcome.choices == 80 and not outcome.broken
    with file.open("rb") as source:
        found = [e for e in log.read(source, log.header(source, "x")) if isinstance(e, Entry)]
    assert [e.request.json for e in found if isinstance(e.request, Sampled)] == [
        '{"power_w": 5.5, "temperature_c": null}'
    ]
    assert recorder.status.problem is None
    assert recorder.status.megabytes == pytest.approx(file.stat().st_size / 1e6, abs=0.001)


def test_the_ring_keeps_its_size_and_each_file_replays_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorders, "FLUSH_RECORDS", 50)
    recorder, _ = opened(tmp_path, max_mb=0.06)
    recorder.start()
    governor = Governor(VARIANTS, BUDGET, 0, Device((4.0,)), recorder.on_call)
    first = tmp_path / "edged-00000001.log"
    for k in range(100):  # until the first file has made room
        drive(governor, 4, k * 5_000_000_000)
        wait_for(recorder._queue.empty)
        if k and not first.exists():
            break
    assert recorder.close(10.0)
    files = sorted(tmp_path.glob(PATTERN))
    assert 3 <= len(files) <= recorders.PARTS + 1
    assert sum(file.stat().st_size for file in files) < 0.06e6 * 1.4
    assert not first.exists()
    for file in files:
        outcome = replayed(file)
        assert outcome.exact and outcome.unchecked == 0 and not outcome.broken, file
    again, _ = opened(tmp_path, max_mb=0.06)  # the next run goes on counting
    again.start()
    Governor(VARIANTS, BUDGET, 0, None, again.on_call)
    assert again.close(10.0)
    assert sorted(tmp_path.glob(PATTERN))[-1].name > files[-1].name


def test_what_is_not_its_own_is_left_alone(tmp_path: Path) -> None:
    strangers = [tmp_path / name for name in ("edged-notes.log", "edged-zz.log", "edged-1.log", "notes.txt")]
    for path in strangers:
        path.write_bytes(bytes(200_000))
    for number in (1, 2):
        recorder, events = opened(tmp_path, max_mb=0.05)
        recorder.start()
        drive(Governor(VARIANTS, BUDGET, 0, None, recorder.on_call))
        assert recorder.close(10.0) and not events and recorder.status.problem is None
        assert (tmp_path / f"edged-{number:08d}.log").stat().st_size > 1000
    assert all(path.stat().st_size == 200_000 for path in strangers)


def test_a_full_queue_is_counted_in_the_log_and_exact_again_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorders, "QUEUE", 50)
    recorder, events = opened(tmp_path)
    governor = Governor(VARIANTS, BUDGET, 0, Device((4.0,)), recorder.on_call)
    drive(governor)  # nobody takes anything out yet
    assert recorder.dropped > 100
    recorder.start()
    wait_for(recorder._queue.empty)
    for i in range(10):
        governor.observe(Tick(), 10_000_000_000 + i * 500_000_000)
    assert recorder.close(10.0)
    (file,) = tmp_path.glob(PATTERN)
    outcome = replayed(file)
    assert outcome.exact and outcome.gaps == 1 and outcome.lost == recorder.dropped
    assert outcome.unchecked == 1
    assert [kind for kind, _ in events] == ["recording_dropped"]


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process may grow beyond 20 kB: what a full disk is like."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_while_the_disk_is_full_records_are_counted_and_afterwards_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorders, "RETRY_NS", 10_000_000)
    monkeypatch.setattr(recorders, "RETRY_AT_MOST_NS", 20_000_000)
    recorder, events = opened(tmp_path / "record")
    recorder.start()
    governor = Governor(VARIANTS, BUDGET, 0, Device((4.0,)), recorder.on_call)
    drive(governor)
    wait_for(recorder._queue.empty)
    full = monkeypatch.context()
    with full as disk:

        def no_space(*_: object) -> None:
            raise OSError(28, "No space left on device")

        disk.setattr(recorders, "_write_all", no_space)
        wait_for(lambda: recorder.status.problem)
        for k in range(1, 5):
            drive(governor, 4, k * 5_000_000_000)
        assert recorder.dropped > 100 and recorder._queue.empty()
    wait_for(lambda: recorder.status.problem is None)
    drive(governor, 4, 50_000_000_000)
    assert recorder.close(10.0)
    assert [kind for kind, _ in events if kind != "recording_dropped"] == ["recording_stopped", "recording_resumed"]
    assert "No space left" in events[0][1]
    before, after = sorted((tmp_path / "record").glob(PATTERN))[0], sorted((tmp_path / "record").glob(PATTERN))[-1]
    for file in (before, after):
        outcome = replayed(file)
        assert outcome.difference is None and not outcome.broken, file
    assert outcome.gaps == 1 and outcome.lost == recorder.dropped and outcome.choices > 20
    assert main(["replay", str(tmp_path / "record")]) == 0


def test_a_disk_that_fills_up_leaves_a_whole_file(tmp_path: Path, small_files: None) -> None:
    recorder, events = opened(tmp_path)
    recorder.start()
    governor = Governor(VARIANTS, BUDGET, 0, Device((4.0,)), recorder.on_call)
    for k in range(60):
        drive(governor, 4, k * 5_000_000_000)
        if recorder.status.problem:
            break
        wait_for(lambda: recorder._queue.empty() or recorder.status.problem)
    wait_for(lambda: bool(events))
    kind, text = events[0]
    assert kind == "recording_stopped" and "File too large" in text
    governor.observe(Sensed(5.0), 10**12)  # the governor goes on
    assert recorder.close()
    outcome = replayed(sorted(tmp_path.glob(PATTERN))[0])
    assert outcome.exact and outcome.choices > 0 and not outcome.broken  # a frame is there whole or not at all


@pytest.mark.parametrize("max_mb", [0.2, 0.06, 0.03, 0.001, 5e-324])
@pytest.mark.parametrize("rounds", [1, 2, 5, 12])
def test_a_ring_of_any_size_replays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_mb: float, rounds: int
) -> None:
    monkeypatch.setattr(recorders, "FLUSH_RECORDS", 20)
    recorder, _ = opened(tmp_path, max_mb)
    recorder.start()
    governor = Governor(VARIANTS, BUDGET, 0, Device((4.0,)), recorder.on_call)
    for k in range(rounds):
        drive(governor, 4, k * 5_000_000_000)
        wait_for(recorder._queue.empty)
        recorder.sample({"power_w": 5.5}, k * 5_000_000_000)
    assert recorder.close(10.0)
    assert main(["replay", str(tmp_path)]) == 0


def test_where_it_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    assert directory_of(RecordConfig()) is None
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}:/elsewhere")
    assert directory_of(RecordConfig()) == tmp_path / "record"
    assert directory_of(RecordConfig("/x")) == Path("/x")
    assert directory_of(RecordConfig("/x", 0)) is None
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgedError, match="cannot record into"):
        Recorder.open(RecordConfig(str(tmp_path / "file" / "below")), "b", Events())


def test_a_single_file_for_those_who_have_the_time(tmp_path: Path) -> None:
    with LogFile(tmp_path / "one.log", "simulated", estimated=True) as file:
        drive(Governor(VARIANTS, BUDGET, 0, Device((4.0,)), file.on_call))
    assert replayed(tmp_path / "one.log").choices == 80
    with pytest.raises(EdgedError, match="cannot be written"):
        LogFile(tmp_path / "none" / "one.log", "simulated")
