"""How long a batch takes here and now, as a distribution: measured service times in, P(done within) out. Pure.

Equation L1: ln(measured / profile) = device_factor + variant_factor + noise; one Kalman filter over both factors, so
that a measurement of one variant informs the others. Where it is a guess how much slower a lower clock is, that is
right up to a power of it, the variant's exponent. A lone outlier is a spike and moves little; two in a row are a new
regime, and so are residuals that stay on one side. The noise goes to a decaying histogram: probabilities are read from
it. Times are seconds from the start. It changes in place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edged.governor.estimators import histogram
from edged.governor.estimators.histogram import Histogram

LOW: Final = -0.5
BIN: Final = 0.02
BINS: Final = 160
MEMORY: Final = 530.0  # batches that the noise remembers
NOISE_VAR: Final = 0.0015
NOISE_VAR_MAX: Final = 0.02
"""Variance of ln(measured / expected) of one batch: 4 % on a device of its own, to 14 % on a busy machine."""
DEVICE_VAR: Final = 0.03
VARIANT_VAR: Final = 0.02
EXPONENT_VAR: Final = 0.08
"""Of the power of the clock by which the guess of a lower clock's slowness is off."""
DEVICE_DRIFT_PER_S: Final = 0.0005
DEVICE_DRIFT_MAX: Final = 0.05
DEVICE_VAR_MAX: Final = 0.25
OUTLIER: Final = 9.0  # squared standard deviations beyond which a residual is an outlier
OUTLIERS_KEPT: Final = 8
"""So many outliers in a row are kept until it is known whether they were noise or another regime."""
COLD_S: Final = 2.0  # an engine that has not run for so long is slower once: its batch tells little of how slow it is
RESIDUAL_EWMA: Final = 0.4
ONE_SIDED: Final = 1.5
"""Standard deviations of the smoothed residual beyond which the device factor is opened again."""
UNSEEN_S: Final = 1.5
UNSEEN_FADE_S: Final = 12.0  # a device that nothing ran on for UNSEEN_S is believed ever less slowed
VARIANT_FADE_S: Final = 1200.0
"""A variant's own factor fades while it does not run: one that was judged slow in bad times is retried later."""
EXPLORE_AGAIN_S: Final = 300.0
"""One that has not run for so long is tried again, as at first: what was learnt of it may no longer hold."""
PRIOR: Final = ((-2, 4.0), (-1, 12.0), (0, 20.0), (1, 12.0), (2, 4.0), (10, 0.15), (30, 0.10), (60, 0.05))
"""Noise before anything has run, by bins from the middle: a few per cent, with a little heavy tail."""


