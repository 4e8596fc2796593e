"""Fields reach a journal that speaks the native protocol, over real sockets; what it does not take goes to stderr."""

from __future__ import annotations

import array
import contextlib
import fcntl
import io
import json
import logging
import os
import socket
import struct
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged import journal
from edged.journal import JournalHandler, NativeSender, encode, fields, fields_of


def decode(entry: bytes) -> dict[str, str]:
    """What journald makes of an entry."""
    found = {}
    while entry:
        head, _, rest = entry.partition(b"\n")
        key, equals, value = head.partition(b"=")
        if not equals:
            (length,) = struct.unpack("<Q", rest[:8])
            value, rest = rest[8 : 8 + length], rest[8 + length + 1 :]
        found[key.decode()] = value.decode()
        entry = rest
    return found


class Journald:
    """The journal's end of its socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(5)
        self.files = 0

    def entry(self) -> dict[str, str]:
        data, rights, _, _ = self.socket.recvmsg(1 << 20, socket.CMSG_SPACE(4))
        if not rights:
            return decode(data)
        assert data == b""
        self.files += 1
        (descriptor,) = array.array("i", rights[0][2])
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        assert fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) == seals, "journald refuses a file that may still change"
        with os.fdopen(descriptor, "rb") as file:
            return decode(os.pread(file.fileno(), os.fstat(descriptor).st_size, 0))


@contextlib.contextmanager
def handler_to(path: Path, stderr: io.StringIO | None = None) -> Iterator[JournalHandler]:
    handler = JournalHandler(NativeSender(path), stderr or io.StringIO())
    yield handler
    handler.close()


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    it = Journald(tmp_path / "socket")
    yield it
    it.socket.close()


def record(text: str, level: int = logging.INFO, **extra: Any) -> logging.LogRecord:
    return logging.getLogger("edged.test").makeRecord("edged.test", level, __file__, 7, text, (), None, "f", extra)


def test_a_record_becomes_an_entry_with_its_fields(journald: Journald) -> None:
    with handler_to(journald.path) as handler:
        handler.handle(
            record("camera gate is stalled", logging.WARNING, **fields(camera="gate", variant=None, power_w=12.5))
        )
    entry = journald.entry()
    assert entry["MESSAGE"] == "camera gate is stalled" and entry["PRIORITY"] == "4"
    assert entry["EDGED_CAMERA"] == "gate" and entry["EDGED_POWER_W"] == "12.5"
    assert "EDGED_VARIANT" not in entry, "unknown is not a value"
    assert entry["SYSLOG_IDENTIFIER"] == "edged" and entry["LOGGER"] == "edged.test"
    assert entry["CODE_LINE"] == "7" and entry["THREAD_NAME"] == threading.current_thread().name


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.DEBUG, "7"), (logging.INFO, "6"), (logging.WARNING, "4"), (logging.ERROR, "3"), (logging.CRITICAL, "2")],
)
def test_levels_are_syslogs_priorities(level: int, priority: str) -> None:
    assert fields_of(record("x", level))["PRIORITY"] == priority


def test_what_a_camera_says_cannot_make_fields_of_its_own(journald: Journald) -> None:
    with handler_to(journald.path) as handler:
        handler.handle(
            record("x\n_UID=0\nPRIORITY=0", EDGED_CAMERA="a\nEDGED_VARIANT=b", _UID="0", lower="no", MESSAGE_ID=None)
        )
    entry = journald.entry()
    assert entry["MESSAGE"] == "x _UID=0 PRIORITY=0" and entry["EDGED_CAMERA"] == "a EDGED_VARIANT=b"
    assert entry["PRIORITY"] == "6" and not entry.keys() & {"_UID", "EDGED_VARIANT", "lower", "MESSAGE_ID"}


@given(st.dictionaries(st.from_regex(r"[A-Z][A-Z0-9_]{0,20}", fullmatch=True), st.text(), min_size=1))
def test_any_text_survives_the_protocol(named: dict[str, str]) -> None:
    expected = {key: text.encode("utf-8", "replace").decode() for key, text in named.items()}
    assert decode(encode(named)) == expected


def test_a_traceback_keeps_its_lines(journald: Journald) -> None:
    try:
        raise ValueError("in the decoder")
    except ValueError:
        reported = record("failed", logging.ERROR)
        reported.exc_info = sys.exc_info()
    with handler_to(journald.path) as handler:
        handler.handle(reported)
    entry = journald.entry()
    assert entry["MESSAGE"].startswith("failed\nTraceback") and entry["EXCEPTION_INFO"].endswith("in the decoder")


def test_a_message_too_large_for_a_datagram_goes_as_a_sealed_file(journald: Journald) -> None:
    send = NativeSender(journald.path)
    text = "0123456789abcdef" * 100_000
    send({"MESSAGE": text, "EDGED_CAMERA": "gate"})
    assert journald.entry() == {"MESSAGE": text, "EDGED_CAMERA": "gate"} and journald.files == 1
    send({"MESSAGE": "small again"})
    assert journald.entry() == {"MESSAGE": "small again"} and journald.files == 1
    send.close()


def test_a_journal_that_is_gone_costs_fields_and_no_lines(tmp_path: Path) -> None:
    stderr = io.StringIO()
    with handler_to(tmp_path / "gone", stderr) as handler:
        handler.handle(record("first", logging.ERROR))
        reported = stderr.getvalue().splitlines()
        assert reported[0].startswith("<4>the journal takes no fields now: ") and reported[1:] == ["<3>first"]
        journald = Journald(tmp_path / "gone")
        handler.handle(record("second"))
    assert journald.entry()["MESSAGE"] == "second", "a journal that starts again is used again"
    journald.socket.close()


def test_a_journal_that_hangs_holds_the_sender_for_a_bounded_time(journald: Journald) -> None:
    stderr = io.StringIO()
    begin = time.monotonic()
    with handler_to(journald.path, stderr) as handler:
        while not stderr.getvalue() and time.monotonic() < begin + 20:
            handler.handle(record("nobody reads"))
    assert "timed out" in stderr.getvalue()


def test_systemds_own_library_is_used_where_it_is_installed(
    journald: Journald, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[bytes, ...]] = []
    package = types.ModuleType("systemd")
    package.journal = types.SimpleNamespace(sendv=lambda *entry: sent.append(entry))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "systemd", package)
    monkeypatch.setattr(journal, "SOCKET", journald.path)
    send = journal._open_sender()
    assert send is not None
    send({"MESSAGE": "a\nb", "EDGED_CAMERA": "gate"})
    assert sent == [(b"MESSAGE=a\nb", b"EDGED_CAMERA=gate")]


def test_without_that_library_the_socket_is_used_and_without_a_socket_stderr(
    journald: Journald, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "systemd", types.ModuleType("systemd"))  # another package of this name
    monkeypatch.setattr(journal, "SOCKET", journald.path)
    sender = journal._open_sender()
    assert isinstance(sender, NativeSender)
    sender.close()
    monkeypatch.setattr(journal, "SOCKET", tmp_path / "gone")
    assert journal._open_sender() is None


def test_logging_never_waits_for_a_reader_and_tells_what_it_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that hangs: the loop logs on, at full speed."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream, os.fdopen(reading) as reader:
        with journal.logging_to(stream, {}):
            for n in range(journal.QUEUE * 3):
                logging.getLogger("edged.test").info("line %d of many, long enough to fill a pipe %s", n, "x" * 100)
            lines: list[str] = []
            first = f"line 0 of many, long enough to fill a pipe {'x' * 100}\n"
            # which of the two comes first depends on when the writer's thread had its turn
            while not (any("log lines were lost" in line for line in lines) and any(x.endswith(first) for x in lines)):
                logging.getLogger("edged.test").info("and on")
                lines.append(reader.readline())
            drain = threading.Thread(target=lambda: reader.read(), daemon=True)
            drain.start()
        stream.close()
        drain.join(5)
    reported = [line for line in lines if "log lines were lost" not in line]
    assert reported[0].endswith(first)


def test_a_terminal_gets_times_and_the_journals_stream_priorities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SOCKET", tmp_path / "gone")
    for name, is_journal in (("terminal", False), ("stream", True)):
        with (tmp_path / name).open("w+") as stream:
            found = os.fstat(stream.fileno())
            place = f"{found.st_dev}:{found.st_ino}" if is_journal else "1:2"
            with journal.logging_to(stream, {"JOURNAL_STREAM": place}):
                logging.getLogger("edged.test").warning("a\nb")
            reported = (tmp_path / name).read_text()
            assert reported == "<4>a b\n" if is_journal else reported.endswith(" WARNING a b\n")


def test_a_line_costs_little() -> None:
    def one_s() -> float:
        begin = time.perf_counter()
        for _ in range(10):
            encode(fields_of(record("camera gate is live", logging.INFO, **fields(camera="gate"))))
        return (time.perf_counter() - begin) / 10

    assert min(one_s() for _ in range(100)) < 1e-3  # the least of many: what the machine does beside it does not count


def test_fields_can_be_read_by_a_program() -> None:
    assert json.loads(json.dumps(fields(camera="gate", fps=15.0))) == {"EDGED_CAMERA": "gate", "EDGED_FPS": "15.0"}


def test_a_line_that_cannot_be_formatted_costs_neither_its_thread_nor_the_next_line() -> None:
    stream = io.StringIO()
    waiting = journal._Waiting(logging.StreamHandler(stream))
    for text, arguments in (("%d", ("no number",)), ("the next line", None)):
        waiting.handle(logging.LogRecord("edged", logging.INFO, __file__, 0, text, arguments, None))
    waiting.finish()
    assert stream.getvalue() == "the next line\n"
