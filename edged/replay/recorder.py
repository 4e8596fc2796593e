"""Every call to the governor and every sample of the sensors, as a bounded ring of log files that replay.

`on_call` runs on the engine loop's thread and only puts a reference into a bounded queue; freezing, packing and writing
are the thread "recorder"'s. A full queue costs records, which the log itself says. While the disk takes no more,
records are counted and dropped, with an event at its beginning and its end. Each file begins with the governor's whole
state, so the last ones replay without the first: the recorder asks for a snapshot, and the next call brings one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import queue
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
from edged.errors import EdgedError, UsageError, encodable
from edged.governor.governor import Governor
from edged.governor.messages import Answer, Request
from edged.governor.state import State
from edged.replay import record
from edged.replay.log import Packer
from edged.replay.record import Gap, Header, Sampled, Snapshot
from edged.worker import Worker

QUEUE: Final = 4096
"""Some ten seconds of four fast cameras: longer than a flash card holds its breath."""
PARTS: Final = 8
"""Files in a full ring: so much of it goes at once when the oldest is removed."""
FLUSH_NS: Final = clock.NS_PER_S
FLUSH_RECORDS: Final = 2000
SYNC_NS: Final = 5 * clock.NS_PER_S
"""What is lost at most on a power failure."""
RETRY_NS: Final = 5 * clock.NS_PER_S
RETRY_AT_MOST_NS: Final = 300 * clock.NS_PER_S
"""After the disk took no more; twice as long after each attempt that fails soon."""
MIN_BYTES: Final = 30_000
"""Of all files of the ring: less would hold little but the governor's state."""
SAY_EVERY_NS: Final = 60 * clock.NS_PER_S
PATTERN: Final = f"edged-{'[0-9]' * 8}.log"
"""Nothing else in the directory is ever read or removed."""

log = logging.getLogger("edged.replay.recorder")

Event = Callable[[str, str], None]


@dataclass(frozen=True)
class _Call:
    """`snapshot`: the state after it, if the recorder wants one. `lost`: records lost just before this one."""

    at_ns: int
    request: Request | Sampled
    answer: Answer
    snapshot: State | None
    lost: int


