"""The energy book: joules drawn, second by second, as the model has them and the meter corrects them. Pure.

The rolling window and the energy of a horizon are kept by it, so both hold without a gauge and while a meter is silent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from edged.governor.fast_replace import replace

USUAL_OVER_S: Final = 120.0
USUAL_FIRST_S: Final = 5.0
LATELY_S: Final = 3


@dataclass(frozen=True)
class Book:
    """`seconds_j`: of the last seconds, oldest first, the last entry of second `at_s`. `usual_w`: mean over a longer
    past, infinite before anything was booked. `drawn_j`: since the start."""

    seconds_j: tuple[float, ...]
    at_s: int = 0
    usual_w: float = math.inf
    drawn_j: float = 0.0

    @property
    def lately_w(self) -> float:
        """Mean over the last whole seconds."""
        lately = self.seconds_j[-1 - LATELY_S : -1]
        return sum(lately) / len(lately)

    def drew(self, watts: float, elapsed_s: float, now_s: float) -> Book:
        """`watts` for the time just before now."""
        second = int(now_s - 1e-9)
        book = self.seconds_j
        if (passed := second - self.at_s) > 0:
            book = (*book, *(0.0,) * min(passed, len(book)))[-len(book) :]
        usual_w = self.usual_w if math.isfinite(self.usual_w) else watts
        usual_w += min(1.0, elapsed_s / min(USUAL_OVER_S, max(USUAL_FIRST_S, now_s))) * (watts - usual_w)
        joules = watts * elapsed_s
        return Book((*book[:-1], book[-1] + joules), max(second, self.at_s), usual_w, self.drawn_j + joules)

    def corrected(self, joules: float) -> Book:
        """The last second had so many joules more than was booked."""
        book = self.seconds_j
        return replace(self, seconds_j=(*book[:-1], book[-1] + joules), drawn_j=self.drawn_j + joules)

    def resized(self, window_s: int) -> Book:
        """For a window of another length; what lies further back is taken to have been the usual."""
        more = window_s + 1 - len(self.seconds_j)
        if more <= 0:
            return replace(self, seconds_j=self.seconds_j[-more:])
        usual_j = self.usual_w if math.isfinite(self.usual_w) else self.seconds_j[0]
        return replace(self, seconds_j=(*(usual_j,) * more, *self.seconds_j))


def fresh(rest_w: float, window_s: int) -> Book:
    """As if the device had rested before."""
    return Book((rest_w,) * window_s + (0.0,))
