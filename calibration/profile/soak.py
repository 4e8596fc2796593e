"""Thermal constants of a device from a soak: a load of some length, a rest, and the two-node heat model fitted to it.

In: work that heats the device, its power meter and its thermometer. Out: a `Thermal`, or the reason why the history
does not determine one. `fit_heat` is pure; `soak` runs on one thread for the given time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edged import clock
from edged.engines.device_profile import Thermal
from edged_calibration.profile.power_meter import PowerMeter
from edged_calibration.progress import Advance, silent

LOAD_SHARE: Final = 0.6
"""Of the soak's time; the rest cools, and shows the idle power at each temperature."""
POINT_S: Final = 1.0
GRID: Final = 16
"""Time constants that are tried for each node, REFINEMENTS times, each time a few steps around the best pair: the error
has a narrow valley along both axes, so the best of a coarse grid may lie some steps from it."""
REFINEMENTS: Final = 7
STEPS_AROUND: Final = 3
MOST_ROWS: Final = 600
"""Of the least squares; the filters run over every point."""
SHORTEST_S: Final = 1.0
LEAST_RATIO: Final = 1.5
"""Of the slow time constant to the fast one: closer, the two cannot be separated."""
LEAST_RISE_C: Final = 3.0
"""A device that gets less warm than this has no heat to model: the sensors' steps are up to 0.5 degrees."""
MOST_ERROR_C: Final = 1.0
"""Root mean square; the model is refused above."""
LEAST_POINTS: Final = 60


class Point(NamedTuple):
    """`power_w`: mean since the point before."""

    at_s: float
    power_w: float | None
    temperature_c: float | None
    loaded: bool


def soak(work: Callable[[], object], meter: PowerMeter, seconds: float, advance: Advance = silent) -> list[Point]:
    """Run `work` again and again for the first part of `seconds`, rest for the second; a point a second."""
    history: list[Point] = []
    start_ns = clock.mono_ns()
    spent_s = 0.0
    while spent_s < seconds:
        loaded = spent_s < LOAD_SHARE * seconds
        meter.start()
        begun_ns = clock.mono_ns()
        while clock.mono_ns() - begun_ns < POINT_S * clock.NS_PER_S:
            if loaded:
                work()
            else:
                clock.sleep_s(0.05)
            meter.tick()
        joules = meter.stop()
        spent_s = (clock.mono_ns() - start_ns) / clock.NS_PER_S
        celsius = None if meter.last is None else meter.last.temperature_c
        history.append(Point(spent_s, None if joules is None else joules / meter.spent_s, celsius, loaded))
        advance(min(int(spent_s), int(seconds)), int(seconds))
    return history


def fit_heat(history: Sequence[Point]) -> tuple[Thermal | None, str]:
    """The constants, or None with the reason.

    For two time constants the temperature is linear in its other unknowns: T(t) = c + g1 L1(t) + g2 L2(t) + e1 x1 + e2
    x2, with Li the power through a low-pass filter of time constant i and xi the decay from the start. So a grid of
    pairs of time constants is tried, each by linear least squares, and the best pair is turned from the sum of two
    stages (Foster's network) into the chain junction, sink, air (Cauer's).
    """
    points = [(p.at_s, p.power_w, p.temperature_c) for p in history if p.power_w is not None and p.temperature_c]
    if len(points) < LEAST_POINTS:
        return None, f"{len(points)} readings of power and temperature, {LEAST_POINTS} are needed: a longer soak"
    times, watts, celsius = np.array(points, np.float64).T
    if np.ptp(celsius) < LEAST_RISE_C:
        return None, f"the temperature changed by {np.ptp(celsius):.1f} degrees, {LEAST_RISE_C:g} are needed"
    longest_s = float(times[-1] - times[0]) / 2
    fast_s = slow_s = np.geomspace(SHORTEST_S, longest_s, GRID)
    best: _Fit | None = None
    for _ in range(REFINEMENTS):
        found = _best_pair(times, watts, celsius, fast_s, slow_s)
        if found is None:
            break
        best = found
        fast_s, slow_s = (
            np.geomspace(tau / width, tau * width, GRID)
            for tau, width in (
                (best.fast_s, (fast_s[1] / fast_s[0]) ** STEPS_AROUND),
                (best.slow_s, (slow_s[1] / slow_s[0]) ** STEPS_AROUND),
            )
        )
    if best is None:
        return None, "the temperature does not follow the power"
    if best.error_c > MOST_ERROR_C:
        return None, f"two heat nodes are off by {best.error_c:.1f} degrees: did a fan change its speed?"
    if best.slow_s >= 0.9 * longest_s:
        return None, "the temperature had not settled: a longer soak"
    return _chain(best, _leakage(history)), ""


