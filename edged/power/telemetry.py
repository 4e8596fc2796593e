"""A provider's readings in, the latest `Sample` out, for the wire and the governor.

A provider may hang or raise; the `Sampler` reads it on a thread of its own, so that the daemon never waits for it: the
sample's age grows, and once it is too old its values become unknown, with the reason in `missing`.
"""

from __future__ import annotations

from dataclasses import replace

from edged import clock
from edged.power.energy_meter import EnergyMeter
from edged.power.provider import STALE_AFTER_INTERVALS, Provider, Sample
from edged.power.select_provider import open_provider
from edged.worker import Worker

__all__ = ["Provider", "Sample", "Sampler", "open_provider"]


class Sampler:
    """Reads a provider every `interval_s` on the thread "power.telemetry"."""

    def __init__(self, provider: Provider, interval_s: float) -> None:
        self._provider = provider
        self._interval_s = interval_s
        self._meter = EnergyMeter(STALE_AFTER_INTERVALS * interval_s)
        begun_ns = clock.mono_ns()
        self._meter.add(begun_ns, None)
        self._latest = Sample(provider.name, begun_ns, missing=(f"{provider.name} has not been read yet",))
        self._error: str | None = None
        self.worker = Worker("power.telemetry", self._turn)

    @property
    def interval_s(self) -> float:
        return self._interval_s

    def start(self) -> None:
        self.worker.start()

    def latest(self, now_ns: int) -> Sample:
        """The last good reading; its values are unknown once it is older than three intervals. Any thread, no wait."""
        sample, error = self._latest, self._error
        age_s = sample.age_s(now_ns)
        if age_s > STALE_AFTER_INTERVALS * self._interval_s:
            why = error or f"{sample.provider} does not answer"
            reason = (f"{why}; last reading {age_s:.0f} s ago",)
            used, gap_s = sample.energy_j, sample.energy_gap_s
            return Sample(sample.provider, sample.mono_ns, energy_j=used, energy_gap_s=gap_s, missing=reason)
        if error is not None:
            return replace(sample, missing=(*sample.missing, error))
        return sample

    def stop(self, timeout_s: float = 1.0) -> bool:
        """Ends the thread and closes the provider. False if it hangs in a read: it is left behind, unclosed."""
        if not self.worker.stop(timeout_s):
            return False
        self._provider.close()
        return True

    def _turn(self) -> None:
        try:
            self._latest, self._error = self._metered(self._provider.read()), None
        except Exception as error:  # no failure of a provider ends the daemon; the reason goes out with the sample
            self._error = f"{self._provider.name} failed: {type(error).__name__}: {str(error)[:200]}"
        self.worker.stopping.wait(self._interval_s)

    def _metered(self, sample: Sample) -> Sample:
        """The sample with the energy up to it."""
        total = self._meter.add(sample.mono_ns, sample.power_w)
        return replace(sample, energy_j=total.energy_j if self._meter.metered else None, energy_gap_s=total.gap_s)
