"""What became of a camera's frames, in numbers that add up.

In: the counters a child keeps in its ring (garbage until checked), the frames handed on, their results and drops. Out:
captured = results + sum(drops) + frames handed on and not yet counted, at any time, across children and rings. Pure.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from edged.frames.frame import DROP_CAUSES, DropCause
from edged.frames.ring import GarbageError

_MAX_AT_ONCE: Final = 1_000_000  # frames between two looks; more is garbage
_NOT_WRITTEN: Final[tuple[DropCause, ...]] = ("rate", "corrupt", "frozen", "still")
"""Why a child leaves a frame out of its ring, in the order of its counters."""


class Moved(NamedTuple):
    """How many frames of each kind there were since the last look."""

    frames: int
    rate: int
    corrupt: int
    frozen: int
    still: int


class FrameCounters:
    """The counts of one camera. `number` is that of its latest frame known, `handed` that of the last handed on."""

    def __init__(self) -> None:
        self.captured = 0
        self.results = 0
        self.drops: dict[DropCause, int] = dict.fromkeys(DROP_CAUSES, 0)
        self.number = self.handed = 0
        self._not_written: tuple[int, ...] = (0,) * len(_NOT_WRITTEN)

    @property
    def unseen(self) -> bool:
        """Whether there is a frame that was not handed on."""
        return self.number > self.handed

    def new_ring(self) -> None:
        """A new ring counts from zero, but for its frame numbers."""
        self._not_written = (0,) * len(_NOT_WRITTEN)

    def look(self, number: int, rate: int, corrupt: int, frozen: int, still: int) -> Moved:
        """Take in a ring's counters. Raises GarbageError and changes nothing if they cannot be."""
        now = (rate, corrupt, frozen, still)
        moved = Moved(number - self.number, *[new - old for new, old in zip(now, self._not_written, strict=True)])
        if min(moved) < 0 or max(moved) > _MAX_AT_ONCE:
            before = (self.number, *self._not_written)
            raise GarbageError(f"counters went from {before} to {(number, *now)}")
        self.number, self._not_written = number, now
        for cause, n in zip(_NOT_WRITTEN, moved[1:], strict=True):
            self.captured += n
            self.drops[cause] += n
        return moved

    def hand(self, number: int) -> None:
        """Frame `number` is handed on; those between it and the last are superseded."""
        self.number = max(self.number, number)
        self.captured += number - self.handed
        self.drops["superseded"] += number - self.handed - 1
        self.handed = number

    def lose(self) -> None:
        """The latest frame cannot be read any more: its writer died on it."""
        if self.unseen:
            self.hand(self.number)
            self.drops["torn"] += 1
