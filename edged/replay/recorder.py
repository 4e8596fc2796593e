"""What passed the governor's door and what the sensors said, as a bounded ring of log files that replay.

The tap runs on the engine loop's thread and only puts a reference into a bounded queue; freezing, packing and writing
are the thread "recorder"'s. A full queue costs records, which the log itself says; a full disk ends the recording with
an event, never the daemon. Each file begins with the governor's whole state, so the last ones replay without the first.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any, Final

import numpy as np

import edged
from edged import clock
from edged.bus.schema import Recording
from edged.config import RecordConfig
from edged.errors import EdgedError, UsageError
from edged.governor.helm import Answer, Asked
from edged.governor.standing import State
from edged.replay import record
from edged.replay.log import Packer
from edged.replay.record import Gap, Header, Sampled, Snapshot

QUEUE: Final = 4096
"""Some ten seconds of four fast cameras: longer than a flash card holds its breath."""
PARTS: Final = 8
"""Files in a full ring: so much of it goes at once when the oldest is removed."""
FLUSH_NS: Final = clock.NS_PER_S
FLUSH_RECORDS: Final = 2000
SYNC_NS: Final = 5 * clock.NS_PER_S
"""What a power cut may cost."""
SAY_EVERY_NS: Final = 60 * clock.NS_PER_S
PATTERN: Final = f"edged-{'[0-9]' * 8}.log"
"""Nothing else in the directory is ever read or removed."""

log = logging.getLogger("edged.replay.recorder")

Event = Callable[[str, str], None]


@dataclass(frozen=True)
class _Passed:
    at_ns: int
    asked: Asked | Sampled
    answer: Answer
    state: State | None
    lost: int
    """records lost just before this one"""


class Recorder:
    def __init__(self, directory: Path, max_mb: float, bundle: str, event: Event, estimated: bool = False) -> None:
        """`bundle`: the manifest's digest. `event` is called with (kind, sentence), from the recorder's thread."""
        self._directory, self._max_bytes = directory, int(max_mb * 1e6)
        self._bundle, self._event, self._estimated = bundle, event, estimated
        self._queue: queue.Queue[_Passed | None] = queue.Queue(QUEUE)
        self._lost = self.dropped = 0
        self._said_ns = -SAY_EVERY_NS
        self._why: str | None = None
        self._file: RawIOBase | None = None
        self._packer = Packer()
        self._state: State | None = None
        self._size = self._number = 0
        self._older = 0
        self._flushed_ns = self._synced_ns = 0
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    @classmethod
    def open(cls, config: RecordConfig, bundle: str, event: Event, estimated: bool = False) -> Recorder | None:
        """None if nothing is to be recorded. EdgedError if the directory cannot be written."""
        directory = directory_of(config)
        if directory is None:
            return None
        try:
            directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            if not os.access(directory, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise EdgedError(
                f"cannot record into {directory}: {error.strerror}",
                "make it writable for this user, name another [record] path, or set [record] max_mb = 0",
            ) from error
        return cls(directory, config.max_mb, bundle, event, estimated)

    def start(self) -> None:
        self._thread.start()

    def tap(self, now_ns: int, asked: Asked, answer: Answer, state: State) -> None:
        """For the Helm, on its thread: never waits, never raises."""
        self._put(_Passed(now_ns, asked, answer, state, self._lost))

    def sample(self, values: Mapping[str, Any], now_ns: int) -> None:
        """A sample as published. On the Helm's thread too, so that records keep their order."""
        self._put(_Passed(now_ns, Sampled(json.dumps(values)), None, None, self._lost))

    def close(self, timeout_s: float = 2.0) -> bool:
        """Write what waits and end; False if the disk hangs: the thread is left behind."""
        if self._thread.ident is None:
            return True
        try:
            self._queue.put(None, timeout=timeout_s)
        except queue.Full:
            return False
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def status(self) -> Recording:
        """Any thread."""
        megabytes = (self._older + self._size) / 1e6
        return Recording(str(self._directory), round(megabytes, 3), self.dropped, self._why)

    def _put(self, passed: _Passed) -> None:
        if self._why is not None:
            return
        try:
            self._queue.put_nowait(passed)
            self._lost = 0
        except queue.Full:
            self._lost += 1
            self.dropped += 1

    # --- the recorder's thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:  # whatever the disk does, the daemon lives; what it was is told
            reason = error.strerror or str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
            self._why = f"cannot write to {self._directory}: {reason}"
            log.error("recording stopped: %s", self._why)
            self._event("recording_stopped", f"recording stopped: {self._why}; the daemon goes on without")
        finally:
            if self._file is not None:
                self._file.close()

    def _work(self) -> None:
        while True:
            try:
                passed = self._queue.get(timeout=FLUSH_NS / clock.NS_PER_S)
            except queue.Empty:
                self._write(clock.mono_ns())
                continue
            if passed is None:
                self._write(clock.mono_ns())
                self._sync()
                return
            self._take(passed)
            now_ns = clock.mono_ns()
            if now_ns - self._flushed_ns >= FLUSH_NS or self._packer.waiting >= FLUSH_RECORDS:
                self._write(now_ns)
            if now_ns - self._synced_ns >= SYNC_NS:
                self._sync()
                self._synced_ns = now_ns

    def _take(self, passed: _Passed) -> None:
        if self._file is None or self._size >= self._max_bytes / PARTS:
            self._next_file(passed.at_ns)
        if passed.lost:
            self._packer.add(passed.at_ns, Gap(passed.lost))
            self._tell_lost()
        self._packer.add(passed.at_ns, passed.asked, passed.answer)
        if passed.state is not None:
            if passed.lost:
                self._packer.add(passed.at_ns, Snapshot(passed.state))
            self._state = passed.state

    def _next_file(self, at_ns: int) -> None:
        """Close this file, make room, and begin the next with the state so far."""
        if self._file is not None:
            self._write(at_ns)
            self._sync()
            self._file.close()
        self._make_room()
        path = self._directory / f"edged-{self._number:08d}.log"
        self._file = path.open("xb", buffering=0)
        self._packer, self._size = Packer(), 0
        self._append(self._packer.begin(_header(self._bundle, at_ns, self._number, self._estimated)))
        if self._state is not None:
            self._packer.add(at_ns, Snapshot(self._state))

    def _make_room(self) -> None:
        """Remove the oldest files until one more part fits. Numbers, not dates: a device may not know the date."""
        files = sorted(self._directory.glob(PATTERN))
        sizes = [file.stat().st_size for file in files]
        while files and sum(sizes) > self._max_bytes * (PARTS - 1) / PARTS:
            files.pop(0).unlink()
            sizes.pop(0)
        self._older = sum(sizes)
        last = int(files[-1].stem.removeprefix("edged-")) if files else 0
        self._number = max(self._number, last) + 1

    def _write(self, now_ns: int) -> None:
        self._flushed_ns = now_ns
        if self._file is not None:
            self._append(self._packer.frame())

    def _append(self, frame: bytes) -> None:
        assert self._file is not None
        try:
            _write_all(self._file, frame)
        except OSError:
            self._file.truncate(self._size)  # a frame is there whole or not at all
            raise
        self._size += len(frame)

    def _sync(self) -> None:
        if self._file is not None:
            os.fdatasync(self._file.fileno())

    def _tell_lost(self) -> None:
        now_ns = clock.mono_ns()
        if now_ns - self._said_ns >= SAY_EVERY_NS:
            self._said_ns = now_ns
            self._event("recording_dropped", f"the disk is slow: {self.dropped} records were not written so far")


