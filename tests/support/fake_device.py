"""A device made up for tests: what the engine ran in, watts and degrees out, as a real provider would read them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from edged import clock
from edged.clock import NS_PER_S
from edged.engines.pool import Pool
from edged.governor.messages import Device, Variant
from edged.loop.device_info import DeviceInfo
from edged.power.telemetry import Sample


@dataclass
class FakeDevice:
    """`run_j`: of one batch of each variant, beside `idle_w`; not by the clock, so that what else the machine does
    tells on latencies alone. `run_ms`: how long one takes, preparation to decoded result, as a profile would say. Heat
    goes from the junction through a sink to the air, as the governor's model has it, but on a device so small that it
    settles in seconds. `dark`: the sensors are silent."""

    run_j: Mapping[str, float]
    run_ms: Mapping[str, float]
    idle_w: float = 2.0
    air_c: float = 30.0
    junction_j_per_c: float = 1.0
    sink_j_per_c: float = 1.0
    junction_sink_c_per_w: float = 4.0
    sink_air_c_per_w: float = 12.0
    dark: bool = False
    name: str = "fake"
    seen: list[tuple[float, float, float]] = field(default_factory=list)
    """(seconds, watts, degrees) of every reading"""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._joules = 0.0
        self._read_ns = self._begun_ns = clock.mono_ns()
        self._sink_c = self.air_c + self.sink_air_c_per_w * self.idle_w
        self._junction_c = self._sink_c + self.junction_sink_c_per_w * self.idle_w
        self.runs: dict[str, int] = dict.fromkeys(self.run_j, 0)

    def ran(self, variant: str, begin_ns: int, end_ns: int) -> None:
        with self._lock:
            self._joules += self.run_j[variant]
            self.runs[variant] += 1

    def read(self) -> Sample:
        now_ns = clock.mono_ns()
        with self._lock:
            seconds = max(1e-3, (now_ns - self._read_ns) / NS_PER_S)
            power_w = self.idle_w + self._joules / seconds
            self._joules, self._read_ns = 0.0, now_ns
        self._warm(power_w, seconds)
        self.seen.append(((now_ns - self._begun_ns) / NS_PER_S, power_w, self._junction_c))
        if self.dark:
            return Sample(self.name, now_ns, missing=("the sensors are dark",))
        return Sample(
            self.name,
            now_ns,
            power_w=round(power_w, 3),
            temperature_c=round(self._junction_c, 2),
            power_lag_s=0.0,
            power_mean_s=0.1,
        )

    def _warm(self, power_w: float, seconds: float) -> None:
        steps = max(1, round(seconds / 0.02))
        for _ in range(steps):
            flow_w = (self._junction_c - self._sink_c) / self.junction_sink_c_per_w
            out_w = (self._sink_c - self.air_c) / self.sink_air_c_per_w
            self._junction_c += (power_w - flow_w) * seconds / steps / self.junction_j_per_c
            self._sink_c += (flow_w - out_w) * seconds / steps / self.sink_j_per_c

    def close(self) -> None:
        """Nothing to let go of."""

    def known(self, pool: Pool) -> DeviceInfo:
        """What a device profile would say of it."""
        variants = []
        for v in pool.variants:
            one_ms = self.run_ms[v.name]
            times_ms = tuple(one_ms * ms / v.latency_ms[0] for ms in v.latency_ms)
            variants.append(Variant(v.name, v.accuracy, times_ms, (1.0,), (self.run_j[v.name] / one_ms * 1000,)))
        device = Device(
            (self.idle_w,),
            junction_j_per_c=self.junction_j_per_c,
            sink_j_per_c=self.sink_j_per_c,
            junction_sink_c_per_w=self.junction_sink_c_per_w,
            sink_air_c_per_w=self.sink_air_c_per_w,
        )
        return DeviceInfo(tuple(variants), device)

    @property
    def now_s(self) -> float:
        return (clock.mono_ns() - self._begun_ns) / NS_PER_S

    def mean_w(self, seconds: float) -> float:
        """Of the readings of the last so many seconds."""
        return self._mean_w(self.now_s - seconds, self.now_s)

    def _mean_w(self, begin_s: float, end_s: float) -> float:
        """Each reading is the mean since the one before it: weighted by that time, however late it was read."""
        joules = seconds = last_s = 0.0
        for at_s, watts, _ in list(self.seen):
            if begin_s <= last_s and at_s <= end_s:
                joules += watts * (at_s - last_s)
                seconds += at_s - last_s
            last_s = at_s
        return joules / seconds if seconds else 0.0

    def worst_mean_w(self, window_s: float, from_s: float) -> float:
        """The greatest mean of any window that begins at or after `from_s`."""
        begins_s = [at_s for at_s, _, _ in list(self.seen) if from_s <= at_s <= self.seen[-1][0] - window_s]
        return max((self._mean_w(begin_s, begin_s + window_s) for begin_s in begins_s), default=0.0)
