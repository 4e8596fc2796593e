"""A thread that continues after an exception: a function in, called turn after turn until it is stopped.

A request, file or message that makes the code fail costs its own turn, and never those after it. The traceback is in
the journal once for each place it comes from, then a count. `Heartbeats.watch` sees a thread that ended nevertheless.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from edged import clock

PAUSE_S: Final = 0.1
"""After a turn that failed: one that fails at once must not take all of a core."""
REPORT_EVERY_NS: Final = 60 * clock.NS_PER_S
PLACES: Final = 64

log = logging.getLogger(__name__)


class Worker:
    def __init__(self, name: str, turn: Callable[[], None]) -> None:
        """`turn` waits for its work by itself, for a second at most."""
        self.name = name
        self._turn = turn
        self._stop = threading.Event()
        self._places: set[tuple[type[BaseException], str, int]] = set()
        self._failures = 0
        self._reported_ns = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """After the turn at hand. False if that does not end in time."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def stopping(self) -> threading.Event:
        """For a turn that pauses within."""
        return self._stop

    @property
    def alive(self) -> bool:
        """Running, or stopped as it should be."""
        return self._thread.is_alive() or self._stop.is_set() or self._thread.ident is None

    def _run(self) -> None:
        while True:
            try:
                self._turn()
            except BaseException as error:  # SystemExit too: no code of a thread's may end it
                self._report(error)
                self._stop.wait(PAUSE_S)
            if self._stop.is_set():  # a turn that began before sees it and does its last work
                return

    def _report(self, error: BaseException) -> None:
        self._failures += 1
        traceback, place = error.__traceback__, ("", 0)
        while traceback is not None:
            place, traceback = (traceback.tb_frame.f_code.co_filename, traceback.tb_lineno), traceback.tb_next
        known = (type(error), *place) in self._places or len(self._places) >= PLACES
        now_ns = clock.mono_ns()
        if not known:
            self._places.add((type(error), *place))
            self._reported_ns = now_ns
            log.error("the thread %s had %s and continues", self.name, type(error).__name__, exc_info=error)
        elif now_ns - self._reported_ns >= REPORT_EVERY_NS:
            self._reported_ns = now_ns
            log.error("the thread %s had %d exceptions so far and continues", self.name, self._failures)
