"""The plant for a daemon that has no meter: joules of real batches in, power and heat of a simulated device out. Pure.

The same laws as `device`, for real time: `spend` as batches end, `advance` at each reading. The clock
stays at its highest, and a throttle is not acted out, since the engines really run on another machine.
"""

from __future__ import annotations

from typing import Final

from edged.simulate.tables import LEAKAGE_W_PER_C, STEP_S, DeviceTable

AIR_C: Final = 25.0
LONGEST_S: Final = 600.0
"""Of a longer pause only the last part is simulated: the temperatures are steady by then."""


class LiveDevice:
    def __init__(self, table: DeviceTable, now_s: float) -> None:
        self._table = table
        self._at_s = now_s
        self._spent_j = 0.0
        idle_w = table.idle_w[-1]
        self.sink_c = AIR_C + idle_w * table.sink_air_c_per_w
        self.junction_c = self.sink_c + idle_w * table.junction_sink_c_per_w
        self.power_w = idle_w

    def spend(self, energy_j: float) -> None:
        """Above idle, of a batch that has ended."""
        self._spent_j += energy_j

    def advance(self, now_s: float) -> float:
        """Let the time pass; the mean watts since the last call."""
        elapsed_s = now_s - self._at_s
        if elapsed_s <= 0:
            return self.power_w
        active_w, table = self._spent_j / elapsed_s, self._table
        self._spent_j, self._at_s = 0.0, now_s
        steps = max(1, round(min(elapsed_s, LONGEST_S) / STEP_S))
        step_s, drawn_j = min(elapsed_s, LONGEST_S) / steps, 0.0
        for _ in range(steps):
            power_w = table.idle_w[-1] + active_w + LEAKAGE_W_PER_C * (self.junction_c - 25.0)
            flow_w = (self.junction_c - self.sink_c) / table.junction_sink_c_per_w
            self.junction_c += step_s * (power_w - flow_w) / table.junction_j_per_c
            self.sink_c += step_s * (flow_w - (self.sink_c - AIR_C) / table.sink_air_c_per_w) / table.sink_j_per_c
            drawn_j += power_w * step_s
        self.power_w = drawn_j / (steps * step_s)
        return self.power_w
