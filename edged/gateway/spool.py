"""What one destination has not acknowledged yet, on disk, oldest first: messages in, the same messages out.

An SQLite file: what has been there for a second survives a kill at any moment, and all but the last seconds a power
failure. It is bounded in bytes: the oldest messages make room, and are counted. While the disk refuses to write, new
messages wait in memory. Payloads are compressed, since JSON's keys repeat: the same room holds twice as much.
"""

from __future__ import annotations

import logging
import sqlite3
import zlib
from collections import Counter, deque
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from edged import clock
from edged.errors import EdgedError

BYTES_IN_MEMORY: Final = 4 << 20
"""While nothing can be written, or before it is."""
HOLD_S: Final = 1.0
"""In memory first: what is acknowledged at once is never written, and flash is spared."""
FORGET_S: Final = 1.0
JOURNAL_BYTES: Final = 4 << 20
_OVERHEAD: Final = 100
"""Bytes of a message in memory beside its payload, about."""

_SIZES: Final = ("page_count", "freelist_count", "page_size")

log = logging.getLogger(__name__)


class Item(NamedTuple):
    """`id` names the message for good. `topic` is the bus's."""

    topic: str
    id: str
    payload: bytes


class Spooled(NamedTuple):
    """An item and its place in the queue."""

    number: int
    item: Item


class _Row(NamedTuple):
    number: int
    topic: str
    id: str
    packed: bytes


