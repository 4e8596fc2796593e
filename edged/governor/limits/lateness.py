"""Feedback on what was spent and what came late, against what the plan allows. Pure; it changes in place.

Integral action on the plan's price (equation F1) makes the mean consumption meet the target. A late frame costs more
than its accuracy once more are late than the deadline's quantile allows (equation F2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GAIN: Final = 0.012
KEEP: Final = 0.9995
MOST: Final = 1.5
LATE_FROM: Final = 0.35
LATE_FULL: Final = 0.35
"""Shares of what the quantile allows: from where on lateness has a price, and how fast that grows."""
LATE_PRICE_MAX: Final = 4.0
LATE_SLOPE: Final = 3.0
LATE_LEAST_FRAMES: Final = 1500.0
LATE_MEMORY: Final = 20_000.0  # frames after which lateness is forgotten: some minutes


@dataclass(slots=True)
class Feedback:
    """`correction`: of the price, as a logarithm. `frames`, `late`: fading counts."""

    correction: float = 0.0
    frames: float = 0.0
    late: float = 0.0

    def spent(self, joules: float, target_j: float, share: float, least_j: float) -> None:
        """After `joules` on a `share` of a period's frames, of which all should cost `target_j`."""
        excess = (joules - target_j * share) / max(target_j, 0.3 * least_j, 1e-9)
        self.correction = min(MOST, max(-MOST, self.correction * KEEP**share + GAIN * excess))

    def count(self, frames: int, late: int) -> None:
        keep = max(0.0, 1.0 - frames / LATE_MEMORY)
        self.frames = self.frames * keep + frames
        self.late = self.late * keep + late

    def reset_lateness(self) -> None:
        """What came late was due by another deadline, or an operator had chosen what ran."""
        self.frames = self.late = 0.0

    def late_price(self, quantile: float) -> float:
        """Price of a late frame beyond its lost accuracy: none while fewer are late than allowed."""
        used = self.late / max(LATE_LEAST_FRAMES, self.frames) / max(1e-3, 1.0 - quantile)
        excess = (used - LATE_FROM) / LATE_FULL
        return 0.0 if excess < 0 else min(LATE_PRICE_MAX, LATE_SLOPE * excess)
