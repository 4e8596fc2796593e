"""What a backlog and a joule are worth: the slow path's little dynamic programme. Pure.

For each clock and each price of a joule on a grid, relative value iteration over the backlog w (warm-started from the
last time, a few sweeps each):
  H(w) + g = mean over difficulties of max over options of [frames * P(on time) * accuracy - mu * late - price * joules
             + H(w + busy - period)], against skipping: H(w - period) - what giving the frames up costs.
g is the gain per period; H what the backlog takes from the frames to come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edged.governor.estimators.latency import BIN, BINS, LOW, Latency
from edged.governor.planner.options import Array, Option, Tables

GRID: Final = 22
PRICES: Final = 16
SWEEPS: Final = 4
ROUND_UP: Final = 1.01
"""Busy times are taken a little long: noise is skew."""


@dataclass(frozen=True)
class Worth:
    """`prices`: the grid, per joule. `value`: H by clock, price, backlog; `gain`: g by clock and price."""

    prices: Array
    backlog_s: Array
    value: Array
    gain: Array


@dataclass(frozen=True)
class Terms:
    """What the frames of now look like to the programme."""

    deadline_s: float
    period_s: float
    late_price: float
    given_up_price: Array
    """by price of a joule"""
    difficulties: tuple[float, ...]
    allowed: tuple[bool, ...]
    """by variant"""
    options: tuple[Option, ...]
    """for the frames of a period"""
    joules: Array
    """by clock and option"""


def fresh(tables: Tables, deadline_s: float) -> Worth:
    nominal_j = (tables.latency_s * tables.active_w).min(1)
    known = nominal_j[nominal_j > 0]
    scale = 0.8 / float(np.median(known)) if len(known) else 1.0
    prices = np.concatenate([[0.0], scale * np.geomspace(0.006, 6.0, PRICES - 1)])
    clocks = tables.clocks
    return Worth(
        prices,
        np.linspace(0.0, deadline_s * 1.05, GRID),
        np.zeros((clocks, PRICES, GRID)),
        np.zeros((clocks, PRICES)),
    )


def iterate(worth: Worth, tables: Tables, latency: Latency, terms: Terms) -> Worth:
    w, prices = worth.backlog_s, worth.prices
    options = [o for o in terms.options if terms.allowed[o.variant]]
    keep = [i for i, o in enumerate(terms.options) if terms.allowed[o.variant]]
    variant = np.array([o.variant for o in options])
    frames = np.array([float(o.frames) for o in options])
    times = np.array([o.times for o in options])
    usual = np.exp([latency.log_factor(v) for v in range(len(tables.names))])
    busy_s = ((tables.latency_s * usual[:, None])[variant] * times[:, None]).T  # clock x option
    stall_s = tables.device.switch_ms / 1000
    left_s = np.maximum(1e-4, terms.deadline_s - w[None, :, None] - 0.4 * stall_s)
    on_time = _on_time(latency, np.log(left_s / busy_s[:, None, :]))  # clock x backlog x option
    accuracy = np.array(
        [[tables.easy[o.variant] - tables.slope[o.variant] * d for o in options] for d in terms.difficulties]
    )
    earned = on_time[:, :, None, :] * (accuracy * frames)[None, None]
    earned = earned - (terms.late_price * (1 - on_time) * frames)[:, :, None, :]
    step = w[1] - w[0]
    after = (
        np.clip(w[None, :, None] + busy_s[:, None, :] * ROUND_UP + 0.3 * stall_s - terms.period_s, 0.0, w[-1]) / step
    )
    skipped = np.clip(w - terms.period_s, 0.0, w[-1]) / step
    given_up = terms.given_up_price * frames.max()
    joules = terms.joules[:, keep]
    value, gain = np.empty_like(worth.value), np.empty_like(worth.gain)
    for clock in range(tables.clocks):
        cost = prices[:, None] * joules[clock][None, :]
        value[clock], gain[clock] = _sweep(worth.value[clock], earned[clock], cost, after[clock], skipped, given_up)
    return Worth(prices, w, value, gain)


def _sweep(
    value: Array, earned: Array, cost: Array, after: Array, skipped: Array, given_up: Array
) -> tuple[Array, Array]:
    """A few sweeps at one clock: value price x backlog, earned backlog x difficulty x option, cost price x option,
    given_up by price."""
    low, part = _split(after)
    flat_low, flat_part = low.reshape(-1), part.reshape(-1)
    skip_low, skip_part = _split(skipped)
    prices, grid, options = len(value), value.shape[1], after.shape[1]
    gain = value[:, 0]
    for _ in range(SWEEPS):
        ahead = value[:, flat_low] * (1 - flat_part) + value[:, flat_low + 1] * flat_part
        net = ahead.reshape(prices, grid, 1, options) - cost[:, None, None, :]
        best = (earned[None] + net).max(3)
        skip = value[:, skip_low] * (1 - skip_part) + value[:, skip_low + 1] * skip_part - given_up[:, None]
        new = np.maximum(best, skip[:, :, None]).mean(2)
        gain = new[:, 0].copy()
        value = 0.5 * value + 0.5 * (new - gain[:, None])
    return value, gain


def _split(at: Array) -> tuple[NDArray[np.int64], Array]:
    """Grid index below, and the part of the way to the next."""
    low = np.minimum(at.astype(np.int64), GRID - 2)
    return low, at - low


def _on_time(latency: Latency, log_ratio: Array) -> Array:
    edges = LOW + BIN * np.arange(1, BINS + 1)
    return np.asarray(np.interp(log_ratio, edges, np.array(latency.noise.below), left=0.0))


def crossing(consumption: Array, prices: Array, target: float) -> float:
    """The price at which what is consumed falls to the target; `consumption` falls with the price."""
    if consumption[0] <= target:
        return 0.0
    fits = consumption <= target
    k = max(1, int(np.argmax(fits)) if fits.any() else len(consumption) - 1)
    part = (consumption[k - 1] - target) / max(1e-9, consumption[k - 1] - consumption[k])
    return float(prices[k - 1] * (prices[k] / prices[k - 1]) ** min(1.0, max(0.0, float(part))))
