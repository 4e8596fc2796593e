"""What the device may draw while it throttles itself, and for a while afterwards: its report in, watts out. Pure.

What a device that throttles draws above idle is cut at once, and again while that does not help; then it grows back
slowly, so that it throttles seldom.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

STEP: Final = 0.8  # share of what was drawn above rest that is allowed after each cut
AGAIN_S: Final = 10.0  # a lower draw takes so long to show in a junction
LEAST: Final = 0.2
"""Of the first draw above rest: below it no dropped frame helps."""
REGROW_PER_S: Final = 0.006
FORGOTTEN: Final = 1.3  # of the first draw above rest: once so much is allowed again, nothing is held back any more


@dataclass(frozen=True)
class Throttle:
    """`allowed_w`: of the whole device, infinite while nothing is held back. `rest_w`, `first_w`: what it drew at rest
    and above that when it began; `cut_s`: the last cut; `at_s`: the last observation."""

    allowed_w: float = math.inf
    rest_w: float = 0.0
    first_w: float = 0.0
    cut_s: float = 0.0
    at_s: float = 0.0
    now: bool = False

    def sensed(self, throttled: bool, drawn_w: float, rest_w: float, now_s: float) -> Throttle:
        """`drawn_w`: the recent mean; `rest_w`: of that, without any frame."""
        if not math.isfinite(self.allowed_w):
            if not throttled:
                return self
            first_w = max(0.0, drawn_w - rest_w)
            return Throttle(rest_w + STEP * first_w, rest_w, first_w, now_s, now_s, True)
        active_w = self.allowed_w - self.rest_w
        if not throttled:
            active_w += REGROW_PER_S * self.first_w * (now_s - self.at_s)
            if active_w > FORGOTTEN * self.first_w:
                return UNTHROTTLED
            return replace(self, allowed_w=self.rest_w + active_w, at_s=now_s, now=False)
        if self.now and now_s - self.cut_s < AGAIN_S:
            return replace(self, at_s=now_s)
        active_w = max(LEAST * self.first_w, STEP * min(active_w, max(0.0, drawn_w - self.rest_w)))
        return replace(self, allowed_w=self.rest_w + active_w, cut_s=now_s, at_s=now_s, now=True)

    def held_w(self, rest_w: float) -> float:
        """What is allowed while the device draws `rest_w` without any frame: always something above it."""
        return max(self.allowed_w, rest_w + LEAST * self.first_w)


UNTHROTTLED: Final = Throttle()
