"""Orders for the power mode, one at a time: an operator's at once, a starting or reloaded profile's in its own time.

In: a mode, jetson_clocks or a fan profile. Out: what is in force then, or an EdgedError and nothing changed; and an
event either way. `set` runs on its caller's thread, any but the engine loop's; `soon` on the thread "power.mode".
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from edged.errors import EdgedError
from edged.power.modes import ModeControl, Modes

BUSY_S: Final = 1.0
"""An operator does not wait for another's order, which may take fifteen seconds."""
STOP_S: Final = 2.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """The mode that a profile names. `problem`: why it is not in force, "" once it is; None until that is known."""

    profile: str
    mode: str
    problem: str | None = None


class ModeDesk:
    """`tell` publishes a sentence as an event; any thread."""

    def __init__(self, control: ModeControl, tell: Callable[[str], None]) -> None:
        self._control = control
        self._tell = tell
        self._order = threading.Lock()
        self._hand_over = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pending: Wanted | None = None
        self._stopping = False
        self.wanted: Wanted | None = None
        """of the profile in force"""

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
        log.info("set: %s", text)
        self._tell(text)
        return modes

    def taken(self, profile: str | None, mode: str | None) -> None:
        """A profile was taken up, and its mode set; a profile without one leaves the board as it is."""
        with self._hand_over:
            self._pending = None
            self.wanted = None if profile is None or mode is None else Wanted(profile, mode, "")

    def soon(self, profile: str, mode: str) -> None:
        """At a start or a reload, when nobody waits for it. If it cannot be set that is told, and the limits hold all
        the same."""
        with self._hand_over:
            self.wanted = self._pending = Wanted(profile, mode)
            if self._thread is None and not self._stopping:
                self._thread = threading.Thread(target=self._run, name="power.mode", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Whoever waits for a mode gives up at once."""
        with self._hand_over:
            self._stopping, self._pending, thread = True, None, self._thread
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
            problem = self._carried_out(wanted)
            with self._hand_over:
                if self.wanted == wanted:  # nobody has ordered anything else meanwhile
                    self.wanted = Wanted(wanted.profile, wanted.mode, problem)

    def _carried_out(self, wanted: Wanted) -> str:
        try:
            with self._alone(None):
                if self._stopping:
                    return ""
                before = self._control.read().current
                after = self._control.set(wanted.mode).current
        except EdgedError as error:
            if self._stopping:
                return ""
            text = f"the power mode {wanted.mode} of profile {wanted.profile} is not in force: {error.message}"
            log.warning("%s; %s", text, error.hint)
            self._tell(text)
            return error.message
        if after != before:
            text = f"power mode {after}, as profile {wanted.profile} has it; it was {before or 'unknown'}"
            log.info("set: %s", text)
            self._tell(text)
        return ""

    @contextlib.contextmanager
    def _alone(self, timeout_s: float | None) -> Iterator[None]:
        """Each order is bounded in itself, so a wait without a limit here ends all the same."""
        if not self._order.acquire(timeout=-1 if timeout_s is None else timeout_s):
            raise EdgedError("another change of the power mode is going on", "try again in a few seconds")
        try:
            yield
        finally:
            self._order.release()
