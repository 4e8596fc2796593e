"""What became of a camera's frames, in numbers that add up.

In: the counters a child keeps in its ring (garbage until checked), the frames handed on, their results and drops. Out:
captured = results + sum(drops) + frames handed on and not yet counted, at any time, across children and rings. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edged.frames.frame import DROP_CAUSES, DropCause
from edged.frames.ring import GarbageError

_MAX_AT_ONCE: Final = 1_000_000  # frames between two looks; more is garbage


@dataclass(frozen=True)
class Moved:
    """What has happened since the last look."""

    frames: bool
    frozen: bool
    rate: bool
    corrupt: bool
    still: bool


class FrameCounters:
    """The counts of one camera. `number` is that of its latest frame known, `handed` that of the last handed on."""

    def __init__(self) -> None:
        self.captured = 0
        self.results = 0
        self.drops: dict[DropCause, int] = dict.fromkeys(DROP_CAUSES, 0)
        self.number = self.handed = 0
        self._rate = self._corrupt = self._frozen = self._still = 0

    @property
    def unseen(self) -> bool:
        """Whether there is a frame that was not handed on."""
        return self.number > self.handed

    def new_ring(self) -> None:
        """A new ring counts from zero, but for its frame numbers."""
        self._rate = self._corrupt = self._frozen = self._still = 0

    def look(self, number: int, rate: int, corrupt: int, frozen: int, still: int) -> Moved:
        """Take in a ring's counters. Raises GarbageError and changes nothing if they cannot be."""
        before = (self.number, self._rate, self._corrupt, self._frozen, self._still)
        now = (number, rate, corrupt, frozen, still)
        if not all(0 <= new - old <= _MAX_AT_ONCE for old, new in zip(before, now, strict=True)):
            raise GarbageError(f"counters went from {before} to {now}")
        causes: tuple[tuple[DropCause, int], ...] = (
            ("rate", rate - self._rate), ("corrupt", corrupt - self._corrupt), ("frozen", frozen - self._frozen),
            ("still", still - self._still),
        )  # fmt: skip
        moved = Moved(
            number > self.number,
            frozen > self._frozen,
            rate > self._rate,
            corrupt > self._corrupt,
            still > self._still,
        )
        self.number, self._rate, self._corrupt, self._frozen, self._still = now
        for cause, n in causes:
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
