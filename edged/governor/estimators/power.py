"""What an inference costs and what else the device draws: sensed power and runs in, watts and factors out. Pure.

sensed power = idle(clock) + leakage(T) + other + sum over variants of factor * busy power, through the sensor's lag and
averaging; a Kalman filter over [other, factors]. What ran between two readings is kept in short bins, so that a meter
that speaks once a second is compared with what it averaged over, and not with a second that it has not seen yet.
A step in the residual opens `other`: a co-runner came. Without a profile the factors start wide and bound to each
other: what one variant draws tells of the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from edged.governor import energy_meter as book
from edged.governor.energy_meter import Book
from edged.governor.fast_replace import replace
from edged.governor.messages import Device
from edged.governor.planner.options import Array, Tables

OTHER_VAR: Final = 0.6
OTHER_VAR_MAX: Final = 4.0
OTHER_DRIFT_PER_S: Final = 0.02
FACTOR_VAR: Final = 0.03
FACTOR_VAR_MAX: Final = 0.04
FACTOR_DRIFT_PER_S: Final = 2e-5
FACTOR_RANGE: Final = (0.3, 3.0)
ASSUMED_COMMON_VAR: Final = 1.0
ASSUMED_RANGE: Final = (0.02, 30.0)
"""Where the watts of a variant are a guess: its error is common to all, and everything is possible."""
NOISE_SHARE: Final = 0.02
ESTIMATED_NOISE_SHARE: Final = 0.10
NOISE_VAR: Final = 0.03
STEP: Final = 9.0
"""Squared standard deviations beyond which a residual is a step of another load."""
STALL_ENERGY: Final = 0.6
"""Share of an inference's energy that does not grow when contention stretches it."""
PEAK_FADE_W_PER_S: Final = 0.004
DOUBT_OVER_S: Final = 60.0
DOUBT_FIRST: Final = 0.01
"""What `doubt` starts from: readings that are 0.2 W off, four a second."""
BLIND_AFTER_S: Final = 1.0
BLIND_OVER_S: Final = 4.0
BIN_S: Final = 0.2
BINS: Final = 50
"""So many at most: while no reading comes, the last takes in all that runs."""


@dataclass(frozen=True)
class Energy:
    """`mean`, `cov`: of [other, factor by variant]; `most_var`: what the variances may grow to. `pending_j`: nominal
    joules by variant run since the last reading, by bin. `lagged`: what the sensor has not shown yet; `busy_w`,
    `base_w`: what it shows.
    `valid_s`: the last reading that had power. `peak_w`: of `other`, for blind times."""

    mean: Array
    cov: Array
    most_var: Array
    factor_range: tuple[Array, Array]
    pending_j: tuple[tuple[float, ...], ...]
    busy_w: Array
    base_w: float
    book: Book
    lagged: tuple[tuple[float, float, float, Array], ...] = ()
    showing: bool = False
    sensed_s: float = 0.0
    valid_s: float = 0.0
    peak_w: float = 0.0
    doubt: float = DOUBT_FIRST
    """squared joules a second by which readings and model differ of late"""
    metered: bool = False
    """a reading of power was ever seen"""

    @property
    def other_w(self) -> float:
        return float(self.mean[0])

    @property
    def other_error_w(self) -> float:
        return math.sqrt(max(0.0, float(self.cov[0, 0])))

    def doubt_j(self, window_s: float) -> float:
        """How far the book may be off for a window: what differs from reading to reading is noise of the meter's."""
        return math.sqrt(self.doubt * window_s)

    def factor(self, variant: int) -> float:
        return float(self.mean[1 + variant])

    def error(self, variant: int) -> float:
        """Standard error of the factor."""
        return math.sqrt(max(0.0, float(self.cov[1 + variant, 1 + variant])))

    def blind_w(self, now_s: float) -> float:
        """What to add to `other` for not having seen the device for a while: its recent peak."""
        blind = min(1.0, max(0.0, now_s - self.valid_s - BLIND_AFTER_S) / BLIND_OVER_S)
        return max(0.0, self.peak_w - self.other_w) * blind


