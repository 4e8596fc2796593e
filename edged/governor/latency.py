"""How long a batch takes here and now: measured times in, a factor on the warm latencies and its tail out. Pure.

ln(measured / warm) = slow + theta of the variant + noise. `slow` is what slows every variant alike (a co-runner, a
lower clock), so a variant that has not run for long is judged by today's machine too. Both are Kalman estimates with a
robust gain: a lone outlier is a spike and moves little, three in a row are a new regime and are believed at once. The
noise goes to a decaying histogram whose quantiles follow heavy tails; no bell curve is assumed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from edged.clock import NS_PER_S

NOISE_VAR: Final = 0.02
"""Variance of ln(measured / expected) of one batch: about 14 %."""
SLOW_VAR: Final = 0.04
THETA_VAR: Final = 0.01
"""How far this machine and one variant on it may be from the profile, before anything has run."""
SLOW_DRIFT: Final = 2e-4
THETA_DRIFT: Final = 2e-6
"""Growth of the variances per batch: gives gains near 0.1 and 0.01, a memory of some 10 and 100 batches."""
SPIKE: Final = 0.35
"""A residual beyond this (1.4 times) is a spike at first, a new regime when REGIME come in a row on the same side."""
REGIME: Final = 3
REGIME_VAR: Final = 0.25
AGE_S: Final = 600.0
"""A variant's own factor fades with this time constant while it does not run: what was learnt is slowly forgotten, so
that a variant judged slow in bad times is tried again one day, and rarely."""
MEMORY: Final = 400.0
"""Batches a histogram remembers; a tail of 1 % is then four of them."""
PRIOR_SAMPLES: Final = 100
PRIOR_SIGMA: Final = 0.08
LEAD_SAMPLES: Final = 20
"""Lead times before their quantile is believed: the first frames of a stream come in a burst."""


@dataclass(frozen=True)
class Histogram:
    """Decaying counts over bins of `step` from `low`; what lies outside counts at the edge.

    Instead of shrinking all counts by a factor, each new sample weighs more by it.
    """

    low: float
    step: float
    counts: tuple[float, ...]
    weight: float = 1.0
    total: float = 0.0
    top: int = 0
    """The highest bin that ever held anything: quantiles are looked for from there down."""

    def add(self, value: float) -> Histogram:
        """With one more sample; a value that is not finite is no sample."""
        if not math.isfinite(value):
            return self
        i = min(max(int((value - self.low) / self.step), 0), len(self.counts) - 1)
        counts, weight, total = self.counts, self.weight, self.total
        if weight > 1e9:
            counts, total, weight = tuple([c / weight for c in counts]), total / weight, 1.0
        counts = (*counts[:i], counts[i] + weight, *counts[i + 1 :])
        return Histogram(self.low, self.step, counts, weight * (1 + 1 / MEMORY), total + weight, max(i, self.top))

    @property
    def samples(self) -> float:
        """Effective number of samples remembered."""
        return self.total / self.weight

    def quantile(self, q: float) -> float | None:
        """The value that a share q of the samples stays below; None without samples."""
        if self.total <= 0:
            return None
        above = (1 - q) * self.total
        for i in range(self.top, -1, -1):
            if (count := self.counts[i]) > above:
                return self.low + self.step * (i + 1 - above / count)
            above -= count
        return self.low


@dataclass(frozen=True)
class Latency:
    """The estimate of all variants, by index. `ran_ns`: when each last ran; `spikes`: the last, on one side."""

    slow: float
    slow_var: float
    theta: tuple[float, ...]
    theta_var: tuple[float, ...]
    ran_ns: tuple[int, ...]
    residuals: Histogram
    spikes: tuple[float, ...]


def fresh(variants: int, now_ns: int) -> Latency:
    """Before anything has run: the profile is right, give or take, and the tail is a guess worth PRIOR_SAMPLES."""
    bins, low, step = 90, -1.5, 0.05
    edges = [0.5 * (1 + math.erf((low + step * i) / (PRIOR_SIGMA * math.sqrt(2)))) for i in range(bins + 1)]
    counts = tuple([PRIOR_SAMPLES * (b - a) for a, b in pairwise(edges)])
    residuals = Histogram(low, step, counts, total=sum(counts), top=max(i for i, c in enumerate(counts) if c > 0))
    return Latency(0.0, SLOW_VAR, (0.0,) * variants, (THETA_VAR,) * variants, (now_ns,) * variants, residuals, ())


def plausible_ms(ms: float) -> bool:
    """Whether a latency is one: a number from a microsecond to ten minutes."""
    return 1e-3 <= ms <= 6e5


def learn(latency: Latency, variant: int, warm_ms: float, measured_ms: float, now_ns: int) -> Latency:
    """After a batch of `variant` that took `measured_ms` where its profile says `warm_ms`; nonsense is not learnt."""
    if not (plausible_ms(measured_ms) and plausible_ms(warm_ms)):
        return latency
    theta, age_s = _aged(latency, variant, now_ns)
    theta_var = min(THETA_VAR, latency.theta_var[variant] + THETA_DRIFT + THETA_VAR * age_s / AGE_S)
    slow_var = min(REGIME_VAR, latency.slow_var + SLOW_DRIFT)
    residual = math.log(measured_ms / warm_ms) - latency.slow - theta
    residuals, spikes = _noise(latency, residual)
    if len(spikes) == REGIME:
        slow_var, error, spikes = REGIME_VAR, sorted(spikes)[REGIME // 2], ()
    else:
        error = min(max(residual, -SPIKE), SPIKE)
    spread = slow_var + theta_var + NOISE_VAR
    gain_slow, gain_theta = slow_var / spread, theta_var / spread
    return Latency(
        latency.slow + gain_slow * error,
        slow_var * (1 - gain_slow),
        _put(latency.theta, variant, theta + gain_theta * error),
        _put(latency.theta_var, variant, theta_var * (1 - gain_theta)),
        (*latency.ran_ns[:variant], now_ns, *latency.ran_ns[variant + 1 :]),
        residuals,
        spikes,
    )


def _noise(latency: Latency, residual: float) -> tuple[Histogram, tuple[float, ...]]:
    """The histogram and the spikes in a row after `residual`. A spike is noise, and counts, once the row is broken; the
    spikes that turn out to be a new regime never do."""
    residuals, spikes = latency.residuals, latency.spikes
    if spikes and (abs(residual) <= SPIKE or (residual > 0) != (spikes[0] > 0)):
        for spike in spikes:
            residuals = residuals.add(spike)
        spikes = ()
    if abs(residual) <= SPIKE:
        return residuals.add(residual), spikes
    return residuals, (*spikes, residual)


def factor(latency: Latency, variant: int, now_ns: int) -> float:
    """What the variant's warm latency is to be multiplied by for its usual time now."""
    return math.exp(latency.slow + _aged(latency, variant, now_ns)[0])


