"""The device's own words to the governor: each sample of the sensors once, and silence too. On the engine loop.

The governor hears of the sensors at even intervals whether they answer or not, so that what it believes grows old when
they do not. What a person should know at once (throttling) becomes an event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

from edged.clock import NS_PER_MS, NS_PER_S
from edged.governor.messages import Sensed
from edged.loop.governor_client import GovernorClient
from edged.loop.limit_monitor import LimitMonitor
from edged.power.telemetry import Sample, Sampler

AFTER_NS: Final = 20 * NS_PER_MS
"""A reading takes a moment: the next sample is looked for so long after its time."""
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
        """`record` gets each sample whole."""
        self._sampler = sampler
        self._governor = governor
        self._limit_monitor = limit_monitor
        self._record = record
        self._interval_ns = int(sampler.interval_s * NS_PER_S)
        self._seen_ns = 0  # when the last sample that was told was read
        self._told_ns = now_ns
        self.due_ns = now_ns

    def look(self, now_ns: int) -> None:
        """Tell the governor of a new sample, or that for one and a half intervals there was none."""
        sample = self._sampler.latest(now_ns)
        if sample.mono_ns > self._seen_ns:
            self._seen_ns = sample.mono_ns
            self.due_ns = max(sample.mono_ns + self._interval_ns + AFTER_NS, now_ns + LOOK_AGAIN_NS)
            said = self._said(sample, now_ns)
            if self._record is not None:
                self._record(asdict(sample), now_ns)
        elif now_ns - self._told_ns > 3 * self._interval_ns // 2:
            self.due_ns = now_ns + LOOK_AGAIN_NS
            said = Sensed()
        else:
            self.due_ns = now_ns + LOOK_AGAIN_NS
            return
        self._told_ns = now_ns
        self._governor.observe(said, now_ns)
        self._limit_monitor.sensed(sample, now_ns)

    def _said(self, sample: Sample, now_ns: int) -> Sensed:
        ceiling = self._governor.ceiling
        ceiling.sensed(sample.gpu_ceiling_mhz, now_ns)
        return Sensed(
            sample.power_w,
            sample.temperature_c,
            # the actuator's word is newer than the sensor's
            clock=ceiling.at(sample.gpu_ceiling_mhz) if ceiling.clock is None else ceiling.clock,
            throttled=sample.throttled is True,
            power_estimated=sample.power_estimated,
        )
