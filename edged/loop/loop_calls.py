"""Functions of other threads, run by the engine loop between two batches. Bounded, and every wait has a deadline."""

from __future__ import annotations

import concurrent.futures
import os
import queue
import selectors
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from edged.errors import EdgedError

T = TypeVar("T")

MAX_WAITING: Final = 16
TIMEOUT_S: Final = 5.0


class LoopCalls:
    """`call` from any thread; `run` on the engine loop, which the selector wakes."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._waiting: queue.Queue[tuple[concurrent.futures.Future[Any], Callable[[], Any]]] = queue.Queue(MAX_WAITING)
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._lock = threading.Lock()
        self._stopped = False
        selector.register(self._wake_read, selectors.EVENT_READ, ("wake", ""))

    @property
    def wake_fd(self) -> int:
        """For `signal.set_wakeup_fd`: a signal ends the loop's wait at once."""
        return self._wake_write

    def wake(self) -> None:
        try:
            os.write(self._wake_write, b"\0")
        except BlockingIOError:
            return  # the pipe is full of wake-ups already

    def call(self, function: Callable[[], T]) -> T:
        """Run `function` on the engine loop and return what it returns or raise what it raises.

        EdgedError if the loop does not come to it in time, and then it is not run later either; or if the loop has
        ended.
        """
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        with self._lock:
            if self._stopped:
                raise _stopping()
            try:
                self._waiting.put_nowait((future, function))
            except queue.Full:
                raise EdgedError("the engine loop has too many requests waiting", "try again later") from None
            self.wake()
        try:
            return future.result(TIMEOUT_S)
        except concurrent.futures.TimeoutError:
            begun = "" if future.cancel() else "; it has begun with this, and may still finish it"
            text = f"the engine loop has not answered within {TIMEOUT_S:.0f} s{begun}"
            raise EdgedError(text, "see `edged status`") from None

    def run(self) -> None:
        """On the engine loop: everything that waits."""
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            if self._waiting.empty():
                return
        while True:
            try:
                future, function = self._waiting.get_nowait()
            except queue.Empty:
                return
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
            del future  # it holds its exception, whose traceback holds this frame

    def stop(self) -> None:
        """The loop has ended: calls that wait get an EdgedError, and so do later ones."""
        with self._lock:
            self._stopped = True
            while not self._waiting.empty():
                future, _ = self._waiting.get_nowait()
                if future.set_running_or_notify_cancel():
                    future.set_exception(_stopping())

    def close(self) -> None:
        os.close(self._wake_read)
        os.close(self._wake_write)


def _stopping() -> EdgedError:
    return EdgedError("the daemon is stopping", "ask again when it has started")