def tail(latency: Latency, q: float) -> float:
    """What the usual time is to be multiplied by for the quantile q."""
    residual = latency.residuals.quantile(q)
    return 1.0 if residual is None else math.exp(residual)


def _aged(latency: Latency, variant: int, now_ns: int) -> tuple[float, float]:
    age_s = max(0, now_ns - latency.ran_ns[variant]) / NS_PER_S
    return latency.theta[variant] * math.exp(-age_s / AGE_S), age_s


def _put(values: tuple[float, ...], i: int, value: float) -> tuple[float, ...]:
    return (*values[:i], value, *values[i + 1 :])


@dataclass(frozen=True)
class Lead:
    """Capture to start, without the wait for other cameras' batches: of as many batches as there are cameras the least
    lead is that of a frame that did not wait. The wait itself depends on the variant, so the governor predicts it."""

    recent_ms: tuple[float, ...] = ()
    histogram: Histogram = Histogram(math.log(0.1), 0.1, (0.0,) * 133)

    def add(self, lead_ms: float, cameras: int) -> Lead:
        if not (math.isfinite(lead_ms) and lead_ms >= 0):
            return self
        recent = (*self.recent_ms, lead_ms)[-max(1, cameras) :]
        return replace(self, recent_ms=recent, histogram=self.histogram.add(math.log(max(0.1, min(recent)))))

    def quantile_ms(self, q: float) -> float | None:
        """None until enough batches have come back."""
        if self.histogram.samples < LEAD_SAMPLES:
            return None
        log_ms = self.histogram.quantile(q)
        return None if log_ms is None else math.exp(log_ms)
