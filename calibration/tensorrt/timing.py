"""How long the phases of a build took, kept beside the timing cache: from it a later build knows the time left.

In: the phases and steps as TensorRT names them, which no one else knows the order or the number of. Out: seconds left,
or None while nothing is known. TensorRT calls from threads of its own.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from edged import clock

Seconds = Annotated[float, Meta(ge=0, le=1e6)]

MAX_BYTES: Final = 1 << 20
_MOST_MARKS: Final = 200
_TRUSTED: Final = 0.02
"""Of the earlier build's time: before that the pace of this one is not known."""


class Times(Struct, frozen=True, forbid_unknown_fields=True):
    """Of one variant: all of it, and when a phase's step was reached."""

    total_s: Seconds
    marks: dict[str, Seconds]


def load(path: Path) -> dict[str, Times]:
    """Variant -> times; nothing where there is no file that can be understood."""
    try:
        if path.stat().st_size > MAX_BYTES:
            return {}
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Times])
    except (OSError, msgspec.DecodeError):
        return {}


def dump(times: dict[str, Times]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(times), indent=1) + b"\n"


class Stopwatch:
    """Runs from its making on."""

    def __init__(self, earlier: Times | None) -> None:
        self._earlier = earlier
        self._begun_ns = clock.mono_ns()
        self._marks: dict[str, float] = {}
        self._seen: tuple[float, float] | None = None  # when a mark was reached: in this build, in the earlier one
        self._lock = threading.Lock()

    @property
    def elapsed_s(self) -> float:
        return (clock.mono_ns() - self._begun_ns) / clock.NS_PER_S

    def mark(self, phase: str, step: int, steps: int) -> None:
        """A step was reached."""
        key, now_s = f"{phase} {step}/{steps}", self.elapsed_s
        with self._lock:
            self._marks.setdefault(key, now_s)
            then_s = None if self._earlier is None else self._earlier.marks.get(key)
            if then_s is not None and (self._seen is None or then_s > self._seen[1]):
                self._seen = now_s, then_s

    def left_s(self) -> float | None:
        """At the pace of this build so far; None without an earlier one."""
        if self._earlier is None:
            return None
        total_s = self._earlier.total_s
        with self._lock:
            reached_s, then_s = self._seen or (0.0, 0.0)
        pace = reached_s / then_s if then_s > _TRUSTED * total_s else 1.0
        return max(0.0, (total_s - then_s) * pace - (self.elapsed_s - reached_s))

    def times(self) -> Times:
        """For the next build; a few hundred marks of however many there were."""
        with self._lock:
            marks = list(self._marks.items())
        every = -(-len(marks) // _MOST_MARKS) or 1
        return Times(round(self.elapsed_s, 3), {key: round(at_s, 3) for key, at_s in marks[::every]})