class LogFile:
    """One file, written by the caller's own thread: for runs that have the time. Not durable until closed."""

    def __init__(self, path: Path, bundle: str, estimated: bool = False) -> None:
        """UsageError if it cannot be opened."""
        try:
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}", "name another file") from error
        self._path = path
        self._packer = Packer()
        self._head = self._packer.begin(_header(bundle, 0, 1, estimated))

    def tap(self, now_ns: int, asked: Asked, answer: Answer, state: State) -> None:
        """EdgedError if the disk takes no more."""
        self._packer.add(now_ns, asked, answer)
        if self._packer.waiting >= FLUSH_RECORDS:
            self._append(self._packer.frame())

    def __enter__(self) -> LogFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        with self._file:
            if kind is None:
                self._append(self._packer.frame())

    def _append(self, frame: bytes) -> None:
        try:
            _write_all(self._file, self._head + frame)
            self._head = b""
        except OSError as error:
            raise EdgedError(f"{self._path} cannot be written: {error.strerror}", "name another file") from error


def _write_all(file: RawIOBase, frame: bytes) -> None:
    rest = memoryview(frame)
    while rest:
        rest = rest[file.write(rest) or 0 :]


def _header(bundle: str, at_ns: int, number: int, estimated: bool) -> Header:
    opened_s = clock.wall_ns() / clock.NS_PER_S
    return Header(
        record.VERSION, record.SHAPE, edged.__version__, governor_digest(), machine(), bundle, opened_s, at_ns, number,
        estimated,
    )  # fmt: skip


def directory_of(config: RecordConfig) -> Path | None:
    """Where to record: `[record] path`, else the service's state directory, else nowhere."""
    if config.max_mb <= 0:
        return None
    if config.path is not None:
        return Path(config.path)
    state = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    return Path(state) / "record" if state else None


def machine() -> str:
    """What the last digits of a number depend on."""
    libc = " ".join(platform.libc_ver())
    return f"{platform.machine()}, {libc}, Python {platform.python_version()}, NumPy {np.__version__}"


def governor_digest() -> str:
    """Of the governor's source: a log replays byte for byte on the governor that wrote it."""
    digest = hashlib.sha256()
    for path in sorted((Path(__file__).parent / "governor").glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
