"""Something that goes on beside a test, as a daemon or a camera would."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def repeating(work: Callable[[int], object], every_s: float) -> Iterator[None]:
    """`work(n)`, n = 0, 1, 2, ..., on a thread, until the context ends. What it raises fails the test."""
    stop, failed = threading.Event(), list[BaseException]()

    def run() -> None:
        n = 0
        while not stop.wait(every_s):
            try:
                work(n)
            except BaseException as error:
                failed.append(error)
                return
            n += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert not failed, failed