def fresh(tables: Tables, clock: int, window_s: int) -> Energy:
    n, guessed = len(tables.names), np.array(tables.assumed)
    rest_w = float(tables.idle_w[clock])
    other_var, other_max = OTHER_VAR, OTHER_VAR_MAX
    if tables.device.assumed:
        other_var, other_max = max(other_var, (0.3 * rest_w) ** 2), max(other_max, rest_w**2)
    cov = np.zeros((n + 1, n + 1))
    cov[1:, 1:] = np.outer(guessed, guessed) * ASSUMED_COMMON_VAR
    cov += np.diag([other_var] + [FACTOR_VAR] * n)
    most_var = np.concatenate([[other_max], np.where(guessed, ASSUMED_COMMON_VAR + FACTOR_VAR, FACTOR_VAR_MAX)])
    low, high = np.where(guessed[None, :], np.array([ASSUMED_RANGE]).T, np.array([FACTOR_RANGE]).T)
    return Energy(
        np.concatenate([[0.0], np.ones(n)]), cov, most_var, (low, high), (), np.zeros(n), rest_w,
        book.fresh(float(tables.idle_w[0]), window_s),
    )  # fmt: skip


def ran(energy: Energy, variant: int, nominal_j: float, now_s: float) -> Energy:
    pending, nothing = energy.pending_j, (0.0,) * len(energy.busy_w)
    k = min(BINS - 1, max(0, int((now_s - energy.sensed_s) / BIN_S)))
    pending += (nothing,) * (k + 1 - len(pending))
    there = pending[k]
    there = (*there[:variant], there[variant] + nominal_j, *there[variant + 1 :])
    return replace(energy, pending_j=(*pending[:k], there, *pending[k + 1 :]))


def sensed(
    energy: Energy, tables: Tables, clock: int, junction_c: float, power_w: float | None, now_s: float,
    estimated: bool = False,
) -> tuple[Energy, float]:  # fmt: skip
    """After a reading (None: the sensor is silent, time passed all the same); also the power of the time since the last
    one, by the model. `estimated`: no meter said so."""
    elapsed_s = now_s - energy.sensed_s
    if elapsed_s <= 0:
        return energy, float("nan")
    device = tables.device
    before_j = energy.book.drawn_j
    ledger = booked(energy, tables, clock, junction_c, now_s)
    modelled_w = (ledger.drawn_j - before_j) / elapsed_s
    base_w = _base_w(tables, clock, junction_c)
    past = [(until_s, bin_s, base_w, busy_w) for until_s, bin_s, busy_w in _binned(energy, elapsed_s, now_s)]
    energy = _shown(energy, device, past)
    valid_s, peak_w = energy.valid_s, energy.peak_w
    mean, cov, doubt = energy.mean, energy.cov, energy.doubt
    if power_w is not None:
        valid_s, peak_w = now_s, max(energy.other_w, peak_w - PEAK_FADE_W_PER_S * elapsed_s)
        if energy.showing:
            mean, cov = _corrected(energy, power_w, elapsed_s, estimated)
            unheard_s = 0.0 if estimated else min(now_s - energy.valid_s, elapsed_s + BLIND_AFTER_S)
            beyond_j = _beyond_j(energy, power_w, unheard_s)
            ledger = ledger.corrected(beyond_j + _unshown_j(energy, device, mean))
            share = min(1.0, unheard_s / DOUBT_OVER_S)
            doubt += min(beyond_j**2 / DOUBT_OVER_S, STEP * share * doubt) - share * doubt
    energy = replace(
        energy,
        mean=mean,
        cov=cov,
        pending_j=(),
        sensed_s=now_s,
        valid_s=valid_s,
        peak_w=peak_w,
        doubt=doubt,
        book=ledger,
        metered=energy.metered or power_w is not None,
    )
    return energy, modelled_w


def booked(energy: Energy, tables: Tables, clock: int, junction_c: float, now_s: float) -> Book:
    """The book up to now, by the model: what ran since the last reading has been drawn whether a meter spoke or not."""
    elapsed_s, ledger = now_s - energy.sensed_s, energy.book
    if elapsed_s <= 0:
        return ledger
    rest_w = _base_w(tables, clock, junction_c) + energy.other_w + energy.blind_w(now_s)
    for until_s, bin_s, busy_w in _binned(energy, elapsed_s, now_s):
        ledger = ledger.drew(rest_w + float(energy.mean[1:] @ busy_w), bin_s, until_s)
    return ledger


