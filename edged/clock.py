"""The only caller of `time.*`. Intervals come from the monotonic clock; wall time is a label and nothing more."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Final

NS_PER_S: Final = 1_000_000_000
NS_PER_MS: Final = 1_000_000


def mono_ns() -> int:
    """Nanoseconds of CLOCK_MONOTONIC, the same origin in every process of this machine."""
    return time.monotonic_ns()


def wall_ns() -> int:
    """Nanoseconds since the Unix epoch; may jump when the clock is set."""
    return time.time_ns()


def local_time() -> datetime:
    """Local time of day, without a zone: it jumps with summer time and when the clock is set. For what people plan by
    the clock on the wall."""
    return datetime.fromtimestamp(time.time())


def cpu_ns() -> int:
    """CPU nanoseconds this process has used, all threads."""
    return time.process_time_ns()


def thread_cpu_ns() -> int:
    """CPU nanoseconds the calling thread has used."""
    return time.thread_time_ns()


def sleep_s(seconds: float) -> None:
    time.sleep(seconds)
