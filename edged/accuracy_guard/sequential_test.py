"""Agreement scores of one variant on one camera, and what they prove however often one looks. Pure.

In: numbers 0..1 with their times. Out: the mean of the last ones and an interval round it, and whether they are below
or above a level for certain.

The guard looks after every score, so an interval for a fixed number of them would sooner or later exclude the truth by
chance. The bound used: if each score, given all before it, is expected to be at least q, then the mean of n of them is
m < q or less with a probability of at most exp(-n kl(m, q)), kl(m, q) = m ln(m/q) + (1-m) ln((1-m)/(1-q)) (Hoeffding
1963, theorem 1, which holds for martingale differences; scores need not be alike nor independent). Its error is made so
small that the sum over all looks at all windows in a thousand camera-days stays below one: then no look is special.

To follow the day, scores are forgotten: not by a decay, under which a good past would hide a sudden fault for long, but
by looking at the last 8, 16, 32, ... scores each by itself. The shortest window that proves something decides: a fault
shows as fast after a good month as at the start, and old scores only serve to prove small differences.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edged.clock import NS_PER_S

WINDOWS: Final = (8, 16, 32, 64, 128, 256, 512, 1024)
"""Scores looked at together, the last ones; besides these all that there are."""
MAX_AGE_NS: Final = 4 * 3600 * NS_PER_S
"""A score is forgotten after that, however few have come since."""
MIN_SPACING_NS: Final = NS_PER_S
"""Scores of one variant and camera come no faster; this makes it 8.64e7 looks in a thousand camera-days."""
LOOK_ERROR: Final = 1e-8
"""Of one look, at all windows: 8.64e7 looks give less than one false alarm, even if all is just at the level."""


@dataclass(frozen=True)
class Interval:
    """The mean of the last `samples` scores and the bounds of what is to be expected of them; 0..1."""

    mean: float
    low: float
    high: float
    samples: int


class SequentialTest:
    """Scores with their monotonic times; at most the longest window of them. It changes in place, and all its memory
    (16 KB) is resident from the start: as objects, scores would take eight times that, and grow for hours."""

    def __init__(self) -> None:
        self._times_ns = np.full(WINDOWS[-1], 0)  # unlike np.zeros it writes, and so takes, the memory
        self._scores = np.full(WINDOWS[-1], 0.0)
        self._next = self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def last_ns(self) -> int | None:
        """When the newest score came; None without any."""
        return int(self._times_ns[self._next - 1]) if self._count else None

    def clear(self) -> None:
        self._count = 0

    def add(self, score: float, now_ns: int) -> None:
        self._times_ns[self._next], self._scores[self._next] = now_ns, score
        self._next = (self._next + 1) % WINDOWS[-1]
        self._count = min(self._count + 1, WINDOWS[-1])
        self.forget(now_ns)

    def forget(self, now_ns: int) -> None:
        """Drop what is too old."""
        while self._count and now_ns - int(self._times_ns[self._next - self._count]) > MAX_AGE_NS:
            self._count -= 1

    def interval(self) -> Interval | None:
        """Of all scores, the truth inside but for LOOK_ERROR on either side; None without any."""
        if not self._count:
            return None
        return _interval(self._count, float(self._newest_first().mean()), _demand(LOOK_ERROR))

    def below(self, level: float, error: float = LOOK_ERROR) -> Interval | None:
        """The shortest window that proves the agreement to be below `level`, wrong at most `error` of the times one
        looks; or None."""
        demand = _demand(error)
        for n, mean in self._means():
            if mean < level and n * divergence(mean, level) > demand:
                return _interval(n, mean, demand)
        return None

    def above(self, level: float, error: float = LOOK_ERROR) -> Interval | None:
        """The same for above."""
        demand = _demand(error)
        for n, mean in self._means():
            if mean > level and n * divergence(mean, level) > demand:
                return _interval(n, mean, demand)
        return None

    def _means(self) -> Iterator[tuple[int, float]]:
        count = self._count
        if count:
            sums = np.cumsum(self._newest_first())
            for n in (*(n for n in WINDOWS if n < count), count):
                yield n, min(1.0, max(0.0, float(sums[n - 1]) / n))

    def _newest_first(self) -> NDArray[np.float64]:
        return self._scores[np.arange(self._next - 1, self._next - 1 - self._count, -1)]


def needed(mean: float, level: float, error: float = LOOK_ERROR) -> int:
    """How many scores of such a mean, from the first on, prove that it is not at the level."""
    return math.floor(_demand(error) / divergence(mean, level)) + 1


def divergence(m: float, q: float) -> float:
    """kl(m, q) of two probabilities, in nats; infinite if q rules m out."""
    if m == q:
        return 0.0
    if not 0 < q < 1:
        return math.inf
    near = m * math.log(m / q) if m > 0 else 0.0
    return near + ((1 - m) * math.log((1 - m) / (1 - q)) if m < 1 else 0.0)


def _demand(error: float) -> float:
    """What n kl(m, q) must exceed in one of the windows."""
    return math.log((len(WINDOWS) + 1) / error)


def _interval(n: int, mean: float, demand: float) -> Interval:
    mean = min(1.0, max(0.0, mean))
    return Interval(mean, 1 - _upper(n, 1 - mean, demand), _upper(n, mean, demand), n)


def _upper(n: int, mean: float, demand: float) -> float:
    """The greatest level that a mean of n scores does not disprove."""
    low, high = mean, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        if n * divergence(mean, middle) > demand:
            high = middle
        else:
            low = middle
    return high
