"""How old a frame is when its batch starts: lead times of batches in, a quantile out. Pure.

Capture to start, without the wait for other cameras' batches: of as many batches as there are cameras the least lead is
that of a frame that did not wait. The wait itself depends on the variant, so the standing choice predicts it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from edged.governor.histogram import Histogram
from edged.governor.replaced import replace

LEAST_SAMPLES: Final = 20
"""Lead times before their quantile is believed: the first frames of a stream come in a burst."""
LEAST_MS: Final = 0.1
MEMORY: Final = 100.0
"""Batches, some seconds of them: after a load has gone its waits must be forgotten, or the better variant stays away.
What a few seconds say of the last percent is rough, on the safe side."""


@dataclass(frozen=True)
class Lead:
    """The histogram is of ln(milliseconds)."""

    recent_ms: tuple[float, ...] = ()
    histogram: Histogram = field(default_factory=lambda: Histogram(math.log(LEAST_MS), 0.1, MEMORY, (0.0,) * 133))

    def add(self, lead_ms: float, cameras: int) -> Lead:
        if not (math.isfinite(lead_ms) and lead_ms >= 0):
            return self
        recent = (*self.recent_ms, lead_ms)[-max(1, cameras) :]
        return replace(self, recent_ms=recent, histogram=self.histogram.add(math.log(max(LEAST_MS, min(recent)))))

    def quantile_ms(self, q: float) -> float | None:
        """None until enough batches have come back."""
        if self.histogram.added < LEAST_SAMPLES:
            return None
        log_ms = self.histogram.quantile(q)
        return None if log_ms is None else math.exp(log_ms)
