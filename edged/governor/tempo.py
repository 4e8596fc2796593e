"""How long an inference takes here and now, as a distribution: measured times in, P(done within) out. Pure.

ln(measured / profile) = slow[core] + own[variant] + noise. `slow` is what slows all that runs on a core alike (a
co-runner, memory traffic), `own` how this unit differs from the profile. One Kalman filter over both, so that what is
seen on one variant tells of the others; a lone outlier is a spike and moves little, several in a row are a new regime.
The noise goes to a decaying histogram, and probabilities are read from its quantiles: no bell curve is assumed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

LOW: Final = -0.5
BIN: Final = 0.02
BINS: Final = 160
FORGET: Final = 1.0019
"""Growth of a new sample's weight: a memory of some 530 batches."""
CUMULATE_EVERY: Final = 8
NOISE_VAR: Final = 0.0015
SLOW_VAR: Final = 0.01
OWN_VAR: Final = 0.02
SLOW_DRIFT_PER_S: Final = 0.02
SLOW_VAR_MAX: Final = 0.25
OWN_DRIFT_PER_S: Final = 0.0
OUTLIER: Final = 9.0
"""Squared standard deviations beyond which a residual is an outlier."""
UNSEEN_S: Final = 1.5
UNSEEN_FADE_S: Final = 12.0
"""A core that nothing ran on for UNSEEN_S is believed ever less slowed."""


@dataclass(frozen=True)
class Tempo:
    """`mean` and `cov`: of [slow by core, own by variant]. `outliers`: in a row. `seen_s`: when each core was last
    used, `ran_s` each variant (negative before the first time), `runs` how often."""

    cores: int
    core: tuple[int, ...]
    mean: tuple[float, ...]
    cov: tuple[tuple[float, ...], ...]
    seen_s: tuple[float, ...]
    ran_s: tuple[float, ...]
    runs: tuple[int, ...]
    learnt_s: float
    outliers: int
    counts: tuple[float, ...]
    weight: float
    samples: int
    below: tuple[float, ...]

    def log_factor(self, variant: int) -> float:
        """ln of what the profile's latency is to be multiplied by."""
        return self.mean[self.core[variant]] + self.mean[self.cores + variant]

    def slow(self, core: int) -> float:
        return self.mean[core]

    def own(self, variant: int) -> float:
        return self.mean[self.cores + variant]

    def on_time(self, log_ratio: float) -> float:
        """P(noise < log_ratio): the chance of done within exp(log_ratio) times the usual time."""
        at = (log_ratio - LOW) / BIN
        if at <= 1.0:
            return 0.0
        k = int(at)
        if k >= BINS:
            return self.below[-1]
        return self.below[k - 1] + (at - k) * (self.below[k] - self.below[k - 1])

    def error(self, variant: int) -> float:
        """Standard error of log_factor."""
        i, j = self.core[variant], self.cores + variant
        return math.sqrt(max(0.0, self.cov[i][i] + self.cov[j][j] + 2 * self.cov[i][j]))


def fresh(core: tuple[int, ...], cores: int) -> Tempo:
    """The profile is right, give or take, with a little heavy tail."""
    n = cores + len(core)
    variances = [SLOW_VAR] + [SLOW_VAR / 5] * (cores - 1) + [OWN_VAR] * len(core)
    counts = [0.0] * BINS
    middle = int((0.0 - LOW) / BIN)
    for offset, count in ((-2, 4), (-1, 12), (0, 20), (1, 12), (2, 4), (10, 0.15), (30, 0.10), (60, 0.05)):
        counts[middle + offset] = count
    return Tempo(
        cores, core, (0.0,) * n, tuple(tuple(variances[i] if i == j else 0.0 for j in range(n)) for i in range(n)),
        (0.0,) * cores, (-1.0,) * len(core), (0,) * len(core), 0.0, 0, tuple(counts), 1.0, 0, _shares(counts),
    )  # fmt: skip


