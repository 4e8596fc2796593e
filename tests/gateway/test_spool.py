"""The spool: in order, bounded, counted; it survives kills, a full disk and a damaged file."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edged.errors import EdgedError
from edged.gateway.spool import BYTES_IN_MEMORY, Item, Spool

WRITER = """
import itertools, sys
from pathlib import Path
from edged.gateway import spool as module
module.HOLD_S = 0
spool = module.Spool(Path(sys.argv[1]), 10**8)
for n in itertools.count():
    spool.append([module.Item("event", str(n), b"x" * 500)])
    print(n, flush=True)
"""


def item(n: int, size: int = 100) -> Item:
    return Item("event", f"r/event/{n}", os.urandom(size))  # which zlib cannot compress


def ids(spool: Spool) -> list[int]:
    return [int(one.item.id.rpartition("/")[2]) for one in spool.first(10**6)]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The disk is full as soon as a file is so large."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edged.gateway.spool.HOLD_S", 0.0)
    monkeypatch.setattr("edged.gateway.spool.FORGET_S", 0.0)


def test_what_is_acknowledged_at_once_is_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edged.gateway.spool.HOLD_S", 3600.0)
    spool = Spool(tmp_path / "s.db", 10**6)
    before = spool.used_bytes
    for n in range(1000):
        spool.append([item(n, 1000)])
        (one,) = spool.first(10)
        spool.remove([one.number])
    assert spool.messages == 0 and spool.used_bytes == before
    spool.append([item(1)])
    spool.close()
    again = Spool(tmp_path / "s.db", 10**6)
    assert again.messages == 1, "a proper end writes the rest"
    again.close()


def test_what_is_not_removed_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "spool" / "nats.db"
    spool = Spool(path, 10**6)
    items = [item(n) for n in range(10)]
    spool.append(items)
    spool.remove(one.number for one in spool.first(3))
    assert [one.item for one in spool.first(2, after=spool.first(1)[0].number)] == items[4:6]
    spool.close()
    again = Spool(path, 10**6)
    again.append([item(10)])
    assert [one.item for one in again.first(7)] == items[3:]
    assert ids(again) == list(range(3, 11)) and again.messages == 8
    assert path.parent.stat().st_mode & 0o077 == 0
    again.close()


def test_the_oldest_make_room_and_are_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.db", 10**6)
    for n in range(0, 4000, 10):
        spool.append([item(n + i, 1000) for i in range(10)])
    left = ids(spool)
    assert left == list(range(4000 - len(left), 4000)) and len(left) > 500
    assert spool.dropped == {"spool_full": 4000 - len(left), "disk": 0}
    assert spool.used_bytes <= 10**6
    assert (tmp_path / "s.db").stat().st_size < 1.3 * 10**6
    spool.append([item(4000, 2 * 10**6)])
    assert spool.messages == 0, "one that is larger than the spool goes too"
    spool.close()


def test_what_is_delivered_is_no_loss_when_room_is_made(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.db", 10**6)
    for n in range(0, 4000, 10):
        spool.append([item(n + i, 1000) for i in range(10)])
        spool.remove(one.number for one in spool.first(10))
    spool.append([])
    assert spool.messages == 0 and spool.dropped == {"spool_full": 0, "disk": 0}
    spool.close()


def test_a_killed_writer_leaves_all_that_it_stored(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "s.db")], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        stored = -1
        while stored < 200:
            stored = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        later = writer.stdout.read().split()
        stored = int(later[-1]) if later else stored
    spool = Spool(tmp_path / "s.db", 10**8)
    found = [int(one.item.id) for one in spool.first(10**6)]
    assert found[: stored + 1] == list(range(stored + 1)) and len(found) <= stored + 2
    spool.close()


def test_a_full_disk_keeps_new_messages_in_memory_and_loses_none_that_fit(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.db", 10**8)
    spool.append([item(n, 1000) for n in range(20)])
    with files_of_at_most(300_000):
        for n in range(20, 1020, 10):
            spool.append([item(n + i, 1000) for i in range(10)])
        assert ids(spool) == list(range(1020))
        spool.remove(one.number for one in spool.first(15))
        spool.remove(one.number for one in spool.first(1000)[-10:])
        assert ids(spool) == [*range(15, 1005), *range(1015, 1020)] and spool.messages == 995
    spool.append([item(1020, 1000)])
    spool.append([])
    assert ids(spool) == [*range(15, 1005), *range(1015, 1021)] and spool.messages == 996
    assert spool.dropped == {"spool_full": 0, "disk": 0}
    spool.close()
    again = Spool(tmp_path / "s.db", 10**8)
    assert again.messages == 996
    again.close()


def test_a_flood_within_the_second_goes_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edged.gateway.spool.HOLD_S", 3600.0)
    spool = Spool(tmp_path / "s.db", 10**8)
    for _ in range(2 * BYTES_IN_MEMORY // 100_000):
        spool.append([item(0, 10_000)] * 10)
    assert spool.dropped["disk"] == 0 and spool.messages == 2 * BYTES_IN_MEMORY // 100_000 * 10
    spool.close()


def test_memory_is_bounded_while_the_disk_is_full(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.db", 10**8)
    with files_of_at_most(100_000):
        for _ in range(3 * BYTES_IN_MEMORY // 100_000):
            spool.append([item(0, 10_000)] * 10)
    assert spool.dropped["disk"] > 0
    assert spool.used_bytes < BYTES_IN_MEMORY + 200_000
    assert spool.messages + spool.dropped["disk"] == 3 * BYTES_IN_MEMORY // 100_000 * 10
    spool.close()


def test_a_damaged_file_is_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "s.db").write_bytes(b"no database" * 500)
    spool = Spool(tmp_path / "s.db", 10**6)
    spool.append([item(1)])
    assert spool.messages == 1 and (tmp_path / "s.broken").read_bytes().startswith(b"no database")
    assert "was damaged" in caplog.text
    spool.close()


def test_damage_in_the_midst_of_a_file_is_found_at_the_start(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.db", 10**7)
    spool.append([Item("result/gate", f"run/result/gate/{n}", os.urandom(1000)) for n in range(500)])
    spool.close()
    content = bytearray((tmp_path / "s.db").read_bytes())
    for page in range(40, 60):
        content[page * 4096 : (page + 1) * 4096] = b"?" * 4096
    (tmp_path / "s.db").write_bytes(content)
    spool = Spool(tmp_path / "s.db", 10**7)
    assert spool.messages == 0 and (tmp_path / "s.broken").exists()
    spool.close()


def test_two_gateways_cannot_share_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.db", 10**6)
    with pytest.raises(EdgedError, match=r"s\.db: database is locked") as caught:
        Spool(tmp_path / "s.db", 10**6)
    assert "one gateway at a time" in caught.value.hint
    spool.close()


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EdgedError, match="spool"):
        Spool(tmp_path / "file" / "s.db", 10**6)
