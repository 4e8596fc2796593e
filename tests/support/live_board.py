"""An emulated board that lives: its power, temperature and clock follow a process's work and the GPU's clock ceiling.

The work of the watched process on the CPU stands for the GPU's: as much of the time as it computes, the board draws the
active power of the clock in force above its idle power. The clock follows the ceiling, which only others write.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from tests.support.jetson_tree import JetsonTree

STEP_S = 0.1
SMOOTH_S = 0.5
AIR_C, C_PER_W, TIME_CONSTANT_S = 30.0, 2.0, 5.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Moment(NamedTuple):
    at_s: float
    power_w: float
    ceiling_mhz: float
    clock_mhz: float
    temperature_c: float


class LiveBoard:
    """A context manager. `idle_w` and `active_w` have one value per clock of the board, ascending."""

    def __init__(self, tree: JetsonTree, idle_w: Sequence[float], active_w: Sequence[float]) -> None:
        self.tree = tree
        self.idle_w, self.active_w = tuple(idle_w), tuple(active_w)
        self.mhz = tuple(hz / 1e6 for hz in tree.board.gpu_hz)
        self.history: list[Moment] = []
        self._pid = os.getpid()
        self._busy = 0.0
        self._temperature_c = AIR_C + C_PER_W * self.idle_w[-1]
        self._stop = threading.Event()
        self._begun_s = monotonic()
        self._thread = threading.Thread(target=self._run, name="board", daemon=True)

    def watch(self, pid: int) -> None:
        """Whose work is the GPU's from now on."""
        self._pid = pid

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
        pid, then_s, then_cpu_s = self._pid, monotonic(), cpu_s(self._pid)
        while not self._stop.wait(STEP_S):
            now_s, now_cpu_s = monotonic(), cpu_s(self._pid)
            if self._pid == pid:
                share = min(1.0, max(0.0, now_cpu_s - then_cpu_s) / (now_s - then_s))
                self._busy += min(1.0, (now_s - then_s) / SMOOTH_S) * (share - self._busy)
                self._live(now_s - then_s)
            pid, then_s, then_cpu_s = self._pid, now_s, now_cpu_s

    def _live(self, seconds: float) -> None:
        ceiling_mhz = self.ceiling_mhz
        index = max(n for n, mhz in enumerate(self.mhz) if mhz <= ceiling_mhz)
        power_w = self.idle_w[index] + self._busy * self.active_w[index]
        settled_c = AIR_C + C_PER_W * power_w
        self._temperature_c += min(1.0, seconds / TIME_CONSTANT_S) * (settled_c - self._temperature_c)
        tree, zone = self.tree, "sys/devices/virtual/thermal/thermal_zone8/temp"
        tree.write(f"{tree.devfreq}/cur_freq", round(self.mhz[index] * 1e6))
        tree.write(f"{tree.gpu}/load", round(1000 * self._busy))
        tree.write(zone, round(1000 * self._temperature_c))
        tree.write_total_w(power_w)
        self.history.append(Moment(self.now_s, power_w, ceiling_mhz, self.mhz[index], self._temperature_c))


def cpu_s(pid: int) -> float:
    """Processor time that the process has used; 0 when it has gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S
