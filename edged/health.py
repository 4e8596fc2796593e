"""Heartbeats per stage in, word to systemd out: the watchdog is fed by progress, not by a timer.

Every stage reports its progress from its own thread; `Health.tick`, called about twice a second from the housekeeping
thread, feeds the watchdog while every stage that has work moves. When one does not, the stacks of all threads go to
stderr once, and systemd, no longer fed, restarts the daemon. The notify protocol needs no library: datagrams of
`KEY=value` lines to the socket named in NOTIFY_SOCKET.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TextIO

from edged import clock
from edged.worker import Worker

log = logging.getLogger(__name__)

SEND_TIMEOUT_S: Final = 0.5
"""A full notify socket must not hold the housekeeping thread for longer."""


class Notifier:
    """The service manager's notify socket; without one (`NOTIFY_SOCKET` unset) every call does nothing. Any thread."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        env = os.environ if environ is None else environ
        self._address = _address(env.get("NOTIFY_SOCKET", ""))
        self.watchdog_s = _watchdog_s(env)
        """The service manager's patience, None if it does not watch this process."""
        self._failing = False
        self._socket: socket.socket | None = None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ready(self, status: str = "") -> None:
        """Started, or a reload is over."""
        self._send("READY=1", *([_status_line(status)] if status else []))

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(_status_line(text))

    def watchdog(self) -> None:
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it. systemd 253 and later wants the time with it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={clock.mono_ns() // 1000}")

    def stopping(self, status: str = "") -> None:
        self._send("STOPPING=1", *([_status_line(status)] if status else []))

    def extend_timeout(self, seconds: float) -> None:
        """Starting, stopping or reloading needs `seconds` more from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        try:
            if self._socket is None:  # one for the process's life: later there may be no descriptor left
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                self._socket.settimeout(SEND_TIMEOUT_S)
            self._socket.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)
            self._failing = False
        except OSError as error:
            if not self._failing:  # say it once, not twice a second
                log.warning("the service manager does not take notifications: %s", error)
            self._failing = True


def _address(name: str) -> str | None:
    if name.startswith("@"):
        return "\0" + name[1:]  # Linux abstract namespace
    if name.startswith("/"):
        return name
    if name:
        log.warning("NOTIFY_SOCKET=%s is neither a path nor an abstract socket; systemd gets no notifications", name)
    return None


def _status_line(text: str) -> str:
    # A line break would start a new assignment: what a camera or a file name says must not speak to systemd.
    return "STATUS=" + " ".join(text.split())


def _watchdog_s(env: Mapping[str, str]) -> float | None:
    """WATCHDOG_USEC, if it is meant for this process."""
    usec, pid = env.get("WATCHDOG_USEC", ""), env.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or int(usec) == 0:
        return None
    if pid and pid != str(os.getpid()):
        return None
    return int(usec) / 1e6


@dataclass(frozen=True)
class HealthReport:
    """`stages`: seconds since each last made progress. `stuck`: those that have work and made none for their limit.
    `ended`: threads that are there no more."""

    healthy: bool
    stages: dict[str, float]
    stuck: tuple[str, ...]
    ended: tuple[str, ...] = ()


class _Stage:
    __slots__ = ("limit_ns", "mark")

    def __init__(self, limit_ns: int, now_ns: int) -> None:
        self.limit_ns = limit_ns
        self.mark = (now_ns, True)  # (last progress or start of work, idle): one tuple, so one atomic store


class Heartbeats:
    """The progress of every stage. `beat` and `idle` cost well under a microsecond, from any thread."""

    def __init__(self, limits_s: Mapping[str, float] | None = None) -> None:
        """`limits_s`: how long a stage with work may go without progress. Every stage begins idle."""
        self._stages: dict[str, _Stage] = {}
        self._workers: tuple[Worker, ...] = ()
        for stage, limit_s in (limits_s or {}).items():
            self.add(stage, limit_s)

    def add(self, stage: str, limit_s: float) -> None:
        self._stages = {**self._stages, stage: _Stage(int(limit_s * clock.NS_PER_S), clock.mono_ns())}

    def watch(self, *workers: Worker) -> None:
        """Have a thread that has ended count as stuck: nothing does its work any more."""
        self._workers += workers

    def beat(self, stage: str) -> None:
        """A step is completed and there is more, or work begins: the next step is due within the limit."""
        self._stages[stage].mark = (clock.mono_ns(), False)

    def idle(self, stage: str) -> None:
        """Nothing to do: called before the stage waits for work, however long that takes."""
        self._stages[stage].mark = (clock.mono_ns(), True)

    def check(self, now_ns: int) -> HealthReport:
        ages: dict[str, float] = {}
        stuck: list[str] = []
        for name, stage in self._stages.items():
            since_ns, idle = stage.mark
            age_ns = max(0, now_ns - since_ns)
            ages[name] = age_ns / clock.NS_PER_S
            if not idle and age_ns > stage.limit_ns:
                stuck.append(name)
        ended = tuple(worker.name for worker in self._workers if not worker.alive)
        return HealthReport(not stuck and not ended, ages, tuple(stuck), ended)


class Health:
    """Ties heartbeats to the watchdog. `tick` is called from one thread, about twice a second."""

    def __init__(self, heartbeats: Heartbeats, notifier: Notifier, stderr: TextIO | None = None) -> None:
        """`stderr` must be a real file (it has a descriptor): faulthandler writes to it without Python's help."""
        self._heartbeats = heartbeats
        self._notifier = notifier
        self._stderr = sys.stderr if stderr is None else stderr
        self._reported: tuple[str, ...] = ()

    def tick(self, now_ns: int) -> HealthReport:
        """Feed the watchdog if every stage with work moves; else say once per hang which does not, with all stacks."""
        report = self._heartbeats.check(now_ns)
        new = [name for name in (*report.stuck, *report.ended) if name not in self._reported]
        self._reported = report.stuck + report.ended  # a stage that recovered and hangs again is a new hang
        if report.healthy:
            if self._notifier.watchdog_s is not None:
                self._notifier.watchdog()
        elif new:
            self._dump(new, report)
        return report

    def _dump(self, names: list[str], report: HealthReport) -> None:
        reasons = [
            f"{name} has work but made no progress for {report.stages[name]:.1f} s"
            if name in report.stuck
            else f"the thread {name} has ended"
            for name in names
        ]
        text = " and ".join(reasons)
        self._notifier.status(f"stuck: {text}")
        self._stderr.write(f"edged: {text}; the stacks of all threads follow\n")
        self._stderr.flush()
        faulthandler.dump_traceback(file=self._stderr, all_threads=True)
