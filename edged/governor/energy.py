"""What an inference costs and what the device draws: sensed power and runs in, joules with a book per second out. Pure.

sensed power = idle(clock) + leakage(T) + other + sum over variants of factor * busy power, through the sensor's lag and
averaging; a Kalman filter over [other, factors]. A step in the residual opens `other`: a co-runner came. Between
readings the book is kept from the model; each reading corrects it by what it taught.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from edged.governor.tables import Array, Tables

OTHER_VAR: Final = 0.6
OTHER_VAR_MAX: Final = 4.0
OTHER_DRIFT_PER_S: Final = 0.02
FACTOR_VAR: Final = 0.03
FACTOR_VAR_MAX: Final = 0.04
FACTOR_DRIFT_PER_S: Final = 2e-5
FACTOR_RANGE: Final = (0.5, 1.8)
STEP: Final = 9.0
"""Squared standard deviations beyond which a residual is a step of another load."""
STALL_ENERGY: Final = 0.6
"""Share of an inference's energy that does not grow when contention stretches it."""
USUAL_OVER_S: Final = 120.0
USUAL_FIRST_S: Final = 5.0
PEAK_FADE_W_PER_S: Final = 0.004
BLIND_AFTER_S: Final = 1.0
BLIND_OVER_S: Final = 4.0


@dataclass(frozen=True)
class Energy:
    """`mean`, `cov`: of [other, factor by variant]. `pending_j`: nominal joules run since the last reading. `lagged`:
    what the sensor has not shown yet. `book_j`: joules of the last seconds, oldest first, `book_s` the second that the
    last entry is of. `peak_w`: of `other`, for blind times."""

    mean: Array
    cov: Array
    pending_j: tuple[float, ...]
    lagged: tuple[tuple[float, float, float, Array], ...]
    busy_w: Array
    base_w: float
    showing: bool
    sensed_s: float
    valid_s: float
    peak_w: float
    book_j: tuple[float, ...]
    book_s: int
    usual_w: float
    """mean over a longer past"""

    @property
    def other_w(self) -> float:
        return float(self.mean[0])

    @property
    def other_error_w(self) -> float:
        return math.sqrt(max(0.0, float(self.cov[0, 0])))

    def factor(self, variant: int) -> float:
        return float(self.mean[1 + variant])

    def blind_w(self, now_s: float) -> float:
        """What to add to `other` for not having seen the device for a while: its recent peak."""
        blind = min(1.0, max(0.0, now_s - self.valid_s - BLIND_AFTER_S) / BLIND_OVER_S)
        return max(0.0, self.peak_w - self.other_w) * blind


def fresh(tables: Tables, clock: int, window_s: int) -> Energy:
    n = len(tables.names)
    return Energy(
        mean=np.concatenate([[0.0], np.ones(n)]),
        cov=np.diag([OTHER_VAR] + [FACTOR_VAR] * n),
        pending_j=(0.0,) * n,
        lagged=(),
        busy_w=np.zeros(n),
        base_w=float(tables.idle_w[clock]),
        showing=False,
        sensed_s=0.0,
        valid_s=0.0,
        peak_w=0.0,
        book_j=(float(tables.idle_w[0]),) * window_s + (0.0,),
        book_s=0,
        usual_w=math.inf,
    )


def resized(energy: Energy, window_s: int) -> Energy:
    """With a book of another length; what lies further back is taken to have been the usual."""
    more = window_s + 1 - len(energy.book_j)
    if more <= 0:
        return replace(energy, book_j=energy.book_j[-more:])
    usual_j = energy.usual_w if math.isfinite(energy.usual_w) else energy.book_j[0]
    return replace(energy, book_j=(*(usual_j,) * more, *energy.book_j))


def ran(energy: Energy, variant: int, nominal_j: float) -> Energy:
    pending = energy.pending_j
    return replace(energy, pending_j=(*pending[:variant], pending[variant] + nominal_j, *pending[variant + 1 :]))


