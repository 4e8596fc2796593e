"""Which frames are run a second time: a random one of every so many of each camera. Pure, and the same for a seed.

Stratified: every stretch of n frames of a camera gives exactly one, at a random place in it, so that each camera gets
its share independent of the others, and no rhythm of the scene falls in step with the sampling.
"""

from __future__ import annotations

import random


class StratifiedSampler:
    """The frames of one camera."""

    def __init__(self, seed: int, camera: str) -> None:
        self._random = random.Random(f"{seed} {camera}")
        self._left = 0
        self._until_drawn = 0
        self._length = 0

    def drawn(self, share: float) -> bool:
        """Whether the next frame is the one, if `share` of the frames are wanted. A greater share than before cuts the
        stretch in hand short; with 0 none is."""
        if share <= 0:
            return False
        length = max(1, round(1 / share))
        if self._left <= 0 or length < self._length:
            self._begin(length)
        self._left -= 1
        self._until_drawn -= 1
        return self._until_drawn == -1

    def _begin(self, length: int) -> None:
        self._length = self._left = length
        self._until_drawn = self._random.randrange(length)
