"""How long an inference takes here and now, as a distribution: measured times in, P(done within) out. Pure.

ln(measured / profile) = slow[core] + own[variant] + noise. `slow` is what slows all that runs on a core alike (a
co-runner, memory traffic), `own` how this unit differs from the profile. One Kalman filter over both, so that what is
seen on one variant tells of the others; a lone outlier is a spike and moves little, several in a row are a new regime,
rather as slow as the lesser of the last two, and so are residuals that lean to one side.
The noise goes to a decaying histogram, and probabilities are read from its quantiles: no bell curve is assumed. Times
are seconds from the start.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from edged.governor.estimators.histogram import Histogram, shares
from edged.governor.fast_replace import replace

LOW: Final = -0.5
BIN: Final = 0.02
BINS: Final = 160
MEMORY: Final = 530.0
"""Batches that the noise remembers."""
NOISE_VAR: Final = 0.0015
NOISE_VAR_MAX: Final = 0.02
"""Variance of ln(measured / expected) of one batch: 4 % on a device of its own, to 14 % on a busy machine."""
SLOW_VAR: Final = 0.03
OWN_VAR: Final = 0.02
SLOW_DRIFT_PER_S: Final = 0.0005
SLOW_VAR_MAX: Final = 0.25
OUTLIER: Final = 9.0
"""Squared standard deviations beyond which a residual is an outlier."""
HELD: Final = 8
"""So many outliers in a row are kept until it is known whether they were noise or another regime."""
LEAN: Final = 0.4
LEAN_MOST: Final = 1.5
"""Residuals that lean to one side, in standard deviations: what slows the core has changed by a little, and is open
again. Without it the filter would have to follow every batch's noise to be quick."""
UNSEEN_S: Final = 1.5
UNSEEN_FADE_S: Final = 12.0
"""A core that nothing ran on for UNSEEN_S is believed ever less slowed."""
OWN_FADE_S: Final = 1200.0
"""A variant's own factor fades while it does not run: one that was judged slow in bad times is tried again one day."""
PRIOR: Final = ((-2, 4.0), (-1, 12.0), (0, 20.0), (1, 12.0), (2, 4.0), (10, 0.15), (30, 0.10), (60, 0.05))
"""Noise before anything has run, by bins from the middle: a few per cent, with a little heavy tail."""

Vector = tuple[float, ...]
Matrix = tuple[Vector, ...]


@dataclass(frozen=True)
class Latency:
    """`mean` and `cov`: of [slow by core, own by variant]. `outliers`: the last, in a row, as variant and ln(measured /
    profile). `seen_s`: when each core was last used, `ran_s` each variant (negative before the first time), `runs` how
    often. `lean`: by core, the residual, smoothed."""

    cores: int
    core: tuple[int, ...]
    mean: Vector
    cov: Matrix
    seen_s: Vector
    ran_s: Vector
    runs: tuple[int, ...]
    learnt_s: float
    outliers: tuple[tuple[int, float], ...]
    noise: Histogram
    noise_var: float = NOISE_VAR
    lean: Vector = ()

    def log_factor(self, variant: int) -> float:
        """ln of what the profile's latency is to be multiplied by."""
        return self.mean[self.core[variant]] + self.mean[self.cores + variant]

    def slow(self, core: int) -> float:
        return self.mean[core]

    def own(self, variant: int) -> float:
        return self.mean[self.cores + variant]

    def excess(self, variant: int, log_ratio: float) -> float:
        """ln of how much longer than expected an inference took."""
        return log_ratio - self.log_factor(variant)

    def on_time(self, log_ratio: float) -> float:
        """P(noise < log_ratio): the chance of done within exp(log_ratio) times the usual time."""
        return self.noise.share_below(log_ratio)

    def tail(self, q: float) -> float:
        """What the usual time is to be multiplied by for the quantile q."""
        return math.exp(self.noise.quantile(q) or 0.0)

    def error(self, variant: int) -> float:
        """Standard error of log_factor."""
        i, j = self.core[variant], self.cores + variant
        return math.sqrt(max(0.0, self.cov[i][i] + self.cov[j][j] + 2 * self.cov[i][j]))


def fresh(core: tuple[int, ...], cores: int) -> Latency:
    """Before anything has run: the profile is right, give or take. `core`: the core of each variant."""
    n = cores + len(core)
    variances = [SLOW_VAR] + [SLOW_VAR / 5] * (cores - 1) + [OWN_VAR] * len(core)
    counts = [0.0] * BINS
    for offset, count in PRIOR:
        counts[int(-LOW / BIN) + offset] = count
    noise = Histogram(LOW, BIN, MEMORY, tuple(counts), shares(counts))
    cov = tuple(tuple(variances[i] if i == j else 0.0 for j in range(n)) for i in range(n))
    return Latency(
        cores, core, (0.0,) * n, cov, (0.0,) * cores, (-1.0,) * len(core), (0,) * len(core), 0.0, (), noise,
        lean=(0.0,) * cores,
    )  # fmt: skip


