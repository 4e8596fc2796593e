"""A histogram that forgets: samples in, quantiles and shares out. Pure; it changes in place.

Instead of shrinking all counts by a factor, each new sample weighs more by it. The cumulated shares are updated every
few samples only. A tail that is gone is forgotten sooner than its counts fade: what n samples in a row did not show is
rarer than 3 / n (the rule of three, 95 % sure).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

CUMULATE_EVERY: Final = 8
UNSEEN: Final = 3.0
RESCALE_AT: Final = 1e9


@dataclass(slots=True)
class Histogram:
    """Decaying counts over bins of `step` from `low`; a sample outside counts at the edge. `memory`: in samples.
    `below`: share of all samples up to the end of each bin. `last_in`: `added` when one last fell into each bin."""

    low: float
    step: float
    memory: float
    counts: list[float]
    below: list[float]
    last_in: list[int]
    weight: float = 1.0
    added: int = 0

    def add(self, value: float) -> bool:
        """One more sample. Whether the shares were updated."""
        k = min(max(int((value - self.low) / self.step), 0), len(self.counts) - 1)
        if self.weight > RESCALE_AT:
            self.counts = [c / self.weight for c in self.counts]
            self.weight = 1.0
        self.counts[k] += self.weight
        self.weight *= 1.0 + 1.0 / self.memory
        self.added += 1
        self.last_in[k] = self.added
        if self.added % CUMULATE_EVERY:
            return False
        self._cumulate()
        return True

    def _cumulate(self) -> None:
        below, last_above, added = _shares(self.counts), 0, self.added
        for k in range(len(below) - 1, -1, -1):
            rare = 1.0 - UNSEEN / max(UNSEEN, added - last_above)
            if rare > below[k]:
                below[k] = rare
            last_above = max(last_above, self.last_in[k])
        self.below = below

    def quantile(self, q: float) -> float:
        """The value that a share q of the samples stays below."""
        k = min(bisect_left(self.below, q), len(self.below) - 1)
        before = self.below[k - 1] if k else 0.0
        part = (q - before) / max(1e-12, self.below[k] - before)
        return self.low + self.step * (k + min(1.0, max(0.0, part)))


def start(low: float, step: float, memory: float, counts: list[float]) -> Histogram:
    """`counts`: what is taken to have been seen before, not all 0."""
    return Histogram(low, step, memory, counts, _shares(counts), [0] * len(counts))


def _shares(counts: list[float]) -> list[float]:
    """Share of all counts up to each bin."""
    sums = list(accumulate(counts))
    return [s / sums[-1] for s in sums]
