"""What was spent and what came late, against what the plan allows: runs in, a correction of the prices out. Pure.

The plan's price is a forecast. Integral action on it makes consumption meet the target on the mean; and a late frame
costs more than its accuracy once more are late than the deadline's quantile allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edged.governor.fast_replace import replace

GAIN: Final = 0.012
KEEP: Final = 0.9995
MOST: Final = 1.5
LATE_FROM: Final = 0.35
LATE_FULL: Final = 0.35
"""Shares of what the quantile allows: from where on lateness has a price, and how fast that grows."""
LATE_PRICE_MAX: Final = 4.0
LATE_SLOPE: Final = 3.0
LATE_LEAST_FRAMES: Final = 300.0
LATE_MEMORY: Final = 20_000.0
"""Frames after which lateness is forgotten: some minutes."""


@dataclass(frozen=True)
class Spending:
    """`correction`: of the price, as a logarithm. `processed`, `late`: frames, fading."""

    correction: float = 0.0
    processed: float = 0.0
    late: float = 0.0

    def spent(self, joules: float, target_j: float, share: float, least_j: float) -> Spending:
        """After `joules` on a `share` of a round of frames, of which a whole one should cost `target_j`."""
        excess = (joules - target_j * share) / max(target_j, 0.3 * least_j, 1e-9)
        correction = self.correction * KEEP**share + GAIN * excess
        return replace(self, correction=min(MOST, max(-MOST, correction)))

    def relaxed(self, keep: float) -> Spending:
        """While no short-term budget is scarce."""
        return replace(self, correction=self.correction * keep)

    def counted(self, frames: int, late: int) -> Spending:
        keep = max(0.0, 1.0 - frames / LATE_MEMORY)
        return replace(self, processed=self.processed * keep + frames, late=self.late * keep + late)

    def forgiven(self) -> Spending:
        """What came late is forgotten: it was due by another deadline, or an operator had chosen what ran."""
        return replace(self, processed=0.0, late=0.0)

    def late_used(self, quantile: float) -> float:
        """How much of the lateness that the quantile allows was used: 1 for all of it."""
        return self.late / max(LATE_LEAST_FRAMES, self.processed) / max(1e-3, 1.0 - quantile)

    def late_price(self, quantile: float) -> float:
        """Price of a late frame beyond its lost accuracy: none while fewer are late than allowed."""
        excess = (self.late_used(quantile) - LATE_FROM) / LATE_FULL
        return 0.0 if excess < 0 else min(LATE_PRICE_MAX, LATE_SLOPE * excess)
