"""The price of a joule and the clock: estimates and what the budgets allow in, the plan out. Pure.

Prices are Lagrange multipliers of the limits. The short-term ones (rolling window, heat) are held as power: the price
is that at which consumption meets what they allow (equation R1). The price of energy that must last (battery, quota) is
averaged over minutes: the price is held, not the power, while the load fluctuates (equation R2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np

from edged.governor.messages import Bound
from edged.governor.planner.options import Array
from edged.governor.planner.value_iteration import Values, crossing

CLOCK_HOLD_S: Final = 4.0
CLOCK_STALL_S: Final = 0.06  # what a change of the GPU's clock costs
CHANGE_MARGIN: Final = 2.0  # what a change must have earned, as a multiple of what the frames of its stall are worth
LONG_RUN_S: Final = 150.0
SAVING_MOST: Final = 0.7
SAVING_S: Final = 80.0
"""A quiet time saves for bursts that the window may still hold, the more the longer it is: share of the usual price."""
SERVICE_SHARE: Final = 0.6
HOPELESS_W: Final = 0.05


@dataclass(frozen=True)
class Allowed:
    """Watts of the whole device that each budget allows now. `safe`: the battery lasts with the cheapest variant on all
    frames. `cap_w`, `window_s`: the rolling mean's limit and its length."""

    window_w: float = math.inf
    heat_w: float = math.inf
    energy_w: float = math.inf
    safe: bool = True
    cap_w: float = math.inf
    window_s: float = 0.0

    @property
    def short_w(self) -> float:
        return min(self.window_w, self.heat_w)


@dataclass(frozen=True)
class Plan:
    """`price`: of a joule, before the integral correction; `paced`: it is that of the energy that must last, which is
    held as it is. `target_j`: active joules per period. `relative_value`: H at the price, over a grid of `step_s`."""

    clock: int
    price: float
    paced: bool
    target_j: float
    relative_value: tuple[float, ...]
    step_s: float
    bound: Bound
    base_w: float
    allowed: Allowed

    def __deepcopy__(self, memo: dict[int, Any]) -> Plan:
        return self


@dataclass(frozen=True)
class LongRun:
    """Of the recent past, by price. `dual`: the dual function of the energy that must last. `earned`: reward a second,
    by clock and price. `regret`: by clock, what it would have earned beyond that in force since the last change."""

    dual: Array
    earned: Array
    regret: Array


class Clocks(NamedTuple):
    """`base_w`: drawn without any frame, by clock. `clock`: the one in force. `may_switch`: whether it may change now;
    `fixed`: never. `stall_price`: of a period within the stall of a change, for the frames that come late by it."""

    base_w: Array
    clock: int
    may_switch: bool
    fixed: bool
    stall_price: float = 0.0

    @property
    def reachable(self) -> slice:
        return slice(self.clock, self.clock + 1) if self.fixed else slice(None)


def plan(
    values: Values,
    allowed: Allowed,
    before: LongRun | None,
    clocks: Clocks,
    period_s: float,
    elapsed_s: float,
    service_price: float,
    correction: float,
) -> tuple[Plan, LongRun]:
    """`elapsed_s`: since `before`. `service_price`: what a joule is worth to the cheapest service."""
    prices, reward, base_w = values.prices, values.average_reward, clocks.base_w
    middle = 0.5 * (prices[1:] + prices[:-1])
    long_run = _long_run(before, reward / period_s, prices, clocks, elapsed_s)
    lasting = _lasting_price(long_run, prices, middle, allowed, clocks, service_price)
    clock, regret = _clock(values, allowed, lasting, long_run.regret, period_s, elapsed_s, clocks)
    long_run = replace(long_run, regret=regret)
    target_j = max(0.0, float(allowed.short_w - base_w[clock])) * period_s
    short = crossing(-np.diff(reward[clock]) / np.diff(prices), middle, target_j)
    paced = short <= lasting
    price = max(short, lasting)
    bound: Bound = "none"
    if price > 0:
        lasts = paced and math.isfinite(allowed.energy_w)  # else it saves for a burst within the window
        bound = "energy" if lasts else "heat" if allowed.heat_w < allowed.window_w and not paced else "power"
    at_price = price * math.exp(correction)
    k = min(max(1, int(np.searchsorted(prices, at_price))), len(prices) - 1)
    part = min(1.0, max(0.0, float((at_price - prices[k - 1]) / (prices[k] - prices[k - 1]))))
    relative = values.relative_value[clock][k - 1] * (1 - part) + values.relative_value[clock][k] * part
    step_s = float(values.backlog_s[1] - values.backlog_s[0])
    base = float(base_w[clock])
    return Plan(clock, price, paced, target_j, tuple(relative.tolist()), step_s, bound, base, allowed), long_run


