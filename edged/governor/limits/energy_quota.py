"""The energy of a horizon: so many watt-hours in every so many hours, kept by the energy book. Pure.

Horizons follow one another: the first begins when the limit is first told, each next one when that before it ends. What
is left is spread evenly over the time that is left; when all is spent, frames wait for the next horizon.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from edged.governor.messages import Budget

RESERVE: Final = 0.005
"""Share of a horizon's energy kept back, for what the book may have wrong."""
LAST_S: Final = 20.0
"""What is left is never spread over less: the end of a horizon is no time for a burst."""


@dataclass(frozen=True)
class Horizon:
    """`drawn_j`: what the book stood at when it began."""

    energy_j: float
    length_s: float
    begun_s: float
    drawn_j: float

    def rolled(self, now_s: float, drawn_j: float) -> Horizon:
        """The horizon that `now_s` lies in."""
        passed = math.floor((now_s - self.begun_s) / self.length_s)
        return (
            self
            if passed < 1
            else Horizon(self.energy_j, self.length_s, self.begun_s + passed * self.length_s, drawn_j)
        )

    def left_j(self, drawn_j: float) -> float:
        return self.energy_j - (drawn_j - self.drawn_j)

    def left_s(self, now_s: float) -> float:
        return self.begun_s + self.length_s - now_s

    def allowed_w(self, now_s: float, drawn_j: float) -> float:
        """Of the whole device, from now to the end."""
        return max(0.0, self.left_j(drawn_j) - RESERVE * self.energy_j) / max(LAST_S, self.left_s(now_s))


def begun(before: Horizon | None, budget: Budget, now_s: float, drawn_j: float) -> Horizon | None:
    """For this budget: the one before goes on, with another amount too; another length begins anew."""
    if budget.energy_wh is None:
        return None
    energy_j, length_s = budget.energy_wh * 3600, max(LAST_S, budget.energy_horizon_h * 3600)
    if before is not None and before.length_s == length_s:
        return Horizon(energy_j, length_s, before.begun_s, before.drawn_j)
    return Horizon(energy_j, length_s, now_s, drawn_j)