def learn(tempo: Tempo, variant: int, log_ratio: float, now_s: float) -> Tempo:
    """After an inference that took exp(log_ratio) times what the profile says. `log_ratio` is finite."""
    i, j = tempo.core[variant], tempo.cores + variant
    elapsed_s = max(0.0, now_s - tempo.learnt_s)
    cov = [list(row) for row in tempo.cov]
    drift = min(0.05, SLOW_DRIFT_PER_S * elapsed_s)
    for core in range(tempo.cores):
        cov[core][core] = min(SLOW_VAR_MAX, cov[core][core] + (drift if core == 0 else 0.2 * drift))
    residual = log_ratio - tempo.mean[i] - tempo.mean[j]
    spread = cov[i][i] + cov[j][j] + 2 * cov[i][j]
    surprise = residual * residual / (spread + NOISE_VAR)
    outlier = residual > 0 and surprise >= OUTLIER  # noise only ever makes an inference slower
    noise = NOISE_VAR
    if outlier:
        noise *= surprise / OUTLIER * (1.0 if tempo.outliers < 1 else 0.15)
    towards = [row[i] + row[j] for row in cov]
    total = spread + noise
    gain = [x / total for x in towards]
    mean = tuple([m + g * residual for m, g in zip(tempo.mean, gain, strict=True)])
    new_cov = tuple(
        [tuple([x - g * t for x, t in zip(row, towards, strict=True)]) for row, g in zip(cov, gain, strict=True)]
    )
    counts, weight, below = _count(tempo, residual)
    return Tempo(
        tempo.cores, tempo.core, mean, new_cov, (*tempo.seen_s[:i], now_s, *tempo.seen_s[i + 1 :]),
        (*tempo.ran_s[:variant], now_s, *tempo.ran_s[variant + 1 :]),
        (*tempo.runs[:variant], tempo.runs[variant] + 1, *tempo.runs[variant + 1 :]), now_s,
        tempo.outliers + 1 if outlier else 0, counts, weight, tempo.samples + 1, below,
    )  # fmt: skip


def fade(tempo: Tempo, now_s: float, elapsed_s: float) -> Tempo:
    """What slows a core is forgotten while nothing runs on it."""
    mean, cov = list(tempo.mean), [list(row) for row in tempo.cov]
    faded = False
    for i in range(tempo.cores):
        if now_s - tempo.seen_s[i] <= UNSEEN_S:
            continue
        kept = math.exp(-elapsed_s / UNSEEN_FADE_S)
        mean[i] *= kept
        cov[i] = [x * kept for x in cov[i]]
        for row in cov:
            row[i] *= kept
        cov[i][i] += (1 - kept * kept) * OWN_VAR
        faded = True
    if not faded:
        return tempo
    return Tempo(
        tempo.cores, tempo.core, tuple(mean), tuple(tuple(row) for row in cov), tempo.seen_s, tempo.ran_s, tempo.runs,
        tempo.learnt_s, tempo.outliers, tempo.counts, tempo.weight, tempo.samples, tempo.below,
    )  # fmt: skip


def _count(tempo: Tempo, residual: float) -> tuple[tuple[float, ...], float, tuple[float, ...]]:
    k = min(max(int((residual - LOW) / BIN), 0), BINS - 1)
    counts, weight, below = tempo.counts, tempo.weight, tempo.below
    if weight > 1e9:
        counts, weight = tuple([c / weight for c in counts]), 1.0
    counts = (*counts[:k], counts[k] + weight, *counts[k + 1 :])
    if tempo.samples % CUMULATE_EVERY == CUMULATE_EVERY - 1:
        below = _shares(counts)
    return counts, weight * FORGET, below


def _shares(counts: list[float] | tuple[float, ...]) -> tuple[float, ...]:
    """Share of all counts up to each bin."""
    sums = list(accumulate(counts))
    return tuple([s / sums[-1] for s in sums])
