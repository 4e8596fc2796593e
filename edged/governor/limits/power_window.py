"""How much power the rolling window allows now: joules drawn and caps in force in, watts out. Pure.

Equation W1: the largest power for which no window that ends within the next window's length overshoots: held all that
time, or for the next SOON of the window and followed by what the device usually draws, so that what a quiet time saved
is spent in a burst. After a step down of the cap its window has one length of grace: the windows that began before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from edged.governor.estimators.power_history import PowerHistory

DOUBT_MOST: Final = 0.03  # share of a window that is kept back at most, however noisy the meter
SOON: Final = 0.2
SOON_LEAST_S: Final = 4.0
"""Share of the window's length for which the present demand is expected to last, and the least."""
BURST: Final = 1.35  # at most this multiple of the cap, however much was saved
STEP_GUARD: Final = 0.005
"""Share of the cap kept back while a window still holds seconds of another cap, or of none."""
LEAST_S: Final = 0.25
NEAR_S: Final = 2
NEAR_SLACK_S: Final = 0.07
"""Windows that end within NEAR_S seconds may overshoot by what the cap gives in this time, times the root of the
window's seconds: if each were held to the joule, all would stay below the cap."""


@dataclass(frozen=True)
class Caps:
    """`cap_w`: in force now. `recent_w`: the greatest of each of the last seconds, oldest first; the last entry is of
    second `at_s`."""

    cap_w: float
    recent_w: tuple[float, ...]
    at_s: int = 0

    def noted(self, cap_w: float, now_s: float) -> Caps:
        second, recent = int(now_s), self.recent_w
        passed = second - self.at_s
        if passed > 0:
            recent = (*recent, *(cap_w,) * min(passed, len(recent)))[-len(recent) :]
        return Caps(cap_w, (*recent[:-1], max(recent[-1], cap_w)), max(second, self.at_s))


def start(cap_w: float, window_s: int, second: int = 0, before_w: float = math.inf) -> Caps:
    """`before_w`: the cap of the time before."""
    return Caps(cap_w, (before_w,) * window_s, second)


def allowed_w(history: PowerHistory, caps: Caps, mean_w: float, now_s: float, doubt_j: float = 0.0) -> float:
    """`mean_w`: the device's mean power over a longer past. `doubt_j`: how far off the history may be
    over a window; so much is kept back."""
    window = len(caps.recent_w)
    second = int(now_s)
    drawn = np.array(history.seconds_j)
    if (passed := min(second - history.at_s, len(drawn))) > 0:
        drawn = np.concatenate([drawn, np.zeros(passed)])[-len(drawn) :]
    past, current = drawn[:-1], float(drawn[-1])
    cap_w = caps.cap_w
    stepped = min(cap_w, *caps.recent_w) < max(caps.recent_w)
    doubt = min(DOUBT_MOST, doubt_j / max(1e-9, cap_w * window))
    guard = 1.0 - doubt - (STEP_GUARD if stepped else 0.0)
    # the greatest cap since each of the last seconds: the limit of the window that begins with that second
    limit_j = np.maximum.accumulate(np.array(caps.recent_w)[::-1])[::-1] * guard * window
    ahead_s = np.arange(1, window + 1)
    left_s = np.maximum(LEAST_S, ahead_s - (now_s - second))
    soon_s = max(SOON_LEAST_S, SOON * window)
    later_j = min(mean_w, cap_w * guard) * np.maximum(0.0, left_s - soon_s)
    credit_j = limit_j - (past.sum() - np.cumsum(past)) - current
    if window > NEAR_S:
        credit_j[:NEAR_S] += NEAR_SLACK_S * math.sqrt(window) * cap_w
    constant_w = float((credit_j / left_s).min())
    burst_w = float(((credit_j - later_j) / np.minimum(left_s, soon_s)).min())
    if stepped:  # after a step nothing is spent ahead: what was usual is so no more
        burst_w = constant_w
    # in the second of a step down no window is held to the new cap yet
    most = BURST if caps.recent_w[-1] == cap_w else 1.0
    return min(max(constant_w, burst_w), cap_w * guard * most)
