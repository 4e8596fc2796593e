"""What a batch costs and what else the device draws: sensed power and batches in, watts and factors out. Pure.

Equation P1: sensed power = idle(clock) + leakage(T) + background + sum over variants of energy_factor * busy power,
through the sensor's lag and averaging; a Kalman filter over [background, energy factors]. What ran between two readings
is kept in short bins, for meters that answer once a second. A step in the residual opens `background`: another load has
come. Without a profile the factors start wide and bound to each other; there is one for each variant and clock, and one
for what idling saves at lower clocks. It changes in place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from edged.governor.estimators import power_history
from edged.governor.estimators.power_history import PowerHistory
from edged.governor.planner.options import Array, Tables

BACKGROUND_VAR: Final = 0.6
BACKGROUND_VAR_MAX: Final = 4.0
BACKGROUND_DRIFT_PER_S: Final = 0.02
FACTOR_VAR: Final = 0.03
FACTOR_VAR_MAX: Final = 0.04
FACTOR_DRIFT_PER_S: Final = 2e-5
FACTOR_RANGE: Final = (0.3, 3.0)
ASSUMED_COMMON_VAR: Final = 1.0
ASSUMED_VAR: Final = 0.3
ASSUMED_RANGE: Final = (0.02, 30.0)
"""Where the watts of a variant are a guess: most of its error is common to all, and everything is possible."""
CLOCK_VAR: Final = 0.1
CELL_VAR: Final = 0.02
"""The same at each clock: what is common to all variants there, and a variant's own."""
IDLE_SHARE_SPREAD: Final = 0.1
IDLE_SHARE_MOST: Final = 0.4
"""How far the guess of the share of idle power that goes with the clock may be off, usually and at most."""
LEARNT_SHARE: Final = 0.3  # a guess whose error has become smaller than this share of it has been learnt
LEARNT_OWN: Final = 0.8
"""And smaller than this share of what is not common to all: else it is the others that have been learnt."""
NOISE_SHARE: Final = 0.02
ESTIMATED_NOISE_SHARE: Final = 0.10
NOISE_VAR: Final = 0.03
STEP: Final = 9.0  # squared standard deviations beyond which a residual is a step of another load
STALL_ENERGY: Final = 0.6  # share of a batch's energy that does not grow when contention stretches it
PEAK_FADE_W_PER_S: Final = 0.004
METER_NOISE_OVER_S: Final = 60.0
METER_NOISE_FIRST: Final = 0.01  # what `meter_noise` starts from: readings that are 0.2 W off, four a second
STALE_AFTER_S: Final = 1.0
STALE_OVER_S: Final = 4.0
BIN_S: Final = 0.2
TIMING_S: Final = BIN_S  # the moments at which frames ran and a reading was taken are known to this
BINS: Final = 50  # so many at most: while no reading comes, the last takes in all that runs