class Recorder:
    def __init__(self, directory: Path, max_mb: float, bundle: str, event: Event, estimated: bool = False) -> None:
        """`bundle`: the manifest's digest. `event` is called with (kind, sentence), from the recorder's thread."""
        self._directory, self._max_bytes = directory, max(MIN_BYTES, int(max_mb * 1e6))
        self._bundle, self._event, self._estimated = bundle, event, estimated
        self._queue: queue.Queue[_Call] = queue.Queue(QUEUE)
        self._lost = self.dropped = 0
        self._said_ns = -SAY_EVERY_NS
        self._problem: str | None = None
        self._gap = 0  # records that the recorder's thread has lost since the last one written
        self._retry_ns = self._resumed_ns = 0
        self._pause_ns = RETRY_NS
        self._file: RawIOBase | None = None
        self._packer = Packer()
        self._wants_snapshot = False
        self._size = self._number = self._head_bytes = 0
        self._older = 0
        self._flushed_ns = self._synced_ns = 0
        self.worker = Worker("recorder", self._turn)

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
        self.worker.start()

    def on_call(self, now_ns: int, request: Request, answer: Answer, governor: Governor) -> None:
        """For the Governor, on its thread: never waits, never raises."""
        snapshot = governor.snapshot() if self._wants_snapshot else None
        if self._put(_Call(now_ns, request, answer, snapshot, self._lost)) and snapshot is not None:
            self._wants_snapshot = False

    def sample(self, values: Mapping[str, Any], now_ns: int) -> None:
        """A sample as published. On the Governor's thread too, so that records keep their order."""
        self._put(_Call(now_ns, Sampled(json.dumps(values)), None, None, self._lost))

    def close(self, timeout_s: float = 2.0) -> bool:
        """Write what waits and end; False if the disk hangs: the thread is left behind."""
        if not self.worker.stop(timeout_s):
            return False
        if self._problem is None:
            with contextlib.suppress(OSError):  # what the disk does not take now is lost with the process
                while not self._queue.empty():
                    self._take(self._queue.get_nowait())
                self._write(clock.mono_ns())
                self._sync()
        if self._file is not None:
            self._file.close()
            self._file = None
        return True

    @property
    def status(self) -> Recording:
        """Any thread."""
        megabytes = (self._older + self._size) / 1e6
        return Recording(encodable(str(self._directory)), round(megabytes, 3), self.dropped, self._problem)

    def _put(self, call: _Call) -> bool:
        try:
            if self._problem is not None:
                raise queue.Full
            self._queue.put_nowait(call)
        except queue.Full:
            self._lost += 1
            self.dropped += 1
            self._wants_snapshot = True
            return False
        self._lost = 0
        return True

    # --- the recorder's thread ----------------------------------------------------------------------------------------

    def _turn(self) -> None:
        try:
            if self._problem is None:
                self._record()
            elif clock.mono_ns() >= self._retry_ns:
                self._resume()
            else:
                self.worker.stopping.wait(min(FLUSH_NS, RETRY_NS) / clock.NS_PER_S)
        except Exception as error:  # whatever the disk does, the daemon lives; what it was is reported
            reason = error.strerror or str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
            self._fail(encodable(f"cannot write to {self._directory}: {reason}"))

    def _record(self) -> None:
        """The next call in the queue, or a second without one."""
        with contextlib.suppress(queue.Empty):
            self._take(self._queue.get(timeout=FLUSH_NS / clock.NS_PER_S))
        now_ns = clock.mono_ns()
        if now_ns - self._flushed_ns >= FLUSH_NS or self._packer.waiting >= FLUSH_RECORDS:
            self._write(now_ns)
        if now_ns - self._synced_ns >= SYNC_NS:
            self._sync()
            self._synced_ns = now_ns

    def _fail(self, problem: str) -> None:
        """Give up this file; records are counted and dropped until `_resume`."""
        first, self._problem = self._problem is None, problem
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
        self._gap += self._packer.waiting
        with contextlib.suppress(queue.Empty):
            while True:
                self._gap += 1 + self._queue.get_nowait().lost
        self._packer = Packer()
        now_ns = clock.mono_ns()
        soon = now_ns - self._resumed_ns < RETRY_AT_MOST_NS
        self._pause_ns = min(2 * self._pause_ns, RETRY_AT_MOST_NS) if soon else RETRY_NS
        self._retry_ns = now_ns + self._pause_ns
        if first:
            self.dropped += self._gap
            log.error("recording stopped: %s", problem)
            self._event("recording_stopped", f"recording stopped until the disk takes more: {problem}")

    def _resume(self) -> None:
        """Begin a new file: with a gap, and the state that the next call brings."""
        self._next_file(clock.mono_ns())
        self._sync()
        self._resumed_ns = clock.mono_ns()
        self._wants_snapshot = True
        self._problem = None
        log.info("recording again; %d records were not written so far", self.dropped)
        self._event("recording_resumed", f"recording again; {self.dropped} records were not written so far")

    def _take(self, call: _Call) -> None:
        if self._file is None:
            self._next_file(call.at_ns)
        if lost := call.lost + self._gap:
            self._gap = 0
            self._packer.add(call.at_ns, Gap(lost))
            self._report_lost()
        self._packer.add(call.at_ns, call.request, call.answer)
        full = self._size >= max(self._max_bytes / PARTS, 2 * self._head_bytes)
        if call.snapshot is not None:
            if full:
                self._next_file(call.at_ns)
            self._packer.add(call.at_ns, Snapshot(call.snapshot))
            if full:
                self._append(self._packer.frame())
                self._head_bytes = self._size
        elif full:
            self._wants_snapshot = True

    def _next_file(self, at_ns: int) -> None:
        """Close this file, make room, and begin the next."""
        if self._file is not None:
            self._write(at_ns)
            self._sync()
            self._file.close()
        self._make_room()
        path = self._directory / f"edged-{self._number:08d}.log"
        self._file = path.open("xb", buffering=0)
        self._packer, self._size = Packer(), 0
        self._append(self._packer.begin(_header(self._bundle, at_ns, self._number, self._estimated)))

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
            self._file.truncate(self._size)  # a frame is written completely or not at all
            raise
        self._size += len(frame)

    def _sync(self) -> None:
        if self._file is not None:
            os.fdatasync(self._file.fileno())

    def _report_lost(self) -> None:
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

    def on_call(self, now_ns: int, request: Request, answer: Answer, governor: Governor) -> None:
        """EdgedError if the disk takes no more."""
        self._packer.add(now_ns, request, answer)
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
        record.VERSION,
        record.SHAPE,
        edged.__version__,
        governor_digest(),
        machine(),
        bundle,
        opened_s,
        at_ns,
        number,
        estimated,
    )


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
    room = Path(__file__).parents[1] / "governor"
    for path in sorted(room.rglob("*.py")):
        digest.update(path.relative_to(room).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