@dataclass(slots=True)
class Latency:
    """`mean` and `cov`: of [device_factor, variant_factor by variant, exponent by variant]; the exponents only where
    `log_slower` has the logarithm of how much slower than the highest each clock is. `outliers`: the last, in a row, as
    variant and ln(measured / profile). `seen_s`: when anything ran last, `ran_s` each variant (before: < 0), `runs` how
    often."""

    mean: list[float]
    cov: list[list[float]]
    ran_s: list[float]
    runs: list[int]
    noise: Histogram
    outliers: list[tuple[int, float]]
    log_slower: tuple[float, ...] = ()
    seen_s: float = 0.0
    learnt_s: float = 0.0
    noise_var: float = NOISE_VAR
    residual_ewma: float = 0.0

    def slower(self, clock: int) -> float:
        """What the exponents multiply at this clock."""
        return self.log_slower[clock] if self.log_slower else 0.0

    def log_factor(self, variant: int, clock: int) -> float:
        """ln of what the profile's latency is to be multiplied by."""
        factor, slower = self.mean[0] + self.mean[1 + variant], self.slower(clock)
        return factor + slower * self.mean[1 + variant + len(self.runs)] if slower else factor

    def tail(self, q: float) -> float:
        """What the expected time is to be multiplied by for the quantile q."""
        return math.exp(self.noise.quantile(q))

    def error(self, variant: int) -> float:
        """Standard error of log_factor."""
        j = 1 + variant
        return math.sqrt(max(0.0, self.cov[0][0] + self.cov[j][j] + 2 * self.cov[0][j]))

    def own_error(self, variant: int, clock: int) -> float:
        """The same of what it does not share with the others."""
        j, slower = 1 + variant, self.slower(clock)
        own_var = self.cov[j][j]
        if slower:
            k = j + len(self.runs)
            own_var += slower * (slower * self.cov[k][k] + 2 * self.cov[j][k])
        return math.sqrt(own_var)

    def learn(self, variant: int, clock: int, log_ratio: float, now_s: float) -> None:
        """After a batch that took exp(log_ratio) times what the profile says."""
        cov, mean, j = self.cov, self.mean, 1 + variant
        slower, k = self.slower(clock), j + len(self.runs)
        if slower:
            log_ratio -= slower * mean[k]
        first = cov[0]
        drift = min(DEVICE_DRIFT_MAX, DEVICE_DRIFT_PER_S * max(0.0, now_s - self.learnt_s))
        first[0] = min(DEVICE_VAR_MAX, first[0] + drift)
        residual = log_ratio - mean[0] - mean[j]
        spread = first[0] + cov[j][j] + 2 * first[j]
        if slower:
            spread += slower * (slower * cov[k][k] + 2 * (first[k] + cov[j][k]))
        noise_var = self.noise_var
        surprise = residual * residual / (spread + noise_var)
        outlier = residual > 0 and surprise >= OUTLIER  # noise only ever makes a batch slower
        if outlier and self.outliers:  # another regime: what slows them all is open again
            spread += DEVICE_VAR_MAX - first[0]
            first[0] = DEVICE_VAR_MAX
            # noise adds to it, now more, now less: the lesser of the two is nearer
            then, ratio = self.outliers[-1]
            residual = 0.5 * (residual + min(residual, ratio - mean[0] - mean[1 + then]))
        elif residual > 0:  # a spike or a cold start, however little is known of the variant yet
            cold = now_s - self.ran_s[variant] > COLD_S
            noise_var = max(noise_var, residual * residual / (1.0 if cold else OUTLIER))
        most = ONE_SIDED * math.sqrt(spread + noise_var)
        smoothed = self.residual_ewma
        smoothed += RESIDUAL_EWMA * (min(2 * most, max(-2 * most, residual)) - smoothed)
        if abs(smoothed) > most:
            first[0] += smoothed * smoothed
            spread += smoothed * smoothed
            smoothed = 0.0
        self.residual_ewma = smoothed
        self._correct(j, slower, residual, spread + noise_var)
        self.runs[variant] = 1 if now_s - self.ran_s[variant] > EXPLORE_AGAIN_S else self.runs[variant] + 1
        self.learnt_s = self.seen_s = self.ran_s[variant] = now_s
        if outlier:
            self.outliers = [*self.outliers[1 - OUTLIERS_KEPT :], (variant, log_ratio)]
        else:
            self._add_noise(residual)

    def _correct(self, j: int, slower: float, residual: float, total: float) -> None:
        """The Kalman step for one measurement of mean[0] + mean[j] + slower * (the exponent) with the innovation
        variance `total`."""
        cov, mean = self.cov, self.mean
        towards = [row[0] + row[j] for row in cov]
        if slower:
            k = j + len(self.runs)
            towards = [t + slower * row[k] for t, row in zip(towards, cov, strict=True)]
        for k, row in enumerate(cov):
            gain = towards[k] / total
            mean[k] += gain * residual
            for m, t in enumerate(towards):
                row[m] -= gain * t

    def _add_noise(self, residual: float) -> None:
        """What was an outlier counts as the noise that it is now known to be: none, if it began a new regime."""
        cumulated = False
        for then, ratio in self.outliers:
            cumulated |= self.noise.add(ratio - self.mean[0] - self.mean[1 + then])
        self.outliers = []
        if self.noise.add(residual) or cumulated:
            self.noise_var = _middle_var(self.noise)

    def fade(self, now_s: float, elapsed_s: float) -> None:
        """After a while: what slows the device is forgotten while nothing runs, and what slows a variant while that
        one does not run."""
        fading = [0] if now_s - self.seen_s > UNSEEN_S else []
        fading += [1 + i for i, ran_s in enumerate(self.ran_s) if ran_s >= 0 and now_s - ran_s > UNSEEN_FADE_S]
        for i in fading:
            kept = math.exp(-elapsed_s / (UNSEEN_FADE_S if i == 0 else VARIANT_FADE_S))
            self.mean[i] *= kept
            self.cov[i] = [x * kept for x in self.cov[i]]
            for row in self.cov:
                row[i] *= kept
            self.cov[i][i] += (1 - kept * kept) * VARIANT_VAR


def start(variants: int, clock_ratio: tuple[float, ...] = (1.0,)) -> Latency:
    """Before anything has run: the profile is right within DEVICE_VAR and VARIANT_VAR, a guess of clocks by
    `clock_ratio` within EXPONENT_VAR, of which half is common to all variants."""
    log_slower = tuple([-math.log(ratio) for ratio in clock_ratio]) if len(clock_ratio) > 1 else ()
    variances = [DEVICE_VAR] + [VARIANT_VAR] * variants + [EXPONENT_VAR] * variants * bool(log_slower)
    n, exponents = len(variances), 1 + variants
    counts = [0.0] * BINS
    for offset, count in PRIOR:
        counts[int(-LOW / BIN) + offset] = count
    cov = [[variances[i] if i == j else 0.0 for j in range(n)] for i in range(n)]
    for i in range(exponents, n):
        for j in range(exponents, n):
            cov[i][j] = EXPONENT_VAR if i == j else EXPONENT_VAR / 2
    noise = histogram.start(LOW, BIN, MEMORY, counts)
    return Latency([0.0] * n, cov, [-1.0] * variants, [0] * variants, noise, [], log_slower)


def plausible_ms(ms: float) -> bool:
    """Whether a latency is one: a number from a microsecond to ten minutes."""
    return 1e-3 <= ms <= 6e5


def plausible(latency_ms: Sequence[float], most: int) -> tuple[float, ...]:
    """The latencies by batch up to the first that is none, at most `most`."""
    known: list[float] = []
    for ms in latency_ms[:most]:
        if not plausible_ms(ms):
            break
        known.append(ms)
    return tuple(known)


def _middle_var(noise: Histogram) -> float:
    """Variance of the middle half: how much a typical batch varies, independent of the tail."""
    spread = (noise.quantile(0.75) - noise.quantile(0.25)) / 1.349
    return min(NOISE_VAR_MAX, max(NOISE_VAR, spread**2))
