"""A histogram that forgets: samples in, quantiles and shares out. Pure.

Instead of shrinking all counts by a factor, each new sample weighs more by it. Quantiles are read from the cumulated
shares, which are brought up to date every few samples only: that is what costs. A tail that is gone is forgotten sooner
than its counts fade: what n samples in a row did not show is rarer than 3 / n (the rule of three, 95 % sure).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

CUMULATE_EVERY: Final = 8
UNSEEN: Final = 3.0


@dataclass(frozen=True)
class Histogram:
    """Decaying counts over bins of `step` from `low`; what lies outside counts at the edge. `memory`: of so many
    samples. `below`: share of all samples up to the end of each bin, empty while there are none. `above`: for each bin,
    how many samples there were when one last lay in it or above."""

    low: float
    step: float
    memory: float
    counts: tuple[float, ...]
    below: tuple[float, ...] = ()
    weight: float = 1.0
    added: int = 0
    above: tuple[int, ...] = ()

    def add(self, value: float) -> Histogram:
        """With one more sample; a value that is not finite is no sample."""
        if not math.isfinite(value):
            return self
        k = min(max(int((value - self.low) / self.step), 0), len(self.counts) - 1)
        counts, weight, below = self.counts, self.weight, self.below
        if weight > 1e9:
            counts, weight = tuple([c / weight for c in counts]), 1.0
        counts = (*counts[:k], counts[k] + weight, *counts[k + 1 :])
        added = self.added + 1
        above = (added,) * (k + 1) + (self.above or (0,) * len(counts))[k + 1 :]
        if added % CUMULATE_EVERY == 0 or not below:
            seen = zip(shares(counts), (*above[1:], 0), strict=True)
            below = tuple([max(share, 1.0 - UNSEEN / max(UNSEEN, added - last)) for share, last in seen])
        return Histogram(self.low, self.step, self.memory, counts, below, weight * (1 + 1 / self.memory), added, above)

    def share_below(self, value: float) -> float:
        """P(sample < value); 0 while there are none."""
        at = (value - self.low) / self.step
        if at <= 1.0 or not self.below:
            return 0.0
        k = int(at)
        if k >= len(self.below):
            return self.below[-1]
        return self.below[k - 1] + (at - k) * (self.below[k] - self.below[k - 1])

    def quantile(self, q: float) -> float | None:
        """The value that a share q of the samples stays below; None without samples."""
        if not self.below:
            return None
        k = min(bisect_left(self.below, q), len(self.below) - 1)
        before = self.below[k - 1] if k else 0.0
        part = (q - before) / max(1e-12, self.below[k] - before)
        return self.low + self.step * (k + min(1.0, max(0.0, part)))


def shares(counts: Sequence[float]) -> tuple[float, ...]:
    """Share of all counts up to each bin."""
    sums = list(accumulate(counts))
    return tuple([s / sums[-1] for s in sums]) if sums[-1] > 0 else ()
