"""How old a frame is when its batch starts: lead times of batches in, quantiles out. Pure.

Capture to start has two parts. Of as many batches as there are cameras the least lead is that of a frame that did not
wait; what another's exceeds it by is the wait for other cameras' batches. That one goes with the service time, so it is
told in services: then what is seen with one variant tells of another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from edged.governor.estimators.histogram import Histogram
from edged.governor.fast_replace import replace

LEAST_SAMPLES: Final = 20
"""Lead times before their quantile is believed: the first frames of a stream come in a burst."""
LEAST_MS: Final = 0.1
MEMORY: Final = 100.0
"""Batches, some seconds of them: after a load has gone its waits must be forgotten, or the better variant stays away.
What a few seconds say of the last percent is rough, on the safe side."""
WAIT_STEP: Final = 0.1
WAIT_BINS: Final = 80
NO_WAITS: Final = Histogram(0.0, WAIT_STEP, MEMORY, (0.0,) * WAIT_BINS)


@dataclass(frozen=True)
class Lead:
    """`histogram`: of ln(milliseconds) without the wait. `waits`: in services."""

    recent_ms: tuple[float, ...] = ()
    histogram: Histogram = field(default_factory=lambda: Histogram(math.log(LEAST_MS), 0.1, MEMORY, (0.0,) * 133))
    waits: Histogram = NO_WAITS

    def add(self, lead_ms: float, cameras: int, service_ms: float) -> Lead:
        """`service_ms`: that of a single frame on the variant that ran, usually."""
        if not (math.isfinite(lead_ms) and lead_ms >= 0):
            return self
        recent = (*self.recent_ms, lead_ms)[-max(1, cameras) :]
        least_ms = min(recent)
        return replace(
            self,
            recent_ms=recent,
            histogram=self.histogram.add(math.log(max(LEAST_MS, least_ms))),
            waits=self.waits.add((lead_ms - least_ms) / service_ms),
        )

    def afresh(self) -> Lead:
        """With another number of cameras frames wait for one another in another way."""
        return replace(self, recent_ms=(), waits=NO_WAITS)

    def quantile_ms(self, q: float) -> float | None:
        """None until enough batches have come back."""
        if self.histogram.added < LEAST_SAMPLES:
            return None
        log_ms = self.histogram.quantile(q)
        return None if log_ms is None else math.exp(log_ms)

    def waiting(self, q: float) -> float | None:
        """How many services a frame waits for others, at the quantile. None until enough batches have come back."""
        return None if self.waits.added < LEAST_SAMPLES else self.waits.quantile(q)