class Spool:
    """Made on one thread and then used on another one alone; `messages`, `used_bytes` and `dropped` are for any."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """`max_bytes` of disk, and a journal of a few megabytes beside it. EdgedError if the file cannot be used."""
        self._path, self._max_bytes = path, max_bytes
        self.dropped: Counter[str] = Counter(spool_full=0, disk=0)
        """items given up, by cause: `spool_full` made room for newer ones, `disk` could not be written"""
        self.messages = self.used_bytes = 0
        self._memory: deque[_Row] = deque()
        self._memory_bytes = 0
        self._done: set[int] = set()  # delivered, and on the disk still
        self._failing, self._write_ns, self._forget_ns = False, 0, 0
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._base, self._last, self._stored = self._open()
        except (sqlite3.Error, OSError) as error:
            raise EdgedError(
                f"cannot use the spool {path}: {error}", "make its directory writable, and run one gateway at a time"
            ) from error
        self._measure()

    def append(self, items: Iterable[Item]) -> None:
        """Keep them behind all others. Never fails; see `dropped`."""
        now_ns = clock.mono_ns()
        if not self._memory:
            self._write_ns = now_ns + int(HOLD_S * clock.NS_PER_S)
        for item in items:
            self._last += 1
            self._memory.append(_Row(self._last, item.topic, item.id, zlib.compress(item.payload, 1)))
            self._memory_bytes += _size(self._memory[-1])
        full = self._used() + self._memory_bytes > self._max_bytes
        if self._done and (full or now_ns >= self._forget_ns):
            self._forget()
        much = self._memory_bytes > BYTES_IN_MEMORY and not self._failing
        if self._memory and (much or now_ns >= self._write_ns):
            self._write()
        while self._memory_bytes > BYTES_IN_MEMORY:
            self._memory_bytes -= _size(self._memory.popleft())
            self.dropped["disk"] += 1
        self._measure()

    def first(self, count: int, after: int = 0) -> list[Spooled]:
        """The oldest items with a number above `after`, `count` at most."""
        found = self._base.execute(
            "SELECT number, topic, id, packed FROM message WHERE number > ? ORDER BY number LIMIT ?",
            (after, count + len(self._done)),
        )
        rows = [row for row in map(_Row._make, found) if row.number not in self._done]
        rows += [row for row in self._memory if row.number > after]
        return [Spooled(row.number, Item(row.topic, row.id, zlib.decompress(row.packed))) for row in rows[:count]]

    def remove(self, numbers: Iterable[int]) -> None:
        """Forget items that are delivered, or can never be; on the disk with an `append` after FORGET_S."""
        self._done.update(numbers)
        if self._memory:
            kept = [row for row in self._memory if row.number not in self._done]
            self._done -= {row.number for row in self._memory}
            self._memory, self._memory_bytes = deque(kept), sum(map(_size, kept))
        self._measure()

    def close(self) -> None:
        if self._memory:
            self._write()
        self._forget()
        self._base.close()

    def _forget(self) -> None:
        self._forget_ns = clock.mono_ns() + int(FORGET_S * clock.NS_PER_S)
        try:
            with self._base:
                deleted = self._base.executemany(
                    "DELETE FROM message WHERE number = ?", [(number,) for number in self._done]
                ).rowcount
        except sqlite3.Error as error:
            self._report(error)
        else:
            self._stored -= max(0, deleted)  # -1 of no numbers
            self._done.clear()

    def _write(self) -> None:
        """Move what is in memory to the disk, and the oldest out if it is too much."""
        stored, dropped = self._stored + len(self._memory), 0
        try:
            with self._base:
                self._base.executemany("INSERT INTO message VALUES (?, ?, ?, ?)", self._memory)
                while stored > dropped and self._used() > self._max_bytes:
                    dropped += self._base.execute(
                        "DELETE FROM message WHERE number IN (SELECT number FROM message ORDER BY number LIMIT ?)",
                        (max(1, stored // 100),),
                    ).rowcount
        except sqlite3.Error as error:
            self._report(error)
            return
        self._stored = stored - dropped
        self.dropped["spool_full"] += dropped
        self._memory.clear()
        self._memory_bytes = 0
        if self._failing:
            log.info("the spool %s can be written again", self._path)
            self._failing = False

    def _report(self, error: sqlite3.Error) -> None:
        self._write_ns = clock.mono_ns() + int(HOLD_S * clock.NS_PER_S)
        if not self._failing:
            log.error("cannot write the spool %s: %s; new messages wait in memory", self._path, error)
            self._failing = True

    def _measure(self) -> None:
        self.messages = max(0, self._stored + len(self._memory) - len(self._done))
        self.used_bytes = self._used() + self._memory_bytes

    def _used(self) -> int:
        """Bytes of the disk, without the journal and without pages that are free for the next messages."""
        pages, free, size = (self._base.execute(f"PRAGMA {name}").fetchone()[0] for name in _SIZES)
        used: int = (pages - free) * size
        return used

    def _open(self) -> tuple[sqlite3.Connection, int, int]:
        try:
            return _connect(self._path)
        except sqlite3.OperationalError:
            raise  # locked, or not writable
        except sqlite3.DatabaseError as error:
            aside = self._path.with_suffix(".broken")
            self._path.replace(aside)
            self._path.with_name(self._path.name + "-wal").unlink(missing_ok=True)
            log.error("the spool %s was damaged (%s) and is now %s; its messages are lost", self._path, error, aside)
            return _connect(self._path)


def _size(row: _Row) -> int:
    return len(row.packed) + _OVERHEAD


def _connect(path: Path) -> tuple[sqlite3.Connection, int, int]:
    """Also the last number, and how many messages there are: counting reads every page, so damage is found here."""
    base = sqlite3.connect(path, timeout=0.0, isolation_level="IMMEDIATE", check_same_thread=False)
    try:
        base.execute("PRAGMA locking_mode = EXCLUSIVE")  # a second gateway must not send the same
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("PRAGMA synchronous = NORMAL")  # no waiting for the disk at each message
        base.execute(f"PRAGMA journal_size_limit = {JOURNAL_BYTES}")
        with base:
            base.execute(
                "CREATE TABLE IF NOT EXISTS message (number INTEGER PRIMARY KEY, topic TEXT, id TEXT, packed BLOB)"
            )
            base.execute("DELETE FROM message WHERE number < 0")  # takes the lock now
        last, stored = base.execute("SELECT max(number), count(*) FROM message").fetchone()
    except BaseException:
        base.close()
        raise
    return base, last or 0, stored
