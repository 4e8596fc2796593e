"""Log records in, journal entries out, with fields to filter by: `journalctl -u edged EDGED_CAMERA=gate`. Any thread.

A record's fields are the upper-case keys of its `extra`: `log.warning("...", extra={"EDGED_CAMERA": name})`. They go
through systemd-python where it is installed, and else by the journal's native protocol: one datagram of fields, or,
when that is too large for the socket, the descriptor of a sealed memory file that holds them. Where stderr is not the
journal, or the journal does not take them, lines go to stderr, for systemd with their `<priority>`.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import logging
import os
import queue
import re
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, TextIO

SOCKET: Final = Path("/run/systemd/journal/socket")
SEND_TIMEOUT_S: Final = 0.5
"""A journal that does not keep up must not hold the daemon for longer; the line goes to stderr then."""
QUEUE: Final = 1000
FINISH_S: Final = 1.0
IDENTIFIER: Final = "edged"

_FIELD: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")  # what journald takes from us: no leading underscore
_PRIORITY: Final = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
"""journald reads no other file: this one cannot change while it does."""

Fields = Mapping[str, str]
Send = Callable[[Fields], None]
"""Hands one entry over. Raises OSError."""


@contextlib.contextmanager
def logging_to(stream: TextIO | None = None, environ: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Everything from INFO on: into the journal when `stream` (stderr) is the journal's, else to it, with the time.

    Lines are written by the thread "journal", so that a journal which hangs costs lines, and never a frame.
    """
    stderr = sys.stderr if stream is None else stream
    handler: logging.Handler
    if goes_to_journal(stderr, environ):
        handler = JournalHandler(_open_sender(), stderr)
    else:
        handler = logging.StreamHandler(stderr)
        handler.setFormatter(_LineFormatter())
    waiting = _Waiting(handler)
    root = logging.getLogger()
    before = root.level
    root.addHandler(waiting)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.setLevel(before)
        root.removeHandler(waiting)
        waiting.finish()
        handler.close()


class _Waiting(logging.Handler):
    """Records on their way to the thread that writes them: at most QUEUE, and what is too many is counted."""

    def __init__(self, target: logging.Handler) -> None:
        super().__init__()
        self._target = target
        self._queue: queue.Queue[logging.LogRecord | None] = queue.Queue(QUEUE)
        self._lost = 0
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            record.msg, record.args = record.getMessage(), None  # as things are now: arguments may change later
            self._queue.put_nowait(record)
        except queue.Full:
            self._lost += 1
        except Exception:  # arguments that do not fit the text: who logs must not pay for it
            self.handleError(record)

    def _write(self) -> None:
        while (record := self._queue.get()) is not None:
            if self._lost:
                lost, self._lost = self._lost, 0
                text = f"{lost} log lines were lost: the journal did not take them in time"
                self._target.handle(logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None))
            try:
                self._target.handle(record)
            except Exception:  # this line is lost, and those after it are written
                self._lost += 1

    def finish(self) -> None:
        """Write what waits, for FINISH_S at most."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=FINISH_S)
        self._thread.join(FINISH_S)


def goes_to_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """systemd names the device and inode of the journal's stream, since a child may have redirected its stderr."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class JournalHandler(logging.Handler):
    """Entries through `send`; without one, or while it fails, lines with `<priority>` on stderr."""

    def __init__(self, send: Send | None, stderr: TextIO) -> None:
        super().__init__()
        self._send = send
        self._stderr = stderr
        self._lines = _PriorityFormatter()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._send is not None:
                try:
                    self._send(fields_of(record))
                    return
                except OSError as error:
                    self._stderr.write(f"<4>the journal takes no fields now: {error}\n")
            self._stderr.write(self._lines.format(record) + "\n")
            self._stderr.flush()
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        if isinstance(self._send, NativeSender):
            self._send.close()
        super().close()


def fields_of(record: logging.LogRecord) -> dict[str, str]:
    """The journal fields of a record."""
    fields = {
        "MESSAGE": printable(record.getMessage()),
        "PRIORITY": str(_PRIORITY.get(record.levelno, 6)),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "LOGGER": record.name,
        "THREAD_NAME": record.threadName or "",
        "CODE_FILE": record.pathname,
        "CODE_LINE": str(record.lineno),
        "CODE_FUNC": record.funcName or "",
    }
    if record.exc_info and record.exc_info[0] is not None:
        text = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        fields["MESSAGE"] += "\n" + text
        fields["EXCEPTION_INFO"] = text
    for key, value in vars(record).items():
        if _FIELD.fullmatch(key) and key not in fields and value is not None:
            fields[key] = printable(str(value))
    return fields


def printable(text: str) -> str:
    """One line, even if a camera or a library put line breaks into it."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def encode(fields: Fields) -> bytes:
    """The native protocol: KEY=value, or for a value of several lines KEY, its length in 64 bits and the bytes."""
    parts = []
    for key, text in fields.items():
        value = text.encode("utf-8", "replace")
        if b"\n" in value:
            parts.append(key.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n")
        else:
            parts.append(key.encode() + b"=" + value + b"\n")
    return b"".join(parts)


class NativeSender:
    """The journal's own socket. One per process: a sendmsg is atomic, so any thread may send."""

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(SEND_TIMEOUT_S)

    def __call__(self, fields: Fields) -> None:
        entry = encode(fields)
        try:
            self._socket.sendto(entry, self._path)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            self._send_file(entry)

    def _send_file(self, entry: bytes) -> None:
        """An entry that is too large for a datagram, as a sealed memory file whose descriptor is sent."""
        descriptor = os.memfd_create("edged-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            _write_all(descriptor, entry)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
            self._socket.sendmsg([b""], [rights], 0, self._path)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        self._socket.close()


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _open_sender() -> Send | None:
    """systemd-python's, else our own; None where the journal has no socket."""
    if not SOCKET.exists():
        return None
    with contextlib.suppress(ImportError, AttributeError):  # not installed, or another package of this name
        from systemd import journal  # type: ignore[import-not-found, attr-defined, unused-ignore]

        return _through_library(journal.sendv)
    return NativeSender()


def _through_library(sendv: Callable[..., object]) -> Send:
    def send(fields: Fields) -> None:
        sendv(*(key.encode() + b"=" + text.encode("utf-8", "replace") for key, text in fields.items()))

    return send


class _LineFormatter(logging.Formatter):
    """One printable line a record; a traceback keeps its lines."""

    def __init__(self, layout: str = "%(asctime)s %(levelname)-7s %(message)s") -> None:
        super().__init__(layout)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = printable(record.message)
        return super().formatMessage(record)


class _PriorityFormatter(_LineFormatter):
    """Each line with its `<priority>`, which journald takes off again."""

    def __init__(self) -> None:
        super().__init__("%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_PRIORITY.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


def fields(**named: str | float | None) -> dict[str, str]:
    """`extra` of a line: fields(camera="gate", variant=None) -> {"EDGED_CAMERA": "gate"}."""
    return {f"EDGED_{name.upper()}": str(value) for name, value in named.items() if value is not None}
