"""Power and temperature of a simulated device, so that limits can be tried on any machine: all is estimated.

The real engines' batches come in (from the engine loop's thread), each worth the watts that the simulated device would
draw for as long as it ran here; a `Sample` goes out on the sampler's thread. The processor's use is this machine's own.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from edged import clock
from edged.power.host import HostProvider
from edged.power.provider import Sample, counter_mean_s
from edged.simulate.live_device import LiveDevice
from edged.simulate.tables import NAMES, device_table


class SimulatedProvider:
    def __init__(self, device: str) -> None:
        """`device` as `[power] simulated_device` names it."""
        self._device = device
        table = device_table(NAMES[device])
        self._read_ns = clock.mono_ns()
        self._plant = LiveDevice(table, self._read_ns / clock.NS_PER_S)
        self._unknown_w = max(table.active_w)
        self._active_w: Mapping[str, float] = {}
        self._lock = threading.Lock()
        self._host = HostProvider()

    @property
    def name(self) -> str:
        return "simulated"

    @property
    def device(self) -> str:
        return self._device

    def expect(self, active_w: Mapping[str, float]) -> None:
        """Watts above idle of each variant, before the first batch."""
        self._active_w = dict(active_w)

    def ran(self, variant: str, begin_ns: int, end_ns: int) -> None:
        """A batch kept the engine busy for so long. Any thread."""
        seconds = max(0, end_ns - begin_ns) / clock.NS_PER_S
        with self._lock:
            self._plant.spend(self._active_w.get(variant, self._unknown_w) * seconds)

    def read(self) -> Sample:
        host = self._host.read()
        now_ns = clock.mono_ns()
        interval_s, self._read_ns = (now_ns - self._read_ns) / clock.NS_PER_S, now_ns
        with self._lock:
            power_w = self._plant.advance(now_ns / clock.NS_PER_S)
            junction_c, sink_c = self._plant.junction_c, self._plant.sink_c
        return Sample(
            provider=self.name,
            mono_ns=now_ns,
            power_w=round(power_w, 3),
            power_estimated=True,
            power_lag_s=0.0,
            power_mean_s=counter_mean_s(interval_s),
            rails_w={f"{self._device} (simulated)": round(power_w, 3)},
            temperature_c=round(junction_c, 2),
            temperatures_c={"junction (simulated)": round(junction_c, 2), "sink (simulated)": round(sink_c, 2)},
            cpu_percent=host.cpu_percent,
            memory_available_mb=host.memory_available_mb,
            cpu_pressure_percent=host.cpu_pressure_percent,
            missing=(f"power and temperature are those of a simulated {self._device}",),
        )

    def close(self) -> None:
        """Nothing is held between reads."""
