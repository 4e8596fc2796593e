"""Joules drawn in each of the last seconds, as the model predicts them and the meter corrects them. Pure.

The rolling window needs the current second before the meter has shown it, and keeps counting while the meter is silent.
What is reported as spent is the energy meter's (`EnergyUse`), not this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

MEAN_OVER_S: Final = 120.0
MEAN_FIRST_S: Final = 5.0
LATELY_S: Final = 3


@dataclass(slots=True)
class PowerHistory:
    """`seconds_j`: of the last seconds, oldest first; the last entry is of second `at_s`. `mean_w`: over a longer past,
    infinite before anything was drawn. `drawn_j`: since the start. It changes in place."""

    seconds_j: list[float]
    at_s: int = 0
    mean_w: float = math.inf
    drawn_j: float = 0.0

    @property
    def lately_w(self) -> float:
        """Mean over the last whole seconds."""
        lately = self.seconds_j[-1 - LATELY_S : -1]
        return sum(lately) / len(lately)

    def add(self, watts: float, elapsed_s: float, now_s: float) -> None:
        """`watts` during the `elapsed_s` before now."""
        second = int(now_s - 1e-9)
        if (passed := second - self.at_s) > 0:
            n = len(self.seconds_j)
            self.seconds_j = [*self.seconds_j, *[0.0] * min(passed, n)][-n:]
            self.at_s = second
        if not math.isfinite(self.mean_w):
            self.mean_w = watts
        span_s = min(MEAN_OVER_S, max(MEAN_FIRST_S, now_s))
        self.mean_w += min(1.0, elapsed_s / span_s) * (watts - self.mean_w)
        self.correct(watts * elapsed_s)

    def correct(self, joules: float) -> None:
        """The last second had so many joules more than was counted."""
        self.seconds_j[-1] += joules
        self.drawn_j += joules

    def resize(self, window_s: int) -> None:
        """For a window of another length; seconds further back are taken to have been at the mean."""
        more = window_s + 1 - len(self.seconds_j)
        if more <= 0:
            self.seconds_j = self.seconds_j[-more:]
        else:
            usual_j = self.mean_w if math.isfinite(self.mean_w) else self.seconds_j[0]
            self.seconds_j = [usual_j] * more + self.seconds_j


def start(idle_w: float, window_s: int) -> PowerHistory:
    """As if the device had been idle before."""
    return PowerHistory([idle_w] * window_s + [0.0])
