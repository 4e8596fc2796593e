"""What was used of an energy horizon survives a restart, and no clock refills it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from edged import files
from edged.clock import NS_PER_S
from edged.power import energy_store
from edged.power.energy_meter import HorizonUse
from edged.power.energy_store import FILE, EnergyStore, Moment, moment
from tests.support.bus import wait_for

S = NS_PER_S
DAY_S = 86_400.0
USE = HorizonUse(begun_ns=400 * S, length_s=DAY_S, spent_j=5000.0, metered_s=90.0)
WRITTEN = Moment("boot-1", mono_s=500.0, wall_s=1_000_000.0, synchronised=True)


def keep(directory: Path, use: HorizonUse | None = USE, at: Moment = WRITTEN) -> None:
    store = EnergyStore(directory, lambda: at)
    store.start(lambda: use)
    store.close()


def restored(directory: Path, now: Moment) -> tuple[float, HorizonUse]:
    """(seconds that have passed of the horizon, what it used)."""
    use = EnergyStore(directory, lambda: now).load()
    assert use is not None
    return use.passed_s(int(now.mono_s * S)), use


@pytest.mark.parametrize(
    ("now", "passed_s"),
    [
        (Moment("boot-1", 530.0, 1_000_030.0, True), 130.0),
        (Moment("boot-1", 530.0, 9_000_000.0, True), 130.0),  # within one boot the wall clock has no say
        (Moment("boot-1", 530.0, 5.0, True), 130.0),
        (
            Moment("boot-2", 20.0, 1_003_600.0, True),
            3700.0,
        ),  # switched off for an hour, clocks synchronised
        (Moment("boot-2", 20.0, 9_000_000.0, False), 120.0),  # nobody vouches for that clock
        (Moment("boot-2", 20.0, 5.0, True), 120.0),  # a clock that runs backwards
    ],
)
def test_only_time_that_certainly_passed_is_counted(tmp_path: Path, now: Moment, passed_s: float) -> None:
    keep(tmp_path)
    passed, use = restored(tmp_path, now)
    assert passed == pytest.approx(passed_s)
    assert (use.spent_j, use.metered_s, use.length_s) == (5000.0, 90.0, DAY_S)


def test_a_clock_not_synchronised_when_it_was_written_proves_nothing(tmp_path: Path) -> None:
    keep(tmp_path, at=Moment("boot-1", 500.0, 1_000_000.0, False))
    assert restored(tmp_path, Moment("boot-2", 20.0, 9_000_000.0, True))[0] == pytest.approx(120.0)


def test_a_boot_without_a_name_is_another_boot(tmp_path: Path) -> None:
    keep(tmp_path, at=Moment("", 500.0, 1_000_000.0, False))
    assert restored(tmp_path, Moment("", 20.0, 1_000_000.0, False))[0] == pytest.approx(120.0)


def test_it_is_written_once_a_minute_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy_store, "WRITE_EVERY_S", 0.02)
    spent, written = [0.0], threading.Semaphore(0)
    write = files.write_atomic

    def counted(path: Path, content: bytes | str) -> None:
        write(path, content)
        written.release()

    monkeypatch.setattr(files, "write_atomic", counted)
    store = EnergyStore(tmp_path, lambda: WRITTEN)
    store.start(lambda: HorizonUse(400 * S, DAY_S, spent[0]))
    for _ in range(3):
        assert written.acquire(timeout=10)
    spent[0] = 77.0
    store.close()
    assert restored(tmp_path, WRITTEN)[1].spent_j == 77.0


def test_a_limit_that_was_removed_leaves_nothing(tmp_path: Path) -> None:
    keep(tmp_path)
    keep(tmp_path, use=None)
    assert list(tmp_path.iterdir()) == []
    assert EnergyStore(tmp_path, lambda: WRITTEN).load() is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"spent_j": 1}'])
def test_a_file_that_cannot_be_used_is_reported_and_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert EnergyStore(tmp_path).load() is None
    assert "starts at zero" in caplog.text


@pytest.mark.parametrize("bad", ["-1.0", "1e300"])
def test_a_number_that_cannot_be_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture, bad: str) -> None:
    keep(tmp_path)
    text = (tmp_path / FILE).read_text()
    assert "5000.0" in text
    (tmp_path / FILE).write_text(text.replace("5000.0", bad))
    assert EnergyStore(tmp_path).load() is None and "starts at zero" in caplog.text


def test_a_full_disk_is_reported_once_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(energy_store, "WRITE_EVERY_S", 0.02)
    tries = []

    def full(path: Path, content: bytes | str) -> None:
        tries.append(path)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_atomic", full)
    store = EnergyStore(tmp_path, lambda: WRITTEN)
    store.start(lambda: USE)
    wait_for(lambda: len(tries) >= 3)
    store.close()
    assert caplog.text.count("cannot be written") == 1


def test_without_a_state_directory_nothing_is_kept() -> None:
    store = EnergyStore(None)
    assert store.load() is None
    store.start(lambda: USE)
    store.close()


def test_this_machine_has_its_clocks() -> None:
    now = moment()
    assert now.boot_id and now.mono_s > 0 and now.wall_s > 1.6e9