def _base_w(tables: Tables, clock: int, junction_c: float) -> float:
    return float(tables.idle_w[clock]) + tables.device.leakage_w_per_c * (junction_c - 25.0)


def _binned(energy: Energy, elapsed_s: float, now_s: float) -> list[tuple[float, float, Array]]:
    """The time since the last reading in the bins of `pending_j`: (its end, its length, nominal watts by variant). The
    last takes the rest of the time, and all that ran in it."""
    count = min(BINS, max(1, round(elapsed_s / BIN_S)))
    joules = np.zeros((count, len(energy.busy_w)))
    for k, there in enumerate(energy.pending_j):
        joules[min(k, count - 1)] += there
    begun_s, rest_s = now_s - elapsed_s, elapsed_s - (count - 1) * BIN_S
    bins = [(begun_s + (k + 1) * BIN_S, BIN_S, joules[k] / BIN_S) for k in range(count - 1)]
    return [*bins, (now_s, rest_s, joules[-1] / rest_s)]


def _shown(energy: Energy, device: Device, past: list[tuple[float, float, float, Array]]) -> Energy:
    """What the sensor shows now, after `past`: what was, `lag` late and averaged."""
    shown_s = past[-1][0] - device.sensor_lag_s
    lagged = [*energy.lagged, *past]
    busy_w, base_w, showing = energy.busy_w, energy.base_w, energy.showing
    while lagged and lagged[0][0] - lagged[0][1] < shown_s - 1e-6:
        until_s, lasted_s, then_base_w, then_busy_w = lagged.pop(0)
        if until_s > shown_s + 1e-6:
            lagged.insert(0, (until_s, until_s - shown_s, then_base_w, then_busy_w))
            lasted_s -= until_s - shown_s
        gain = 1.0 - math.exp(-lasted_s / max(1e-3, device.sensor_mean_s))
        busy_w = busy_w + gain * (then_busy_w - busy_w)
        base_w += gain * (then_base_w - base_w)
        showing = True
    return replace(energy, lagged=tuple(lagged), busy_w=busy_w, base_w=base_w, showing=showing)


def _beyond_j(energy: Energy, power_w: float, unheard_s: float) -> float:
    """What the meter saw beyond the model in the time that a reading speaks for. With it the book is the meter's own
    sum: a load is booked from when it came, however slowly it was recognised."""
    return (power_w - energy.base_w - energy.other_w - float(energy.mean[1:] @ energy.busy_w)) * unheard_s


def _unshown_j(energy: Energy, device: Device, mean: Array) -> float:
    """By how much what was drawn and is yet to be shown differs by `mean`, which is believed now."""
    h = np.concatenate([[1.0], energy.busy_w])
    unshown_j = device.sensor_mean_s * h
    for _, lasted_s, _, busy_w in energy.lagged:
        unshown_j += lasted_s * np.concatenate([[1.0], busy_w])
    return float(unshown_j @ (mean - energy.mean))


def _corrected(energy: Energy, power_w: float, elapsed_s: float, estimated: bool) -> tuple[Array, Array]:
    h = np.concatenate([[1.0], energy.busy_w])
    cov = energy.cov.copy()
    drift = np.array([OTHER_DRIFT_PER_S] + [FACTOR_DRIFT_PER_S] * len(energy.busy_w)) * elapsed_s
    np.fill_diagonal(cov, np.minimum(energy.most_var, cov.diagonal() + drift))
    residual = power_w - energy.base_w - float(h @ energy.mean)
    noise = ((ESTIMATED_NOISE_SHARE if estimated else NOISE_SHARE) * power_w) ** 2 + NOISE_VAR
    towards = cov @ h
    total = float(h @ towards) + noise
    if residual * residual > STEP * total:
        cov[0, 0] += residual * residual * 0.5
        towards = cov @ h
        total = float(h @ towards) + noise
    gain = towards / total
    mean = energy.mean + gain * residual
    mean[1:] = np.clip(mean[1:], *energy.factor_range)
    return mean, cov - np.outer(gain, towards)