@dataclass(slots=True)
class Power:
    """`mean`, `cov`: of [background, energy factor by variant]; where the watts at several `clocks` are a guess, of
    [background, energy factor by variant and clock, idle share beyond the guess], of which `slope_w` makes watts by
    clock. `most_var`: what the variances may grow to. `pending_j`: nominal joules by factor run since the last reading,
    by bin. `lagged`: what the sensor has not shown yet; `busy_w`, `base_w`: what it shows; `newest_w`: what its average
    begins to take in now. `valid_s`: the last reading that had power. `peak_w`: recent peak of the background.
    `meter_noise`: squared joules a second by which readings and model differ. `metered`: power was ever read.
    `guessed`: 1 for each factor that is a guess."""

    mean: Array
    cov: Array
    most_var: Array
    factor_low: Array
    factor_high: Array
    pending_j: list[list[float]]
    busy_w: Array
    base_w: float
    history: PowerHistory
    lagged: list[tuple[float, float, float, Array]]
    guessed: Array
    newest_w: Array
    clocks: int
    slope_w: Array
    showing: bool = False
    sensed_s: float = 0.0
    valid_s: float = 0.0
    peak_w: float = 0.0
    meter_noise: float = METER_NOISE_FIRST
    metered: bool = False
    lag_s: float = 0.0
    mean_s: float = 0.4

    @property
    def background_w(self) -> float:
        return float(self.mean[0])

    @property
    def background_error_w(self) -> float:
        return math.sqrt(max(0.0, float(self.cov[0, 0])))

    def doubt_j(self, window_s: float) -> float:
        """How far the history may be off over a window for the meter's noise."""
        return math.sqrt(self.meter_noise * window_s)

    @property
    def frames_w(self) -> Array:
        """Nominal watts of the frames by variant, as the sensor shows them."""
        return np.asarray(self.busy_w[: self._cells].reshape(-1, self.clocks).sum(1))

    @property
    def _cells(self) -> int:
        return len(self.busy_w) - (self.clocks > 1)

    def _cell(self, variant: int, clock: int) -> int:
        return variant * self.clocks + min(clock, self.clocks - 1)

    def factor(self, variant: int, clock: int) -> float:
        return float(self.mean[1 + self._cell(variant, clock)])

    def error(self, variant: int, clock: int) -> float:
        """Standard error of the factor."""
        j = 1 + self._cell(variant, clock)
        return math.sqrt(max(0.0, float(self.cov[j, j])))

    def learnt(self, variant: int, clock: int) -> bool:
        """Whether the watts of a variant without a profile are known by now."""
        error, factor = self.error(variant, clock), self.factor(variant, clock)
        return error < min(LEARNT_OWN * math.sqrt(ASSUMED_VAR), LEARNT_SHARE * max(LEARNT_SHARE, factor))

    def rest_w(self, tables: Tables, clock: int, junction_c: float) -> float:
        """Drawn at rest, other loads apart, as estimated now."""
        beyond_guess_w = float(self.mean[-1] * self.slope_w[clock]) if self.clocks > 1 else 0.0
        return base_power_w(tables, clock, junction_c) + beyond_guess_w

    def stale_margin_w(self, now_s: float) -> float:
        """What to add to the background for not having seen the device for a while: up to its recent peak, and how far
        that may be off."""
        if not self.metered:
            return 0.0
        stale = min(1.0, max(0.0, now_s - self.valid_s - STALE_AFTER_S) / STALE_OVER_S)
        return (max(0.0, self.peak_w - self.background_w) + self.background_error_w) * stale

    def ran(self, variant: int, clock: int, nominal_j: float, now_s: float) -> None:
        k = min(BINS - 1, max(0, int((now_s - self.sensed_s) / BIN_S)))
        pending = self.pending_j
        while len(pending) <= k:
            pending.append([0.0] * len(self.busy_w))
        pending[k][self._cell(variant, clock)] += nominal_j

    def sensed(
        self, tables: Tables, clock: int, junction_c: float, power_w: float | None, now_s: float, estimated: bool
    ) -> float:
        """After a sample (`power_w` None: the sensor is silent). The mean power since the last one, by the model."""
        elapsed_s = now_s - self.sensed_s
        history = self.predicted(tables, clock, junction_c, now_s)
        modelled_w = (history.drawn_j - self.history.drawn_j) / elapsed_s
        self.history = history
        base_w = base_power_w(tables, clock, junction_c)
        past = [(until_s, bin_s, base_w, busy_w) for until_s, bin_s, busy_w in self._binned(clock, elapsed_s, now_s)]
        self._show(past)
        if power_w is not None:
            if self.showing:
                self._learn(power_w, elapsed_s, now_s, estimated)
            self.valid_s = now_s
            self.peak_w = max(self.background_w, self.peak_w - PEAK_FADE_W_PER_S * elapsed_s)
            self.metered = True
        self.pending_j, self.sensed_s = [], now_s
        return modelled_w

    def predicted(self, tables: Tables, clock: int, junction_c: float, now_s: float) -> PowerHistory:
        """A copy of the history, up to now by the model."""
        elapsed_s, history = now_s - self.sensed_s, replace(self.history, seconds_j=self.history.seconds_j.copy())
        if elapsed_s <= 0:
            return history
        rest_w = base_power_w(tables, clock, junction_c) + self.background_w + self.stale_margin_w(now_s)
        for until_s, bin_s, busy_w in self._binned(clock, elapsed_s, now_s):
            history.add(rest_w + float(self.mean[1:] @ busy_w), bin_s, until_s)
        return history

    def _binned(self, clock: int, elapsed_s: float, now_s: float) -> list[tuple[float, float, Array]]:
        """The time since the last sample in bins: (end, length, nominal watts by factor); the last takes the rest."""
        count = min(BINS, max(1, round(elapsed_s / BIN_S)))
        joules = np.zeros((count, len(self.busy_w)))
        for k, there in enumerate(self.pending_j):
            joules[min(k, count - 1)] += there
        begun_s, rest_s = now_s - elapsed_s, elapsed_s - (count - 1) * BIN_S
        if self.clocks > 1:
            joules[:, -1] = self.slope_w[clock] * BIN_S
            joules[-1, -1] = self.slope_w[clock] * rest_s
        bins = [(begun_s + (k + 1) * BIN_S, BIN_S, joules[k] / BIN_S) for k in range(count - 1)]
        return [*bins, (now_s, rest_s, joules[-1] / rest_s)]

    def _show(self, past: list[tuple[float, float, float, Array]]) -> None:
        """What the sensor shows now, after `past`: what was, `lag_s` late and averaged over `mean_s`."""
        shown_s = past[-1][0] - self.lag_s
        lagged = [*self.lagged, *past]
        self.newest_w = lagged[0][3]
        while lagged and lagged[0][0] - lagged[0][1] < shown_s - 1e-6:
            until_s, lasted_s, base_w, busy_w = lagged.pop(0)
            if until_s > shown_s + 1e-6:
                lagged.insert(0, (until_s, until_s - shown_s, base_w, busy_w))
                lasted_s -= until_s - shown_s
            gain = 1.0 - math.exp(-lasted_s / self.mean_s)
            self.busy_w = self.busy_w + gain * (busy_w - self.busy_w)
            self.base_w += gain * (base_w - self.base_w)
            self.showing = True
        self.lagged = lagged

    def _learn(self, power_w: float, elapsed_s: float, now_s: float, estimated: bool) -> None:
        unseen_s = 0.0 if estimated else min(now_s - self.valid_s, elapsed_s + STALE_AFTER_S)
        # with what the meter saw beyond the model the history is the meter's own sum
        beyond_j = (power_w - self.base_w - self.background_w - float(self.mean[1:] @ self.busy_w)) * unseen_s
        before = self.mean
        self.mean, self.cov = self._corrected(power_w, elapsed_s, estimated)
        self.history.correct(beyond_j + self._unshown_j(self.mean - before))
        share = min(1.0, unseen_s / METER_NOISE_OVER_S)
        noise = self.meter_noise
        self.meter_noise += min(beyond_j**2 / METER_NOISE_OVER_S, STEP * share * noise) - share * noise

    def _unshown_j(self, change: Array) -> float:
        """What a `change` of the mean says of the energy that was drawn and is not shown yet."""
        unshown_j = self.mean_s * np.concatenate([[1.0], self.busy_w])
        for _, lasted_s, _, busy_w in self.lagged:
            unshown_j += lasted_s * np.concatenate([[1.0], busy_w])
        return float(unshown_j @ change)

    def _timing_error_w(self) -> float:
        """How far what is shown may be off while it changes. For guessed factors, which learn much from one reading."""
        moving = np.abs(self.newest_w - self.busy_w) * self.guessed
        return min(1.0, TIMING_S / self.mean_s) * float(moving @ self.mean[1:])

    def _corrected(self, power_w: float, elapsed_s: float, estimated: bool) -> tuple[Array, Array]:
        h = np.concatenate([[1.0], self.busy_w])
        cov = self.cov.copy()
        drift = np.array([BACKGROUND_DRIFT_PER_S] + [FACTOR_DRIFT_PER_S] * len(self.busy_w)) * elapsed_s
        np.fill_diagonal(cov, np.minimum(self.most_var, cov.diagonal() + drift))
        residual = power_w - self.base_w - float(h @ self.mean)
        noise = ((ESTIMATED_NOISE_SHARE if estimated else NOISE_SHARE) * power_w) ** 2 + NOISE_VAR
        noise += self._timing_error_w() ** 2
        towards = cov @ h
        total = float(h @ towards) + noise
        if residual * residual > STEP * total:
            cov[0, 0] += residual * residual * 0.5
            towards = cov @ h
            total = float(h @ towards) + noise
        gain = towards / total
        mean = self.mean + gain * residual
        mean[1:] = np.clip(mean[1:], self.factor_low, self.factor_high)
        return mean, cov - np.outer(gain, towards)