def _long_run(before: LongRun | None, earned: Array, prices: Array, clocks: Clocks, elapsed_s: float) -> LongRun:
    gain, dual = min(1.0, elapsed_s / LONG_RUN_S), _dual(earned, prices, clocks)
    if before is None:
        return LongRun(dual, earned, np.zeros(len(clocks.base_w)))
    mean_dual, mean_earned = before.dual + gain * (dual - before.dual), before.earned + gain * (earned - before.earned)
    return LongRun(mean_dual, mean_earned, before.regret)


def _lasting_price(
    long_run: LongRun, prices: Array, middle: Array, allowed: Allowed, clocks: Clocks, service_price: float
) -> float:
    lasting = 0.0
    if math.isfinite(allowed.energy_w):
        lasting = crossing(-np.diff(long_run.dual) / np.diff(prices), middle, allowed.energy_w)
        if allowed.safe:
            lasting = min(lasting, SERVICE_SHARE * service_price)
    if math.isfinite(allowed.cap_w):
        # In a quiet time a joule is not for nothing: within its window it may be spent in the next burst.
        usual = crossing(-np.diff(_dual(long_run.earned, prices, clocks)) / np.diff(prices), middle, allowed.cap_w)
        lasting = max(lasting, min(SAVING_MOST, allowed.window_s / SAVING_S) * usual)
    return lasting


def _dual(earned: Array, prices: Array, clocks: Clocks) -> Array:
    """Of what is earned a second, by clock and price: the most after paying for every joule, by price."""
    return np.asarray((earned - prices[None, :] * clocks.base_w[:, None])[clocks.reachable].max(0))


def _clock(
    values: Values, allowed: Allowed, lasting: float, regret: Array, period_s: float, elapsed_s: float, clocks: Clocks
) -> tuple[int, Array]:
    """A clock is left once what another would have earned beyond it pays for the change: the rule of ski rental, which
    costs a small multiple of the best choice with hindsight, however long a demand lasts. Also returns that sum."""
    clock, base_w, reward = clocks.clock, clocks.base_w, values.average_reward
    if clocks.fixed:
        return clock, regret
    worth = _clock_values(values, base_w, allowed.short_w, lasting, period_s)
    regret = np.maximum(0.0, regret + (worth - worth[clock]) * elapsed_s / period_s)
    best = int(regret.argmax())
    cost = CHANGE_MARGIN * (max(0.05, float(reward.max())) + clocks.stall_price) * CLOCK_STALL_S / period_s
    if allowed.short_w - base_w[clock] < 2 * HOPELESS_W:
        best, cost = int(worth.argmax()), 0.0
    if not clocks.may_switch or best == clock or regret[best] <= cost:
        return clock, regret
    return best, np.zeros(len(worth))


def _clock_values(values: Values, base_w: Array, short_w: float, lasting: float, period_s: float) -> Array:
    """What each clock is worth per period under the short-term limit, at the price of energy that must last."""
    prices, reward = values.prices, values.average_reward
    spare_w = short_w - base_w
    free = np.array([np.interp(lasting, prices, reward[clock]) for clock in range(len(reward))])
    worth = free
    first = int(np.searchsorted(prices, lasting))
    if first < len(prices) and math.isfinite(short_w):
        dual = reward + (prices[None, :] - lasting) * np.maximum(0.0, spare_w)[:, None] * period_s
        worth = np.minimum(free, dual[:, first:].min(1))
    worth = worth - lasting * base_w * period_s
    least = -1.0 - lasting * base_w * period_s + 0.001 * np.where(np.isfinite(spare_w), spare_w, 0.0)
    return np.where(spare_w <= HOPELESS_W, least, worth)