class _Fit(NamedTuple):
    error_c: float
    fast_s: float
    slow_s: float
    fast_c_per_w: float
    slow_c_per_w: float


def _best_pair(
    times: NDArray[np.float64],
    watts: NDArray[np.float64],
    celsius: NDArray[np.float64],
    fast_s: NDArray[np.float64],
    slow_s: NDArray[np.float64],
) -> _Fit | None:
    """The pair of time constants with the least error, each stage with a positive resistance; None if there is none."""
    rows = slice(None, None, len(times) // MOST_ROWS + 1)
    fast_watts, slow_watts = _low_pass(times, watts, fast_s)[rows], _low_pass(times, watts, slow_s)[rows]
    since_s, celsius = times[rows, None] - times[0], celsius[rows]
    fast_decay, slow_decay = np.exp(-since_s / fast_s), np.exp(-since_s / slow_s)
    ones = np.ones(len(celsius))
    best: _Fit | None = None
    for i, fast in enumerate(fast_s):
        for j, slow in enumerate(slow_s):
            if slow < LEAST_RATIO * fast:
                continue
            columns = np.stack((ones, fast_watts[:, i], slow_watts[:, j], fast_decay[:, i], slow_decay[:, j]), 1)
            found, *_ = np.linalg.lstsq(columns, celsius, rcond=None)
            error_c = float(np.sqrt(np.mean((columns @ found - celsius) ** 2)))
            if found[1] > 0 and found[2] > 0 and (best is None or error_c < best.error_c):
                best = _Fit(error_c, float(fast), float(slow), float(found[1]), float(found[2]))
    return best


def _chain(fit: _Fit, leakage_w_per_c: float) -> Thermal:
    """Foster to Cauer: Z(s) = g1 / (1 + s t1) + g2 / (1 + s t2) as a continued fraction."""
    total = fit.fast_c_per_w + fit.slow_c_per_w
    cross = fit.fast_c_per_w * fit.slow_s + fit.slow_c_per_w * fit.fast_s
    junction_j_per_c = fit.fast_s * fit.slow_s / cross
    rest_s = fit.fast_s + fit.slow_s - junction_j_per_c * total
    junction_sink = cross / rest_s
    sink_air = total - junction_sink
    return Thermal(
        junction_j_per_c=round(junction_j_per_c, 4),
        sink_j_per_c=round(rest_s / sink_air, 4),
        junction_sink_c_per_w=round(junction_sink, 4),
        sink_air_c_per_w=round(sink_air, 4),
        leakage_w_per_c=round(leakage_w_per_c, 5),
    )


def _leakage(history: Sequence[Point]) -> float:
    """Watts per degree by which the power at rest falls as the device cools; 0 where that cannot be seen."""
    rest = [(p.temperature_c, p.power_w) for p in history if not p.loaded and p.power_w is not None and p.temperature_c]
    rest = rest[2:]  # the meter may answer late
    if len(rest) < LEAST_POINTS // 3:
        return 0.0
    celsius, watts = np.array(rest, np.float64).T
    if np.ptp(celsius) < LEAST_RISE_C:
        return 0.0
    return max(0.0, float(np.polyfit(celsius, watts, 1)[0]))


def _low_pass(times: NDArray[np.float64], watts: NDArray[np.float64], taus: NDArray[np.float64]) -> NDArray[np.float64]:
    """(points, taus): the power through each filter, from 0; a point's power is the mean since the one before."""
    filtered = np.zeros((len(times), len(taus)))
    for k in range(1, len(times)):
        share = 1 - np.exp(-(times[k] - times[k - 1]) / taus)
        filtered[k] = filtered[k - 1] + share * (watts[k] - filtered[k - 1])
    return filtered