def sensed(
    energy: Energy, tables: Tables, clock: int, junction_c: float, power_w: float | None, now_s: float
) -> tuple[Energy, float]:
    """After a reading (None: the sensor is silent, time passed all the same); also the power of the time since the last
    one, by the model."""
    elapsed_s = now_s - energy.sensed_s
    if elapsed_s <= 0:
        return energy, float("nan")
    device = tables.device
    busy_w = np.array(energy.pending_j) / elapsed_s
    base_w = float(tables.idle_w[clock]) + device.leakage_w_per_c * (junction_c - 25.0)
    modelled_w = base_w + energy.other_w + float(energy.mean[1:] @ busy_w)
    energy = _booked(energy, now_s, modelled_w * elapsed_s)
    usual_w = energy.usual_w if math.isfinite(energy.usual_w) else modelled_w
    usual_w += min(1.0, elapsed_s / min(USUAL_OVER_S, max(USUAL_FIRST_S, now_s))) * (modelled_w - usual_w)
    energy = _shown(energy, tables, (now_s, elapsed_s, base_w, busy_w))
    valid_s, peak_w = energy.valid_s, energy.peak_w
    mean, cov, book = energy.mean, energy.cov, energy.book_j
    if power_w is not None:
        valid_s, peak_w = now_s, max(energy.other_w, peak_w - PEAK_FADE_W_PER_S * elapsed_s)
        if energy.showing:
            mean, cov = _corrected(energy, power_w, elapsed_s)
            seen_late_s = min(1.0, device.sensor_lag_s + device.sensor_mean_s)
            book = (*book[:-1], book[-1] + (float(mean[0]) - energy.other_w) * seen_late_s)
    none = (0.0,) * len(energy.pending_j)
    energy = replace(
        energy,
        mean=mean,
        cov=cov,
        pending_j=none,
        sensed_s=now_s,
        valid_s=valid_s,
        peak_w=peak_w,
        book_j=book,
        usual_w=usual_w,
    )
    return energy, modelled_w


def _booked(energy: Energy, now_s: float, joules: float) -> Energy:
    """Joules of the time just before now into the book of their second."""
    second = int(now_s - 1e-9)
    passed = second - energy.book_s
    book = energy.book_j
    if passed > 0:
        book = (*book, *(0.0,) * min(passed, len(book)))[-len(book) :]
    return replace(energy, book_j=(*book[:-1], book[-1] + joules), book_s=max(second, energy.book_s))


def _shown(energy: Energy, tables: Tables, now: tuple[float, float, float, Array]) -> Energy:
    """What the sensor shows by now: the past, `lag` late and averaged."""
    device = tables.device
    until_s = now[0] - device.sensor_lag_s + 1e-6
    lagged = [*energy.lagged, now]
    busy_w, base_w, showing = energy.busy_w, energy.base_w, energy.showing
    while lagged and lagged[0][0] <= until_s:
        _, lasted_s, then_base_w, then_busy_w = lagged.pop(0)
        gain = 1.0 - math.exp(-lasted_s / max(1e-3, device.sensor_mean_s))
        busy_w = busy_w + gain * (then_busy_w - busy_w)
        base_w += gain * (then_base_w - base_w)
        showing = True
    return replace(energy, lagged=tuple(lagged), busy_w=busy_w, base_w=base_w, showing=showing)


def _corrected(energy: Energy, power_w: float, elapsed_s: float) -> tuple[Array, Array]:
    h = np.concatenate([[1.0], energy.busy_w])
    cov = energy.cov.copy()
    cov[0, 0] = min(OTHER_VAR_MAX, cov[0, 0] + OTHER_DRIFT_PER_S * elapsed_s)
    for j in range(1, len(cov)):
        cov[j, j] = min(FACTOR_VAR_MAX, cov[j, j] + FACTOR_DRIFT_PER_S * elapsed_s)
    residual = power_w - energy.base_w - float(h @ energy.mean)
    noise = (0.02 * power_w) ** 2 + 0.03
    towards = cov @ h
    total = float(h @ towards) + noise
    if residual * residual > STEP * total:
        cov[0, 0] += residual * residual * 0.5
        towards = cov @ h
        total = float(h @ towards) + noise
    gain = towards / total
    mean = energy.mean + gain * residual
    mean[1:] = np.clip(mean[1:], *FACTOR_RANGE)
    return mean, cov - np.outer(gain, towards)
