"""The GPU's clock ceiling as a fast actuator: an index into the clocks to choose from in, the ceiling in force out.

`set` is for the engine loop: it stores the request and returns. The thread "power.clocks" executes it through the
privileged helper (clock_helper.py), which restores the previous ceiling when this process closes its socket or dies. A
helper that is absent, slow or killed costs the frame path nothing: the state has the reason, and it is retried.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edged import clock
from edged.errors import EdgedError
from edged.power.clock_helper import HELD, LONGEST_LINE, SOCKET
from edged.power.gpu import HZ_PER_MHZ, MOST_CLOCKS
from edged.worker import Worker

ANSWER_S: Final = 2.0
"""A write to sysfs takes milliseconds; the first answer includes the start of the helper by systemd."""
FIRST_ANSWER_S: Final = 10.0
LONGEST_ANSWER: Final = 32 * (MOST_CLOCKS + 2)
SAME_CLOCK: Final = 0.02
"""A profile rounds to MHz; two clocks of a GPU lie further apart than this share."""
RETRY_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)

ENABLE: Final = "sudo systemctl enable --now edged-clocks.socket"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClockState:
    """`index`: the clock in force, which the power mode may keep below the requested one; None while edged requests
    none. `problem`: why the request is not in force. `ceiling_mhz`: what the kernel confirmed, None if not known."""

    index: int | None = None
    ceiling_mhz: float | None = None
    problem: str | None = None


class ClockActuator:
    """`clocks_mhz` ascends: those to choose from. Starts its thread; `close` restores the previous ceiling."""

    def __init__(self, clocks_mhz: Sequence[float], path: Path = SOCKET) -> None:
        self._clocks_mhz = tuple(clocks_mhz)
        self._path = path
        self._wanted: int | None = None
        self._state = ClockState()
        self._repeat = False
        self._failures = 0
        self._wake_r, self._wake_w = socket.socketpair()
        self._wake_r.setblocking(False)
        self._wake_w.setblocking(False)
        self.worker = Worker("power.clocks", self._turn)
        self.worker.start()

    @property
    def state(self) -> ClockState:
        """As last confirmed. Any thread, no wait."""
        return self._state

    def set(self, index: int | None) -> None:
        """Request a ceiling; None restores the previous one. From one thread; never waits. The last request counts."""
        if index != self._wanted:
            self._wanted = index
            self._wake()

    def again(self) -> None:
        """Repeat the last request: the ceiling is no longer what was confirmed."""
        self._repeat = True
        self._wake()

    def close(self) -> None:
        """Restore the previous ceiling and end the thread."""
        self.worker.stopping.set()
        self._wake()
        if self.worker.stop(ANSWER_S):
            self._wake_r.close()
        self._wake_w.close()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # the buffer is full: the thread wakes anyway
            self._wake_w.send(b"!")

    def _turn(self) -> None:
        if self._wanted is None:
            self._state = ClockState()  # nothing is held, so no helper is needed
            self._sleep(None)
            return
        try:
            with _Link(self._path) as link:
                self._failures = 0
                self._hold(link)
        except (EdgedError, OSError) as error:
            problem = error.message if isinstance(error, EdgedError) else f"{self._path}: {error.strerror or error}"
            if problem != self._state.problem:
                log.warning("GPU clock control is unavailable: %s", problem)
            self._state = ClockState(problem=problem)
            self._sleep(RETRY_S[min(self._failures, len(RETRY_S) - 1)])
            self._failures += 1

    def _hold(self, link: _Link) -> None:
        """Execute requests until there is none, or `close`. EdgedError or OSError when the helper has closed."""
        requested: int | None = None
        while not self.worker.stopping.is_set():
            wanted = self._wanted
            if wanted is None:
                link.ask("release")
                self._state = ClockState()
                return
            if wanted != requested or self._repeat:
                self._repeat = False
                hz = link.ask(f"set {self._hz(wanted, link.table)}")
                if hz is None:
                    raise EdgedError("the clock helper violates its protocol")
                requested, self._state = wanted, ClockState(self._index(hz), hz / HZ_PER_MHZ)
            if self._wanted == requested and not self._repeat:
                self._sleep(None, link)

    def _hz(self, index: int, table: tuple[int, ...]) -> int:
        """The GPU's own frequency for a clock of the profile."""
        if not 0 <= index < len(self._clocks_mhz):
            raise EdgedError(f"the profile has no clock {index}")
        wanted = self._clocks_mhz[index] * HZ_PER_MHZ
        nearest = min(table, key=lambda hz: abs(hz - wanted))
        if abs(nearest - wanted) > SAME_CLOCK * wanted:
            raise EdgedError(
                f"this GPU has no clock of {self._clocks_mhz[index]:g} MHz", "measure it again: edged-calibrate profile"
            )
        return nearest

    def _index(self, hz: int) -> int | None:
        """The highest clock that a ceiling allows; the power mode may allow less than requested. None: not one."""
        allowed = [n for n, mhz in enumerate(self._clocks_mhz) if mhz <= hz / HZ_PER_MHZ * (1 + SAME_CLOCK)]
        return allowed[-1] if allowed else None

    def _sleep(self, seconds: float | None, link: _Link | None = None) -> None:
        """Until there is a request or the time is over; EdgedError if the helper closes its end."""
        poll = select.poll()  # select.select cannot wait for descriptors above 1023
        for watched in [self._wake_r, *([link.socket] if link else [])]:
            poll.register(watched, select.POLLIN)
        ready = [descriptor for descriptor, _ in poll.poll(None if seconds is None else seconds * 1000)]
        if self._wake_r.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                while self._wake_r.recv(64):
                    continue
        if link and link.socket.fileno() in ready:
            raise EdgedError("the clock helper has closed the connection")


