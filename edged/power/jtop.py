"""jetson-stats, isolated in a child process that talks to jtop.service; this side reads its lines.

The library blocks without a time-out, cannot connect again after its service restarted, changes multiprocessing and
loads much of CUDA when it is imported: so a child (jtop_child.py) imports it, and is restarted when it sends nothing.
JSON lines come out of the child, untrusted until they are checked; requests for power modes go in. `JtopProvider` is
for the sampler's thread, a `JtopLink` for one thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from edged import clock
from edged.errors import EdgedError
from edged.power.jetson import ExternalReadings, SysfsProvider
from edged.power.provider import STALE_AFTER_INTERVALS, Sample

LONGEST_LINE: Final = 1 << 16
SILENT_S: Final = 10.0
"""The child ends itself when jtop gives it nothing new for 5 s; one that does not is killed."""
SILENT_INTERVALS: Final = 10
RETRY_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)

_Text = Annotated[str, Meta(max_length=200)]
_Number = Annotated[float, Meta(ge=-1e6, le=1e6)]


log = logging.getLogger(__name__)


class PowerMode(Struct, frozen=True):
    """`ready`: False if jtop knows that setting it takes a reboot."""

    name: _Text
    ready: bool


class Reading(Struct, frozen=True, tag="reading"):
    """One sample of jtop.service, stamped when it came. Modes, jetson_clocks and fan are absent where a board has none;
    `mode` is an index into `modes`."""

    mono_ns: int
    rails_w: dict[_Text, _Number | None]
    temperatures_c: dict[_Text, _Number | None]
    modes: Annotated[list[PowerMode], Meta(max_length=64)] = []
    mode: int | None = None
    mode_changing: bool = False
    clocks: _Text | None = None
    fan: _Text | None = None
    fans: Annotated[list[_Text], Meta(max_length=64)] = []


class Trouble(Struct, frozen=True, tag="trouble"):
    """Why the child ends, or why a request was not applied, and what to do about it."""

    problem: Annotated[str, Meta(max_length=1000)]
    hint: Annotated[str, Meta(max_length=1000)] = ""


class SetRequest(Struct, frozen=True, omit_defaults=True):
    """For the child: what to set. jtop answers nothing; the readings show what became of it."""

    mode: int | None = None
    clocks: bool | None = None
    fan: str | None = None


_line_decoder = msgspec.json.Decoder(Reading | Trouble)


class JtopLink:
    """The child, started. A context manager; EdgedError from `next` when it has ended."""

    def __init__(self, socket: Path, interval_s: float) -> None:
        self._buffer = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edged.power.jtop_child", str(socket), str(interval_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what the library prints; what matters comes as a line
            cwd="/",  # python -m looks there first
            bufsize=0,
        )
        assert self._process.stdout is not None and self._process.stdin is not None
        self._out, self._in = self._process.stdout.fileno(), self._process.stdin.fileno()
        self._poll = select.poll()  # select.select cannot wait for descriptors above 1023
        self._poll.register(self._out, select.POLLIN)
        os.set_blocking(self._out, False)
        os.set_blocking(self._in, False)

    def __enter__(self) -> JtopLink:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def next(self, timeout_s: float) -> Reading | None:
        """The next reading, None if none came in time; of several that wait, the newest. EdgedError when it is over."""
        end_ns = clock.mono_ns() + int(timeout_s * clock.NS_PER_S)
        newest: Reading | None = None
        while True:
            lines = self._lines()
            for line in lines:
                match decoded(line):
                    case Trouble() as trouble:
                        raise EdgedError(trouble.problem, trouble.hint)
                    case reading:
                        newest = reading
            left_s = (end_ns - clock.mono_ns()) / clock.NS_PER_S
            if newest is not None or left_s <= 0:
                return newest
            self._poll.poll(left_s * 1000)

    def send(self, request: SetRequest) -> None:
        try:
            os.write(self._in, msgspec.json.encode(request) + b"\n")
        except OSError as error:
            raise EdgedError(f"the jtop process takes no requests: {error.strerror}") from error

    def abandon(self) -> None:
        """From any thread: what waits for the child in `next` gives up at once."""
        self._process.kill()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _lines(self) -> list[bytes]:
        try:
            data = os.read(self._out, LONGEST_LINE)
        except BlockingIOError:
            return []
        self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\n")
        if len(self._buffer) > LONGEST_LINE:
            raise EdgedError("the jtop process sent a line without an end")
        if not data and not lines:
            raise EdgedError("the jtop process ended without a message")
        return lines


class JtopProvider:
    """Rails and temperatures as jtop.service has them; what it does not have, and all of it while it is away, from
    sysfs."""

    name = "jtop"

    def __init__(self, socket: Path, interval_s: float, sysfs: SysfsProvider) -> None:
        self._socket = socket
        self._interval_s = interval_s
        self._sysfs = sysfs
        self._link: JtopLink | None = None
        self._received_ns = 0
        self._start_ns = 0
        self._failures = 0
        self._reading: Reading | None = None
        self._problem = "has not answered yet"

    def read(self) -> Sample:
        now_ns = clock.mono_ns()
        try:
            self._receive(now_ns)
        except (EdgedError, OSError) as error:  # OSError: no process, no memory, no descriptor left
            self._lost(str(error), now_ns)
        reading = self._reading
        if reading is None or now_ns - reading.mono_ns > STALE_AFTER_INTERVALS * self._interval_s * clock.NS_PER_S:
            sample = self._sysfs.read()
            reason = f"jtop: {self._problem}; rails and temperatures are read from sysfs instead"
            return replace(sample, missing=(*sample.missing, reason))
        return self._sysfs.read_beside(
            ExternalReadings(self.name, reading.mono_ns, reading.rails_w, reading.temperatures_c)
        )

    def close(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
        self._sysfs.close()

    def _receive(self, now_ns: int) -> None:
        """Take the child's latest reading; start the child if there is none and its retry time has come."""
        if self._link is None:
            if now_ns >= self._start_ns:
                self._link, self._received_ns = JtopLink(self._socket, self._interval_s), now_ns
            return
        reading = self._link.next(0)
        if reading is not None:
            self._reading, self._received_ns, self._failures = reading, now_ns, 0
            self._problem = "gives nothing new"
        elif now_ns - self._received_ns > max(SILENT_S, SILENT_INTERVALS * self._interval_s) * clock.NS_PER_S:
            raise EdgedError("its process does not answer and was ended")

    def _lost(self, problem: str, now_ns: int) -> None:
        if problem != self._problem:
            log.warning("jtop: %s", problem)
        self._problem = problem
        if self._link is not None:
            with contextlib.suppress(OSError):
                self._link.close()
            self._link = None
        self._start_ns = now_ns + int(RETRY_S[min(self._failures, len(RETRY_S) - 1)] * clock.NS_PER_S)
        self._failures += 1


def decoded(line: bytes) -> Reading | Trouble:
    """One line of the child; EdgedError if it is not one."""
    try:
        known: Reading | Trouble = _line_decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise EdgedError("the jtop process sent a line that is no reading") from None
    return known
