"""The slow path, twice a second: estimates and budgets in, the plan out: clock, price of a joule, worth of a backlog.

Every scarce thing has a price. The short-term limits (rolling window, heat) are held as power: the price is that at
which consumption meets what they allow. The battery's price is averaged over minutes: the price is held, not the power,
while load and scene fluctuate. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from edged.governor.messages import Bound
from edged.governor.planner.options import Array
from edged.governor.planner.value_iteration import Worth, crossing

CLOCK_HOLD_S: Final = 4.0
CLOCK_PAYBACK_S: Final = 12.0
CLOCK_GAIN: Final = 0.01
"""A clock is left for one that gains this share of the best value, and the stall of the change within the payback."""
LONG_RUN_S: Final = 150.0
SAVING_MOST: Final = 0.7
SAVING_S: Final = 80.0
"""A quiet time saves for bursts that the window may still hold, the more the longer it is: share of the usual price."""
SERVICE_SHARE: Final = 0.6
HOPELESS_W: Final = 0.05


@dataclass(frozen=True)
class Allowed:
    """Watts of the whole device that each budget allows now; infinite where there is none."""

    window_w: float = math.inf
    heat_w: float = math.inf
    battery_w: float = math.inf
    safe: bool = True
    cap_w: float = math.inf
    window_s: float = 0.0
    """the rolling mean's limit itself, and its length"""
    steady_w: float = math.inf
    """`window_w`; of a short window over the time that a change of clock must pay for itself in: it swings"""

    @property
    def short_w(self) -> float:
        return min(self.window_w, self.heat_w)


@dataclass(frozen=True)
class Plan:
    """`price`: of a joule, before the integral correction; `paced`: it is the battery's, which is held as it is.
    `target_j`: active joules per period; `backlog`: H at the price, over the grid of `step_s`."""

    clock: int
    price: float
    paced: bool
    target_j: float
    backlog: tuple[float, ...]
    step_s: float
    bound: Bound
    base_w: float
    allowed: Allowed
    gain: float = 0.0
    home: tuple[float, ...] = ()
    """what a period is worth on each variant alone"""

    def ahead(self, backlog_s: float) -> float:
        """H of what is left to the next frame."""
        if backlog_s <= 0.0:
            return self.backlog[0]
        at = backlog_s / self.step_s
        k = int(at)
        if k >= len(self.backlog) - 1:
            return self.backlog[-1]
        return self.backlog[k] + (at - k) * (self.backlog[k + 1] - self.backlog[k])


@dataclass(frozen=True)
class LongRun:
    """Of the recent past, by price; None before the first plan. `dual`: the dual function of the energy that must last.
    `earned`: gain per second, by clock and price: what the frames were like, whatever the device drew besides."""

    dual: Array | None = None
    earned: Array | None = None


def plan(
    worth: Worth, base_w: Array, allowed: Allowed, long_run: LongRun, period_s: float, elapsed_s: float,
    service_price: float, correction: float, clock: int, may_switch: bool, held: bool, stall_s: float,
) -> tuple[Plan, LongRun]:  # fmt: skip
    """`base_w`: drawn without any frame, by clock. `service_price`: what a joule is worth to the cheapest service.
    `may_switch`: the clock, now; `held`: never."""
    prices, gain = worth.prices, worth.gain
    reachable = slice(clock, clock + 1) if held else slice(None)
    now_dual = _dual((gain / period_s)[reachable], prices, base_w[reachable])
    before = long_run.dual if long_run.dual is not None else now_dual
    dual = before + min(1.0, elapsed_s / LONG_RUN_S) * (now_dual - before)
    middle = 0.5 * (prices[1:] + prices[:-1])
    lasting = 0.0
    if math.isfinite(allowed.battery_w):
        lasting = crossing(-np.diff(dual) / np.diff(prices), middle, allowed.battery_w)
        if allowed.safe:
            lasting = min(lasting, SERVICE_SHARE * service_price)
    earned_now = gain / period_s
    earned = earned_now if long_run.earned is None else long_run.earned
    earned = earned + min(1.0, elapsed_s / LONG_RUN_S) * (earned_now - earned)
    if math.isfinite(allowed.cap_w):
        # In a quiet time a joule is not for nothing: within its window it may be spent in the next burst.
        usual = crossing(
            -np.diff(_dual(earned[reachable], prices, base_w[reachable])) / np.diff(prices), middle, allowed.cap_w
        )
        lasting = max(lasting, min(SAVING_MOST, allowed.window_s / SAVING_S) * usual)
    values = _clock_values(worth, base_w, min(allowed.steady_w, allowed.heat_w), lasting, period_s)
    spare_w = allowed.short_w - base_w
    best = int(values.argmax())
    if may_switch and best != clock:
        cost = max(0.05, float(gain.max())) * (stall_s / CLOCK_PAYBACK_S + CLOCK_GAIN)
        if values[best] - values[clock] > cost or spare_w[clock] < 2 * HOPELESS_W:
            clock = best
    target_j = max(0.0, float(spare_w[clock])) * period_s
    short = crossing(-np.diff(gain[clock]) / np.diff(prices), middle, target_j)
    paced = short <= lasting
    price = max(short, lasting)
    bound: Bound = "none"
    if price > 0:
        bound = "energy" if paced else "power" if allowed.window_w <= allowed.heat_w else "heat"
    at_price = price * math.exp(correction)
    k = min(max(1, int(np.searchsorted(prices, at_price))), len(prices) - 1)
    part = min(1.0, max(0.0, float((at_price - prices[k - 1]) / (prices[k] - prices[k - 1]))))
    backlog = worth.value[clock][k - 1] * (1 - part) + worth.value[clock][k] * part
    step_s = float(worth.backlog_s[1] - worth.backlog_s[0])
    made = Plan(
        clock, price, paced, target_j, tuple(backlog.tolist()), step_s, bound, float(base_w[clock]), allowed,
        float(np.interp(at_price, prices, gain[clock])),
    )  # fmt: skip
    return made, LongRun(dual, earned)


def _dual(earned: Array, prices: Array, base_w: Array) -> Array:
    """Of what is earned a second, by clock and price: the most after paying for every joule, by price."""
    return np.asarray((earned - prices[None, :] * base_w[:, None]).max(0))


def _clock_values(worth: Worth, base_w: Array, short_w: float, lasting: float, period_s: float) -> Array:
    """What each clock is worth per period under the short-term limit, at the battery's price."""
    prices, gain = worth.prices, worth.gain
    clocks = len(gain)
    spare_w = short_w - base_w
    free = np.array([np.interp(lasting, prices, gain[clock]) for clock in range(clocks)])
    values = free
    first = int(np.searchsorted(prices, lasting))
    if first < len(prices) and math.isfinite(short_w):
        dual = gain + (prices[None, :] - lasting) * np.maximum(0.0, spare_w)[:, None] * period_s
        values = np.minimum(free, dual[:, first:].min(1))
    values = values - lasting * base_w * period_s
    hopeless = spare_w <= HOPELESS_W
    least = -1.0 - lasting * base_w * period_s + 0.001 * np.where(np.isfinite(spare_w), spare_w, 0.0)
    return np.where(hopeless, least, values)
