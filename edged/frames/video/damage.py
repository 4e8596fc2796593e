"""Which pictures are built on a loss, and from when on they are right again.

In: what each access unit is and whether it arrived whole. Out: whether its picture may be shown. Pure.

A lost packet spoils its own picture and all that refer to it. They are right again at the next keyframe that arrived
whole; in a stream with intra refresh, which has none, a recovery point says after how many pictures (H.264 D.2.8);
where it does not even have those, after two whole refresh cycles (x265 refreshes only a part in one),
which parameter sets open, or after a limit in time.
"""

from __future__ import annotations

from typing import Final

from edged.clock import NS_PER_S
from edged.frames.video.access_unit import UnitFacts

LIMIT_NS: Final = 10 * NS_PER_S
"""How long damage lasts at most where nothing tells its end; twice the keyframe interval, where that is longer."""
_LONGEST_LIMIT_NS: Final = 60 * NS_PER_S
_CYCLE_STARTS: Final = 3


class DamageTracker:
    """One stream. Begins as damaged: nothing is right before the first keyframe."""

    def __init__(self) -> None:
        self._since_ns: int | None = None
        self._damaged = self._beginning = True
        self._countdown: int | None = None
        self._cycles = 0
        self._skip_leading = False
        self._last_keyframe_ns: int | None = None
        self._keyframe_at: int | None = None
        self.keyframe_interval_ns = 0
        self.from_keyframe = False
        """whether what is right now began with a keyframe; a decoder calls damaged what began otherwise"""

    @property
    def beginning(self) -> bool:
        """Whether no picture has been right yet."""
        return self._beginning

    def hurt(self) -> None:
        """Something before the next unit is missing, or a picture just decoded is not right."""
        self._damaged = True
        self._since_ns = self._countdown = None
        self._cycles = 0

    def unit(self, facts: UnitFacts, whole: bool, now_ns: int, shown_at: int | None = None) -> bool:
        """The next access unit in the order of decoding; whether its picture is right. `whole`: nothing of it is
        missing; `hurt` is to be called before, where something is missing between the units. `shown_at`: its time
        stamp, in any unit and wrapped anywhere from 32 bits on."""
        leading = facts.leading or self._before_keyframe(shown_at)
        if facts.keyframe:
            self._keyframe_at = shown_at
            if self._last_keyframe_ns is not None:
                self.keyframe_interval_ns = now_ns - self._last_keyframe_ns
            self._last_keyframe_ns = now_ns
        if not whole:
            self.hurt()
        if not self._damaged:
            self.from_keyframe = self.from_keyframe or facts.keyframe
            self._skip_leading = self._skip_leading and leading
            return not self._skip_leading
        if self._since_ns is None:
            self._since_ns = now_ns
        if not whole or not facts.picture or not self._heals(facts, now_ns):
            return False
        self._damaged = self._beginning = False
        self._skip_leading = self.from_keyframe = facts.keyframe
        return True

    def _before_keyframe(self, shown_at: int | None) -> bool:
        """Whether it is shown before the keyframe just passed: it may refer to what was before that (open GOP)."""
        if shown_at is None or self._keyframe_at is None:
            return False
        return shown_at - self._keyframe_at & 0xFFFFFFFF >= 1 << 31

    def _heals(self, facts: UnitFacts, now_ns: int) -> bool:
        if facts.keyframe:
            return True
        if self._countdown is not None:
            self._countdown -= 1
        elif facts.recovery is not None:
            self._countdown = facts.recovery
        elif facts.parameter_sets:
            self._cycles += 1
        assert self._since_ns is not None
        limit_ns = min(max(LIMIT_NS, 2 * self.keyframe_interval_ns), _LONGEST_LIMIT_NS)
        expired = not self._beginning and now_ns - self._since_ns >= limit_ns
        return expired or self._cycles >= _CYCLE_STARTS or (self._countdown is not None and self._countdown <= 0)
