"""An emulated board that lives: its power, temperature and clock follow its engines' work and the GPU's clock ceiling.

As much of the time as its engines work (`clocked_engine`), the board draws the active power of the clock in force above
its idle power. The meter averages that as an INA3221 does. The clock follows the ceiling, which only others write.
"""

from __future__ import annotations

import math
import threading
from time import monotonic
from typing import NamedTuple

from edged.power.provider import Sample
from tests.support.clocked_engine import busy_s
from tests.support.jetson_tree import JetsonTree

IDLE_W = (4.0, 6.0, 8.0, 12.0)
ACTIVE_W = (4.0, 8.0, 14.0, 24.0)
"""By clock of a Thor, ascending; active above idle."""
STEP_S = 0.1
AIR_C, C_PER_W, TIME_CONSTANT_S = 30.0, 1.0, 5.0


class Moment(NamedTuple):
    """`power_w`: as metered."""

    at_s: float
    power_w: float
    ceiling_mhz: float
    clock_mhz: float
    temperature_c: float


class LiveBoard:
    """A context manager."""

    def __init__(self, tree: JetsonTree) -> None:
        self.tree = tree
        self.mhz = tuple(hz / 1e6 for hz in tree.board.gpu_hz)
        self.history: list[Moment] = []
        self._metered_w = IDLE_W[-1]
        self._temperature_c = AIR_C + C_PER_W * IDLE_W[-1]
        self._stop = threading.Event()
        self._begun_s = monotonic()
        self._thread = threading.Thread(target=self._run, name="board", daemon=True)

    @property
    def ceiling_mhz(self) -> float:
        return int(self.tree.read(f"{self.tree.devfreq}/max_freq")) / 1e6

    @property
    def now_s(self) -> float:
        return monotonic() - self._begun_s

    def mean_w(self, since_s: float) -> float:
        watts = [moment.power_w for moment in self.history if moment.at_s >= since_s]
        return sum(watts) / len(watts)

    def __enter__(self) -> LiveBoard:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        then_s, then_busy_s = monotonic(), busy_s(self.tree.root)
        while not self._stop.wait(STEP_S):
            now_s, now_busy_s = monotonic(), busy_s(self.tree.root)
            self._live((now_busy_s - then_busy_s) / (now_s - then_s), now_s - then_s)
            then_s, then_busy_s = now_s, now_busy_s

    def _live(self, busy: float, seconds: float) -> None:
        """`busy`: the share of the last `seconds` in which the engines worked; above 1 where a batch began before."""
        ceiling_mhz = self.ceiling_mhz
        index = max(n for n, mhz in enumerate(self.mhz) if mhz <= ceiling_mhz)
        drawn_w = IDLE_W[index] + busy * ACTIVE_W[index]
        self._metered_w += (1 - math.exp(-seconds / Sample.power_mean_s)) * (drawn_w - self._metered_w)
        settled_c = AIR_C + C_PER_W * drawn_w
        self._temperature_c += min(1.0, seconds / TIME_CONSTANT_S) * (settled_c - self._temperature_c)
        tree, zone = self.tree, "sys/devices/virtual/thermal/thermal_zone8/temp"
        tree.write(f"{tree.devfreq}/cur_freq", round(self.mhz[index] * 1e6))
        tree.write(f"{tree.gpu}/load", round(1000 * min(1.0, busy)))
        tree.write(zone, round(1000 * self._temperature_c))
        tree.write_total_w(self._metered_w)
        self.history.append(Moment(self.now_s, self._metered_w, ceiling_mhz, self.mhz[index], self._temperature_c))
