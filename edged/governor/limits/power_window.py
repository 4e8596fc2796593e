"""How much power the rolling window allows now: joules drawn and caps in force in, watts out. Pure.

Equation W1: the largest power for which no window that ends within the next window's length overshoots: held all that
time, or for the next SOON of the window and followed by what the device usually draws, so that what a quiet time saved
is spent in a burst. After a step down of the cap its window has one length of grace.
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
"""Share of the cap kept back while a window still holds seconds of another cap, or of before the first."""
LEAST_S: Final = 0.25
NEAR_S: Final = 2
NEAR_SLACK_S: Final = 0.07
"""Windows that end within NEAR_S seconds may overshoot by what the cap gives in this time, times the root of the
window's seconds: if each were held to the joule, all would stay below the cap."""


@dataclass(frozen=True)
class Caps:
    """The caps of the last seconds, oldest first; the last entry is of second `at_s`; the first cap, of `begun_s`."""

    recent_w: tuple[float, ...]
    at_s: int = 0
    begun_s: int = 0

    def noted(self, cap_w: float, now_s: float) -> Caps:
        second = int(now_s)
        passed = second - self.at_s
        recent = self.recent_w
        if passed > 0:
            recent = (*recent, *(cap_w,) * min(passed, len(recent)))[-len(recent) :]
        return Caps((*recent[:-1], cap_w), max(second, self.at_s), self.begun_s)


def start(cap_w: float, window_s: int, second: int = 0) -> Caps:
    return Caps((cap_w,) * window_s, second, second)


def allowed_w(history: PowerHistory, caps: Caps, mean_w: float, now_s: float, doubt_j: float = 0.0) -> float:
    """`mean_w`: the device's mean power over a longer past. `doubt_j`: how far off the history may be
    over a window; so much is kept back."""
    window = len(caps.recent_w)
    second = int(now_s)
    drawn = np.array(history.seconds_j)
    if (passed := min(second - history.at_s, len(drawn))) > 0:
        drawn = np.concatenate([drawn, np.zeros(passed)])[-len(drawn) :]
    past, current = drawn[:-1], float(drawn[-1])
    cap_w = caps.recent_w[-1]
    stepped = min(caps.recent_w) < max(caps.recent_w) or second - caps.begun_s < window
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
    return min(max(constant_w, burst_w), cap_w * guard * BURST)