def plausible_ms(ms: float) -> bool:
    """Whether a latency is one: a number from a microsecond to ten minutes."""
    return 1e-3 <= ms <= 6e5


def learn(latency: Latency, variant: int, log_ratio: float, now_s: float) -> Latency:
    """After an inference that took exp(log_ratio) times what the profile says. `log_ratio` is finite."""
    i, j = latency.core[variant], latency.cores + variant
    elapsed_s = max(0.0, now_s - latency.learnt_s)
    cov = [list(row) for row in latency.cov]
    drift = min(0.05, SLOW_DRIFT_PER_S * elapsed_s)
    for core in range(latency.cores):
        cov[core][core] = min(SLOW_VAR_MAX, cov[core][core] + (drift if core == 0 else 0.2 * drift))
    residual = latency.excess(variant, log_ratio)
    spread = cov[i][i] + cov[j][j] + 2 * cov[i][j]
    noise_var = latency.noise_var
    surprise = residual * residual / (spread + noise_var)
    outlier = residual > 0 and surprise >= OUTLIER  # noise only ever makes an inference slower
    if outlier and latency.outliers:  # another regime: what slows them all is open again
        spread += SLOW_VAR_MAX - cov[i][i]
        cov[i][i] = SLOW_VAR_MAX
        # noise adds to it, now more, now less: the lesser of the two is nearer
        residual = 0.5 * (residual + min(residual, latency.excess(*latency.outliers[-1])))
    elif outlier:
        noise_var *= surprise / OUTLIER
    most = LEAN_MOST * math.sqrt(spread + noise_var)
    lean = latency.lean[i] + LEAN * (min(2 * most, max(-2 * most, residual)) - latency.lean[i])
    if abs(lean) > most:
        cov[i][i] += lean * lean
        spread += lean * lean
        lean = 0.0
    towards = [row[i] + row[j] for row in cov]
    total = spread + noise_var
    gain = [x / total for x in towards]
    mean = tuple([m + g * residual for m, g in zip(latency.mean, gain, strict=True)])
    new_cov = tuple(
        [tuple([x - g * t for x, t in zip(row, towards, strict=True)]) for row, g in zip(cov, gain, strict=True)]
    )
    noise, outliers = latency.noise, (*latency.outliers[1 - HELD :], (variant, log_ratio)) if outlier else ()
    if not outlier:
        # What was an outlier counts as the noise that it is now seen to be: none, if it was the first of a new regime.
        for then, ratio in latency.outliers:
            noise = noise.add(ratio - mean[latency.core[then]] - mean[latency.cores + then])
        noise = noise.add(residual)
    return Latency(
        latency.cores, latency.core, mean, new_cov, (*latency.seen_s[:i], now_s, *latency.seen_s[i + 1 :]),
        (*latency.ran_s[:variant], now_s, *latency.ran_s[variant + 1 :]),
        (*latency.runs[:variant], latency.runs[variant] + 1, *latency.runs[variant + 1 :]), now_s,
        outliers, noise,
        latency.noise_var if noise.below is latency.noise.below else _middle_var(noise),
        (*latency.lean[:i], lean, *latency.lean[i + 1 :]),
    )  # fmt: skip


def _middle_var(noise: Histogram) -> float:
    """Variance of the middle half: how much the usual batch varies, whatever the tail does."""
    low, high = noise.quantile(0.25), noise.quantile(0.75)
    if low is None or high is None:
        return NOISE_VAR
    return float(min(NOISE_VAR_MAX, max(NOISE_VAR, ((high - low) / 1.349) ** 2)))


def fade(latency: Latency, now_s: float, elapsed_s: float) -> Latency:
    """After a while: what slows a core is forgotten while nothing runs on it, and what slows a variant while it does
    not run."""
    idle = [i for i in range(latency.cores) if now_s - latency.seen_s[i] > UNSEEN_S]
    rested = [
        latency.cores + i for i, ran_s in enumerate(latency.ran_s) if ran_s >= 0 and now_s - ran_s > UNSEEN_FADE_S
    ]
    if not idle and not rested:
        return latency
    mean, cov = list(latency.mean), [list(row) for row in latency.cov]
    for i in (*idle, *rested):
        kept = math.exp(-elapsed_s / (UNSEEN_FADE_S if i < latency.cores else OWN_FADE_S))
        mean[i] *= kept
        cov[i] = [x * kept for x in cov[i]]
        for row in cov:
            row[i] *= kept
        cov[i][i] += (1 - kept * kept) * OWN_VAR
    return replace(latency, mean=tuple(mean), cov=tuple(tuple(row) for row in cov))
