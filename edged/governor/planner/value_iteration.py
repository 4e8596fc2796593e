"""What a backlog and a joule are worth: the dynamic programme of the slow path. Pure.

For each clock and each price of a joule on a grid, relative value iteration over the backlog w (warm-started, a few
sweeps each). Equation V1:
  H(w) + g = max over options of [frames * (P(on time) * accuracy - late_price * P(late)) - price * joules
             + H(w + service - period)], against dropping: H(w - period) - drop_penalty * frames.
w: the age of the oldest frame when the engine can begin. g: the average reward per period. H: the relative value, what
the backlog takes from the frames to come.
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
ROUND_UP: Final = 1.01  # service times are taken a little long: noise is skew


@dataclass(frozen=True)
class Values:
    """`prices`: the grid, per joule. `relative_value`: H by clock, price, backlog; `average_reward`: g by clock and
    price."""

    prices: Array
    backlog_s: Array
    relative_value: Array
    average_reward: Array


@dataclass(frozen=True)
class Terms:
    """What the programme is solved for: `options` are those for the frames of a period, `joules` by clock and option,
    `drop_penalty` by price of a joule."""

    deadline_s: float
    period_s: float
    late_price: float
    drop_penalty: Array
    options: tuple[Option, ...]
    joules: Array


def start(tables: Tables, deadline_s: float) -> Values:
    nominal_j = (tables.latency_s * tables.active_w).min(1)
    known = nominal_j[nominal_j > 0]
    scale = 0.8 / float(np.median(known)) if len(known) else 1.0
    prices = np.concatenate([[0.0], scale * np.geomspace(0.006, 6.0, PRICES - 1)])
    shape = tables.clocks, PRICES
    return Values(prices, np.linspace(0.0, deadline_s * 1.05, GRID), np.zeros((*shape, GRID)), np.zeros(shape))


def iterate(values: Values, tables: Tables, latency: Latency, terms: Terms) -> Values:
    w, prices, options = values.backlog_s, values.prices, terms.options
    variant = np.array([o.variant for o in options])
    frames = np.array([float(o.frames) for o in options])
    times = np.array([o.times for o in options])
    variants, clocks = range(len(tables.names)), range(tables.clocks)
    factor = np.exp([[latency.log_factor(v, clock) for clock in clocks] for v in variants])
    service_s = ((tables.latency_s * factor)[variant] * times[:, None]).T  # clock x option
    left_s = np.maximum(1e-4, terms.deadline_s - w)
    on_time = _on_time(latency, np.log(left_s[None, :, None] / service_s[:, None, :]))  # clock x backlog x option
    accuracy = np.array(tables.accuracy)[variant]
    earned = frames * (on_time * accuracy - terms.late_price * (1 - on_time))
    step = w[1] - w[0]
    after = np.clip(w[None, :, None] + service_s[:, None, :] * ROUND_UP - terms.period_s, 0.0, w[-1]) / step
    dropped = np.clip(w - terms.period_s, 0.0, w[-1]) / step
    penalty = terms.drop_penalty * frames.max()
    value, reward = np.empty_like(values.relative_value), np.empty_like(values.average_reward)
    for clock in clocks:
        cost, before = prices[:, None] * terms.joules[clock][None, :], values.relative_value[clock]
        value[clock], reward[clock] = _sweep(before, earned[clock], cost, after[clock], dropped, penalty)
    return Values(prices, w, value, reward)


def _sweep(
    value: Array, earned: Array, cost: Array, after: Array, dropped: Array, penalty: Array
) -> tuple[Array, Array]:
    """A few sweeps at one clock: value price x backlog, earned backlog x option, cost price x option."""
    low, part = _split(after)
    flat_low, flat_part = low.reshape(-1), part.reshape(-1)
    drop_low, drop_part = _split(dropped)
    prices, grid, options = len(value), value.shape[1], after.shape[1]
    net = earned[None] - cost[:, None, :]
    reward = value[:, 0]
    for _ in range(SWEEPS):
        ahead = value[:, flat_low] * (1 - flat_part) + value[:, flat_low + 1] * flat_part
        best = (net + ahead.reshape(prices, grid, options)).max(2)
        drop = value[:, drop_low] * (1 - drop_part) + value[:, drop_low + 1] * drop_part - penalty[:, None]
        new = np.maximum(best, drop)
        reward = new[:, 0].copy()
        value = 0.5 * value + 0.5 * (new - reward[:, None])
    return value, reward


def _split(at: Array) -> tuple[NDArray[np.int64], Array]:
    """Grid index below, and the part of the way to the next."""
    low = np.minimum(at.astype(np.int64), GRID - 2)
    return low, at - low


def _on_time(latency: Latency, log_ratio: Array) -> Array:
    edges = LOW + BIN * np.arange(1, BINS + 1)
    return np.asarray(np.interp(log_ratio, edges, np.array(latency.noise.below), left=0.0))


def crossing(consumption: Array, prices: Array, target: float) -> float:
    """The price at which consumption falls to the target; `consumption` falls with the price."""
    if consumption[0] <= target:
        return 0.0
    fits = consumption <= target
    k = max(1, int(np.argmax(fits)) if fits.any() else len(consumption) - 1)
    part = (consumption[k - 1] - target) / max(1e-9, consumption[k - 1] - consumption[k])
    return float(prices[k - 1] * (prices[k] / prices[k - 1]) ** min(1.0, max(0.0, float(part))))
