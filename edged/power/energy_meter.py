"""The one energy meter: readings of power in; joules, the mean of a window and the use of a horizon out. Pure.

Power is integrated in `EnergyMeter` alone, by the trapezoid between two readings. Between a reading and one that comes
too late or is unknown lies a gap: its energy is not guessed. All others take the difference of two totals.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

from edged.clock import NS_PER_S

POINTS: Final = 60
"""Totals kept per window: its beginning is known to one part in so many."""


class Total(NamedTuple):
    """Since the meter began, as of the reading at `read_ns`: joules, and the seconds in which power was unknown."""

    read_ns: int
    energy_j: float
    gap_s: float


class EnergyMeter:
    """Power at moments in, totals out. `metered`: at least one interval was known."""

    def __init__(self, longest_s: float) -> None:
        """Two readings further apart than `longest_s` enclose a gap."""
        self._longest_s = longest_s
        self._last_w: float | None = None
        self.metered = False
        self.total: Total | None = None

    def add(self, read_ns: int, power_w: float | None) -> Total:
        """A mean power (RAPL) is taken for one of a moment: that errs by half an interval in all."""
        if self.total is None:
            self.total = Total(read_ns, 0.0, 0.0)
        else:
            then_ns, energy_j, gap_s = self.total
            seconds = max(0, read_ns - then_ns) / NS_PER_S
            if self._last_w is None or power_w is None or seconds > self._longest_s:
                gap_s += seconds
            else:
                energy_j += (self._last_w + power_w) / 2 * seconds
                self.metered = True
            self.total = Total(read_ns, energy_j, gap_s)
        self._last_w = power_w
        return self.total


class PowerWindow:
    """The rolling mean of a power that is metered elsewhere."""

    def __init__(self) -> None:
        self._points: deque[Total] = deque(maxlen=2 * POINTS)
        self._latest: Total | None = None

    def add(self, total: Total, window_s: float) -> None:
        self._latest = total
        if not self._points or total.read_ns - self._points[-1].read_ns >= window_s * NS_PER_S / POINTS:
            self._points.append(total)

    def mean_w(self, window_s: float, now_ns: int) -> tuple[float, float] | None:
        """The mean of the last `window_s`, and the seconds of it that are known; None if not even half is."""
        since_ns = now_ns - int(window_s * NS_PER_S)
        before = [point for point in self._points if point.read_ns <= since_ns]
        then = before[-1] if before else self._points[0] if self._points else None
        if then is None or self._latest is None:
            return None
        known_s = _known_s(then, self._latest)
        covered_s = min(window_s, (now_ns - then.read_ns) / NS_PER_S)
        if known_s <= 0 or known_s < covered_s / 2:
            return None
        return (self._latest.energy_j - then.energy_j) / known_s, known_s


@dataclass(frozen=True)
class HorizonUse:
    """A horizon: when it began (monotonic), its length, the joules used since, and the seconds that were metered."""

    begun_ns: int
    length_s: float
    spent_j: float = 0.0
    metered_s: float = 0.0

    def passed_s(self, now_ns: int) -> float:
        return max(0.0, (now_ns - self.begun_ns) / NS_PER_S)

    def left_s(self, now_ns: int) -> float:
        return max(0.0, self.length_s - self.passed_s(now_ns))

    def at(self, now_ns: int) -> HorizonUse:
        """The horizon that lies at `now_ns`: this one, or one that follows it and has used nothing yet."""
        periods = math.floor(self.passed_s(now_ns) / self.length_s)
        return HorizonUse(self._begin_of(periods), self.length_s) if periods else self

    def resized(self, length_s: float, now_ns: int) -> HorizonUse:
        """With another length, begin and use stay. If it would be over by then, the present horizon began a whole
        number of lengths later, and the use is taken as even over the time."""
        resized = HorizonUse(self.begun_ns, length_s, self.spent_j, self.metered_s)
        passed_s = self.passed_s(now_ns)
        if passed_s < length_s:
            return resized
        begun_ns = resized._begin_of(math.floor(passed_s / length_s))
        share = (now_ns - begun_ns) / NS_PER_S / passed_s
        return HorizonUse(begun_ns, length_s, self.spent_j * share, self.metered_s * share)

    def _begin_of(self, periods: int) -> int:
        return self.begun_ns + int(periods * self.length_s * NS_PER_S)


class EnergyHorizon:
    """What an energy limit has used. Horizons follow one another: the first begins when the limit is first set, each
    next one when that before it ends. Removing the limit ends its horizon."""

    def __init__(self, restored: HorizonUse | None = None) -> None:
        """`restored`: the horizon of an earlier run, which the first limit continues."""
        self._limited = False
        self._latest: Total | None = None
        self.use = restored
        """replaced as a whole, so that another thread may read it"""

    def set_length(self, length_s: float | None, now_ns: int) -> None:
        """None: there is no energy limit."""
        if length_s is not None:
            use = self.use or HorizonUse(now_ns, length_s)
            use = use.at(now_ns)
            self.use = use if use.length_s == length_s else use.resized(length_s, now_ns)
        elif self._limited:
            self.use = None
        self._limited = length_s is not None

    def add(self, total: Total) -> None:
        before, self._latest = self._latest, total
        if before is not None and self.use is not None and self._limited:
            use = self.use
            spent_j = use.spent_j + total.energy_j - before.energy_j
            self.use = HorizonUse(use.begun_ns, use.length_s, spent_j, use.metered_s + _known_s(before, total))

    def rolled(self, now_ns: int) -> bool:
        """Whether the next horizon has begun since the last call; it has used nothing yet."""
        if self.use is None or not self._limited:
            return False
        before, self.use = self.use, self.use.at(now_ns)
        return self.use is not before


def _known_s(then: Total, now: Total) -> float:
    return max(0.0, (now.read_ns - then.read_ns) / NS_PER_S - (now.gap_s - then.gap_s))
