"""One reading of the device, and what gives it: the interface of every provider of power and temperature. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from edged.clock import NS_PER_S

STALE_AFTER_INTERVALS: Final = 3
"""A value older than this many intervals is not current."""


LEAST_MEAN_S: Final = 0.05


@dataclass(frozen=True)
class BatteryReading:
    """All batteries of this machine together. `discharge_w` is below 0 while they charge; None: not known."""

    charge_j: float
    capacity_j: float
    discharge_w: float | None


@dataclass(frozen=True)
class Sample:
    """One reading of the device. Unknown is None, never 0; `missing` says why, one sentence each.

    `mono_ns` is when the values were read. `power_w` is that of the device unless `power_estimated`; it follows the
    true power `power_lag_s` later, smoothed over about `power_mean_s` (defaults: an INA3221 as NVIDIA sets it).
    `temperature_c` is the hottest of `temperatures_c`. `throttle_events` count since boot. `energy_j` is what the
    device used since the sampler began, None until something is known of it, without the `energy_gap_s` in which it was
    not known. The mappings are never changed after construction.
    """

    provider: str
    mono_ns: int
    power_w: float | None = None
    power_estimated: bool = False
    power_lag_s: float = 0.2
    power_mean_s: float = 0.4
    rails_w: Mapping[str, float | None] = field(default_factory=dict)
    temperature_c: float | None = None
    temperatures_c: Mapping[str, float | None] = field(default_factory=dict)
    cpu_percent: float | None = None
    memory_available_mb: float | None = None
    cpu_pressure_percent: float | None = None
    gpu_percent: float | None = None
    gpu_mhz: float | None = None
    gpu_ceiling_mhz: float | None = None
    throttled: bool | None = None
    throttle_events: Mapping[str, int | None] = field(default_factory=dict)
    battery: BatteryReading | None = None
    energy_j: float | None = None
    energy_gap_s: float = 0.0
    missing: tuple[str, ...] = ()

    def age_s(self, now_ns: int) -> float:
        """Seconds since the values were read."""
        return max(0, now_ns - self.mono_ns) / NS_PER_S


def counter_mean_s(interval_s: float) -> float:
    """The `power_mean_s` of a mean over the interval since the reading before."""
    return max(LEAST_MEAN_S, interval_s / 2)


class Provider(Protocol):
    """A source of samples. `read` may block or raise; it is called from one thread only."""

    @property
    def name(self) -> str: ...

    def read(self) -> Sample: ...

    def close(self) -> None: ...