class HeldElsewhereError(EdgedError):
    """Another program, as the daemon that runs, has the clock helper to itself."""

    def __init__(self, refusal: str) -> None:
        super().__init__(f"the clock helper refuses: {refusal}", "stop that program first, as in: systemctl stop edged")


class HeldCeiling:
    """The ceiling for one thread that waits for it, as for a measurement; the helper restores it when this is closed.
    `clocks_mhz` ascends: what the GPU has, up to the ceiling that the power mode leaves."""

    def __init__(self, link: _Link) -> None:
        self._link = link
        self._settable = [hz for hz in link.table if hz <= link.old_hz]
        self.clocks_mhz = [hz / HZ_PER_MHZ for hz in self._settable]

    def set(self, index: int) -> None:
        """EdgedError if that clock is not the ceiling in force afterwards."""
        wanted, hz = self._settable[index], self._link.ask(f"set {self._settable[index]}")
        if hz != wanted:
            in_force = "unknown" if hz is None else f"{hz / HZ_PER_MHZ:g} MHz"
            raise EdgedError(
                f"the ceiling {wanted / HZ_PER_MHZ:g} MHz is not in force, it is {in_force}",
                "the device may be too hot, or another power mode was set: try again",
            )


@contextlib.contextmanager
def held_ceiling(path: Path = SOCKET) -> Iterator[HeldCeiling]:
    """Through the clock helper at `path`; EdgedError with the cure if there is none that answers."""
    try:
        link = _Link(path)
    except FileNotFoundError:
        raise EdgedError(f"there is no clock helper: {path} is missing", ENABLE) from None
    except PermissionError:
        raise EdgedError(f"this user may not talk to the clock helper at {path}", "run as the service's user") from None
    except OSError as error:
        raise EdgedError(f"the clock helper at {path} does not answer: {error.strerror or error}", ENABLE) from error
    with link:
        yield HeldCeiling(link)


class _Link:
    """A connection to the helper: a line out, a line in."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.table: tuple[int, ...] = ()
        """frequencies of the GPU in Hz, ascending"""
        self.old_hz = 0
        """the ceiling as other programs have set it"""
        try:
            self.socket.settimeout(FIRST_ANSWER_S)
            self.socket.connect(str(path))
            words = self._exchange("table").split()
            numbers = [int(word) for word in words[1 : MOST_CLOCKS + 2] if word.isdecimal()]
            if words[:1] == ["no"]:
                refusal = " ".join(words[1:])[:200]
                held = refusal == HELD
                raise HeldElsewhereError(refusal) if held else EdgedError(f"the clock helper refuses: {refusal}")
            if words[:1] != ["table"] or len(numbers) < 2:
                raise EdgedError(f"the clock helper sent {' '.join(words)[:LONGEST_LINE]!r}")
            self.old_hz, self.table = numbers[0], tuple(numbers[1:])
            self.socket.settimeout(ANSWER_S)
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> _Link:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()

    def ask(self, line: str) -> int | None:
        """The frequency in an `ok`, None if there is none in it. EdgedError for a `no`."""
        verdict, _, rest = self._exchange(line).partition(" ")
        if verdict != "ok":
            raise EdgedError(f"the clock helper refuses: {rest[:200]}")
        return int(rest) if rest.isdecimal() else None

    def _exchange(self, line: str) -> str:
        # a helper that refuses may close before it reads this: its reason can be read all the same
        with contextlib.suppress(BrokenPipeError):
            self.socket.sendall(f"{line}\n".encode(), socket.MSG_NOSIGNAL)
        answer = b""
        end_ns = clock.mono_ns() + int((self.socket.gettimeout() or ANSWER_S) * clock.NS_PER_S)
        while not answer.endswith(b"\n"):
            more = self.socket.recv(4096)
            answer += more
            if not more:
                raise EdgedError("the clock helper has closed the connection")
            if len(answer) > LONGEST_ANSWER or clock.mono_ns() > end_ns:
                raise EdgedError("the clock helper does not answer in time")
        return answer.decode("ascii", "replace").strip()
