"""Requests for the power mode, one at a time: an operator's at once, a power profile's in the background.

In: a mode, jetson_clocks or a fan profile. Out: what is in force then, or an EdgedError and nothing changed; and an
event either way. `set` runs on its caller's thread, any but the engine loop's; `soon` on the thread "power.mode".
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from edged.errors import EdgedError
from edged.power.modes import ModeControl, Modes

BUSY_S: Final = 1.0
"""An operator does not wait for another request, which may take fifteen seconds."""
STOP_S: Final = 2.0
RETRY_S: Final = (10.0, 30.0, 90.0)

log = logging.getLogger(__name__)


class Wanted(NamedTuple):
    """The mode that a profile names. `problem`: why it is not in force, "" once it is; None until that is known."""

    profile: str
    mode: str
    problem: str | None = None


class PowerModeManager:
    """`publish` sends a sentence as an event; any thread."""

    def __init__(self, control: ModeControl, publish: Callable[[str], None]) -> None:
        self._control = control
        self._publish = publish
        self._one_at_a_time = threading.Lock()
        self._hand_over = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pending: Wanted | None = None
        self._stopping = threading.Event()
        self.wanted: Wanted | None = None
        """of the profile in force"""
        self.profiled: str | None = None
        """The mode that the device profile was measured in; None without one."""

    def read(self) -> Modes:
        return self._control.read()

    def set(self, mode: str | None = None, clocks: bool | None = None, fan: str | None = None) -> Modes:
        """Set and verified when it returns; UsageError or EdgedError, and nothing changed, if it cannot be."""
        with self._alone(BUSY_S):
            modes = self._control.set(mode, clocks, fan)
        with self._hand_over:
            if mode is not None and self.wanted is not None:
                self.wanted = Wanted(self.wanted.profile, self.wanted.mode, f"an operator set {modes.current}")
        text = f"power mode {modes.current}, jetson_clocks {modes.clocks or 'unknown'}, fan {modes.fan or 'unknown'}"
        self._report(logging.INFO, text + self._unprofiled(modes.current))
        return modes

    def taken(self, profile: str | None, mode: str | None) -> None:
        """A profile is in force, and its mode set; a profile without one leaves the board as it is."""
        with self._hand_over:
            self._pending = None
            self.wanted = None if profile is None or mode is None else Wanted(profile, mode, "")

    def soon(self, profile: str, mode: str) -> None:
        """At a start or a reload, in the background. If it cannot be set, an event has the reason; the limits hold
        anyway."""
        with self._hand_over:
            self.wanted = self._pending = Wanted(profile, mode)
            if self._thread is None and not self._stopping.is_set():
                self._thread = threading.Thread(target=self._run, name="power.mode", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Requests that wait for a mode fail at once."""
        with self._hand_over:
            self._pending, thread = None, self._thread
            self._stopping.set()
        self._control.close()
        if thread is not None:
            thread.join(STOP_S)

    def _run(self) -> None:
        while True:
            with self._hand_over:
                wanted, self._pending = self._pending, None
                if wanted is None:
                    self._thread = None
                    return
            self._execute(wanted)

    def _execute(self, wanted: Wanted) -> None:
        """Retried for a while: when a board starts, jtop.service may come later than edged."""
        for retry_s in (*RETRY_S, None):
            problem = self._problem(wanted)
            with self._hand_over:
                now = self.wanted
                if now is None or now[:2] != wanted[:2] or self._stopping.is_set():
                    return
                self.wanted = wanted._replace(problem=problem)
            if not problem:
                text = f"power mode {wanted.mode}, as profile {wanted.profile} has it"
                self._report(logging.INFO, text + self._unprofiled(wanted.mode))
                return
            if problem != now.problem:
                text = f"the power mode {wanted.mode} of profile {wanted.profile} is not in force: {problem}"
                self._report(logging.WARNING, text)
            if retry_s is None or self._stopping.wait(retry_s):
                return

    def _problem(self, wanted: Wanted) -> str:
        try:
            with self._alone(None):
                self._control.set(wanted.mode)
        except EdgedError as error:
            return f"{error.message}; {error.hint}" if error.hint else error.message
        except Exception as error:  # the next mode must find this thread alive
            log.exception("setting the power mode failed")
            return f"edged failed at it: {type(error).__name__}: {error}"
        return ""

    def _unprofiled(self, mode: str | None) -> str:
        """The end of a sentence, where the device profile in use is of another mode."""
        if self.profiled is None or mode is None or mode.lower() == self.profiled.lower():
            return ""
        return f"; the device profile is of {self.profiled}, so latency and power are learned again until a restart"

    def _report(self, level: int, text: str) -> None:
        log.log(level, "%s", text)
        self._publish(text)

    @contextlib.contextmanager
    def _alone(self, timeout_s: float | None) -> Iterator[None]:
        """Each request is bounded in time, so a wait without a limit here ends too."""
        if not self._one_at_a_time.acquire(timeout=-1 if timeout_s is None else timeout_s):
            raise EdgedError("another change of the power mode is going on", "try again in a few seconds")
        try:
            yield
        finally:
            self._one_at_a_time.release()