def start(tables: Tables, clock: int, window_s: int, quiet: bool = False) -> Power:
    """`quiet`: the idle power of an assumed device was measured while no frame ran."""
    n, clocks = len(tables.names), len(tables.device.clock_ratio)
    guessed = np.repeat(np.array(tables.assumed, float), clocks)
    idle_w = float(tables.idle_w[clock])
    background_var, background_max = BACKGROUND_VAR, BACKGROUND_VAR_MAX
    if quiet:
        background_var = (NOISE_SHARE * idle_w) ** 2 + NOISE_VAR
    elif tables.device.assumed:
        background_var, background_max = max(background_var, (0.3 * idle_w) ** 2), max(background_max, idle_w**2)
    bound = ASSUMED_COMMON_VAR + ASSUMED_VAR * np.kron(np.eye(n), np.ones((clocks, clocks)))
    if clocks > 1:
        bound += CLOCK_VAR * np.kron(np.ones((n, n)), np.eye(clocks)) + CELL_VAR * np.eye(n * clocks)
    factor_var = np.where(guessed, bound.diagonal(), FACTOR_VAR_MAX)
    low = np.where(guessed, ASSUMED_RANGE[0], FACTOR_RANGE[0])
    high = np.where(guessed, ASSUMED_RANGE[1], FACTOR_RANGE[1])
    mean, slope_w = np.append(0.0, np.ones(len(guessed))), np.zeros(clocks)
    most_var = np.append(background_max, factor_var)
    cov = np.diag(np.append(background_var, np.where(guessed, 0.0, FACTOR_VAR)))
    cov[1:, 1:] += np.outer(guessed, guessed) * bound
    if clocks > 1:
        slope_w = float(tables.idle_w[-1]) * (1.0 - np.array(tables.device.clock_ratio))
        cov, most_var = np.pad(cov, (0, 1)), np.append(most_var, IDLE_SHARE_SPREAD**2)
        cov[-1, -1] = most_var[-1]
        mean, guessed = np.append(mean, 0.0), np.append(guessed, 0.0)
        low, high = np.append(low, -IDLE_SHARE_MOST), np.append(high, IDLE_SHARE_MOST)
    none, history = np.zeros(len(mean) - 1), power_history.start(float(tables.idle_w[0]), window_s)
    return Power(mean, cov, most_var, low, high, [], none, idle_w, history, [], guessed, none.copy(), clocks, slope_w)


def base_power_w(tables: Tables, clock: int, junction_c: float) -> float:
    """Drawn at rest by the profile: idle and leakage."""
    return float(tables.idle_w[clock]) + tables.device.leakage_w_per_c * (junction_c - 25.0)
