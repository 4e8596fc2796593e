"""The sensors' samples to the governor, each once, and the absence of samples too. On the engine loop.

The governor gets an observation at even intervals whether the sensors answer or not, so that its estimates age when
they do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

from edged.clock import NS_PER_MS, NS_PER_S
from edged.governor.messages import Battery, Sensed
from edged.loop.governor_client import GovernorClient
from edged.loop.limit_monitor import LimitMonitor
from edged.power.telemetry import Sample, Sampler

AFTER_NS: Final = 20 * NS_PER_MS
"""A reading takes a moment: the next sample is expected so long after its time."""
LOOK_AGAIN_NS: Final = 100 * NS_PER_MS


class SensorFeed:
    def __init__(
        self,
        sampler: Sampler,
        governor: GovernorClient,
        limit_monitor: LimitMonitor,
        now_ns: int,
        record: Callable[[Mapping[str, Any], int], None] | None = None,
    ) -> None:
        """`record` gets each complete sample."""
        self._sampler = sampler
        self._governor = governor
        self._limit_monitor = limit_monitor
        self._record = record
        self._interval_ns = int(sampler.interval_s * NS_PER_S)
        self._read_ns = 0  # when the last sample that was fed was read
        self._fed_ns = now_ns
        self.due_ns = now_ns

    def look(self, now_ns: int) -> None:
        """Report a new sample to the governor, or that there was none for one and a half intervals."""
        sample = self._sampler.latest(now_ns)
        if sample.mono_ns > self._read_ns:
            self._read_ns = sample.mono_ns
            self.due_ns = max(sample.mono_ns + self._interval_ns + AFTER_NS, now_ns + LOOK_AGAIN_NS)
            self._limit_monitor.sensed(sample, now_ns)
            observation = self._observation(sample, now_ns)
            if self._record is not None:
                self._record(asdict(sample), now_ns)
        elif now_ns - self._fed_ns > 3 * self._interval_ns // 2:
            self.due_ns = now_ns + LOOK_AGAIN_NS
            self._limit_monitor.sensed(sample, now_ns)
            observation = Sensed()
        else:
            self.due_ns = now_ns + LOOK_AGAIN_NS
            return
        self._fed_ns = now_ns
        self._governor.observe(observation, now_ns)

    def _observation(self, sample: Sample, now_ns: int) -> Sensed:
        gpu_clock = self._governor.gpu_clock
        gpu_clock.sensed(sample.gpu_ceiling_mhz, now_ns)
        return Sensed(
            sample.power_w,
            sample.temperature_c,
            # what the actuator confirmed is newer than what the sensor read
            clock=gpu_clock.at(sample.gpu_ceiling_mhz) if gpu_clock.clock is None else gpu_clock.clock,
            throttled=sample.throttled is True,
            power_estimated=sample.power_estimated,
            battery=battery_of(sample),
            power_lag_s=sample.power_lag_s,
            power_mean_s=sample.power_mean_s,
            energy=self._limit_monitor.energy_use(now_ns),
        )


def battery_of(sample: Sample) -> Battery | None:
    """What does not come from the battery is harvested; that needs a measured power beside the battery's own."""
    if (read := sample.battery) is None:
        return None
    harvest_w = None
    if read.discharge_w is not None and sample.power_w is not None and not sample.power_estimated:
        harvest_w = max(0.0, sample.power_w - read.discharge_w)
    return Battery(read.charge_j, read.capacity_j, harvest_w)
