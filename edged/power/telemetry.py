"""What the device says of itself: a provider's readings in, the latest `Sample` out, for the wire and the governor.

A provider may hang or raise; the `Sampler` reads it on a thread of its own, so that the daemon never waits for it: the
sample's age grows, and once it is too old its values become unknown, with the reason in `missing`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

from edged import clock
from edged.config import PowerConfig

STALE_AFTER_INTERVALS: Final = 3
"""A value older than this many intervals is no longer a statement about now."""

NS_PER_S: Final = clock.NS_PER_S


@dataclass(frozen=True)
class Sample:
    """One reading of the device. Unknown is None, never 0; `missing` says why, one sentence each.

    `mono_ns` is when the values were read. `power_w` is the whole device's unless `power_estimated`. `temperature_c` is
    the hottest of `temperatures_c`. `throttle_events` count since boot. `energy_j` is what the device used since the
    sampler began, None until something is known of it, without the `energy_gap_s` in which it was not known. The
    mappings are never changed after construction.
    """

    provider: str
    mono_ns: int
    power_w: float | None = None
    power_estimated: bool = False
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
    energy_j: float | None = None
    energy_gap_s: float = 0.0
    missing: tuple[str, ...] = ()

    def age_s(self, now_ns: int) -> float:
        """Seconds since the values were read."""
        return max(0, now_ns - self.mono_ns) / NS_PER_S


class Provider(Protocol):
    """A source of samples. `read` may block or raise; it is called from one thread only."""

    @property
    def name(self) -> str: ...

    def read(self) -> Sample: ...

    def close(self) -> None: ...


class EnergyMeter:
    """Power at moments in, energy out: the trapezoid between neighbours; what lies between strangers is a gap."""

    def __init__(self, interval_s: float) -> None:
        self._longest_s = STALE_AFTER_INTERVALS * interval_s
        self._last: tuple[int, float | None] | None = None
        self._known = False
        self.energy_j = 0.0
        self.gap_s = 0.0

    def add(self, sample: Sample) -> Sample:
        """The sample with the energy up to it. A mean power (RAPL) is taken for one of a moment: that errs by half an
        interval in all, however long it runs."""
        if self._last is not None:
            then_ns, before_w = self._last
            seconds = max(0, sample.mono_ns - then_ns) / NS_PER_S
            if before_w is None or sample.power_w is None or seconds > self._longest_s:
                self.gap_s += seconds
            else:
                self.energy_j += (before_w + sample.power_w) / 2 * seconds
                self._known = True
        self._last = sample.mono_ns, sample.power_w
        return replace(sample, energy_j=self.energy_j if self._known else None, energy_gap_s=self.gap_s)


class Sampler:
    """Reads a provider every `interval_s` on the thread "power.telemetry"."""

    def __init__(self, provider: Provider, interval_s: float) -> None:
        self._provider = provider
        self._interval_s = interval_s
        self._meter = EnergyMeter(interval_s)
        self._stop = threading.Event()
        self._latest = Sample(provider.name, clock.mono_ns(), missing=(f"{provider.name} has not been read yet",))
        self._error: str | None = None
        self._thread = threading.Thread(target=self._run, name="power.telemetry", daemon=True)

    @property
    def interval_s(self) -> float:
        return self._interval_s

    def start(self) -> None:
        self._thread.start()

    def latest(self, now_ns: int) -> Sample:
        """The last good reading; its values are unknown once it is older than three intervals. Any thread, no wait."""
        sample, error = self._latest, self._error
        age_s = sample.age_s(now_ns)
        if age_s > STALE_AFTER_INTERVALS * self._interval_s:
            why = error or f"{sample.provider} does not answer"
            told = (f"{why}; last reading {age_s:.0f} s ago",)
            used, gap_s = sample.energy_j, sample.energy_gap_s
            return Sample(sample.provider, sample.mono_ns, energy_j=used, energy_gap_s=gap_s, missing=told)
        if error is not None:
            return replace(sample, missing=(*sample.missing, error))
        return sample

    def stop(self, timeout_s: float = 1.0) -> bool:
        """Ends the thread and closes the provider. False if it hangs in a read: it is left behind, unclosed."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                return False
        self._provider.close()
        return True

    def _run(self) -> None:
        while True:
            try:
                self._latest, self._error = self._meter.add(self._provider.read()), None
            except Exception as error:  # whatever a provider does, the daemon lives; the reason travels with the sample
                self._error = f"{self._provider.name} failed: {type(error).__name__}: {str(error)[:200]}"
            if self._stop.wait(self._interval_s):
                return


def open_provider(config: PowerConfig, root: Path = Path("/")) -> Provider:
    """The provider the configuration names; "auto" takes what this machine has: a Jetson is read directly."""
    from edged.power.select_provider import choose, make  # the providers import Sample from here

    return make(choose(config.provider, root), config, root)
