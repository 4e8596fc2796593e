"""The energy of a horizon: so many watt-hours in every so many hours. Pure; it changes in place.

What is spent is the energy meter's count (`EnergyUse`); without a meter, the power model's. What is left is spread
evenly over the time that is left (equation Q1); when all is spent, frames wait for the next horizon.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from edged.governor.messages import Budget, EnergyUse

RESERVE: Final = 0.005
"""Share of a horizon's energy kept back, for what the model may have wrong since the last reading."""
LAST_S: Final = 20.0  # what is left is never spread over less: the end of a horizon is no time for a burst


@dataclass(slots=True)
class Quota:
    """`spent_j`: in the horizon that ends at `ends_s`, when the model's count of all energy stood at `drawn_j`."""

    energy_j: float
    length_s: float
    ends_s: float
    spent_j: float
    drawn_j: float

    def metered(self, use: EnergyUse, now_s: float, drawn_j: float) -> None:
        """The meter's count takes the place of the model's."""
        self.spent_j, self.ends_s, self.drawn_j = max(0.0, use.spent_j), now_s + max(0.0, use.left_s), drawn_j

    def roll(self, now_s: float, drawn_j: float) -> None:
        """Begin the horizon that `now_s` lies in, if the last has ended."""
        if now_s >= self.ends_s:
            self.ends_s += self.length_s * (1 + math.floor((now_s - self.ends_s) / self.length_s))
            self.spent_j, self.drawn_j = 0.0, drawn_j

    def left_j(self, drawn_j: float) -> float:
        return self.energy_j - self.spent_j - (drawn_j - self.drawn_j)

    def allowed_w(self, now_s: float, drawn_j: float) -> float:
        """Of the whole device, from now to the end of the horizon."""
        return max(0.0, self.left_j(drawn_j) - RESERVE * self.energy_j) / max(LAST_S, self.ends_s - now_s)


def start(before: Quota | None, budget: Budget, now_s: float, drawn_j: float) -> Quota | None:
    """For this budget. The count of the previous quota continues after any change: a limit that is set again does not
    refill it. With another length the horizon ends so much earlier or later."""
    if budget.energy_wh is None:
        return None
    energy_j, length_s = budget.energy_wh * 3600, max(LAST_S, budget.energy_horizon_h * 3600)
    if before is None:
        return Quota(energy_j, length_s, now_s + length_s, 0.0, drawn_j)
    ends_s = max(now_s, before.ends_s + length_s - before.length_s)
    return Quota(energy_j, length_s, ends_s, before.spent_j, before.drawn_j)
