"""Joules from a provider's watts: each reading stands for the time since the one before it. One thread."""

from __future__ import annotations

from typing import Final

from edged import clock
from edged.power.provider import Provider, Sample

READ_EVERY_NS: Final = clock.NS_PER_S // 10


class PowerMeter:
    """`estimated`: a reading was an estimate. `last`: the last reading."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._start_ns = self._last_ns = 0
        self._joules: float | None = None
        self.estimated = False
        self.last: Sample | None = None

    @property
    def spent_s(self) -> float:
        """Seconds from the start to the last reading: the time that the joules are of."""
        return (self._last_ns - self._start_ns) / clock.NS_PER_S

    def start(self) -> None:
        """Reset to zero. The reading made here is of the time before, so it does not count."""
        self.last = self._provider.read()
        self._start_ns = self._last_ns = clock.mono_ns()
        self._joules = 0.0

    def tick(self) -> bool:
        """Read, if a reading is due; whether it was."""
        due = clock.mono_ns() - self._last_ns >= READ_EVERY_NS
        if due:
            self._read()
        return due

    def stop(self) -> float | None:
        """Joules since the start; None if a reading was unknown."""
        self._read()
        return self._joules

    def mean_w(self, seconds: float) -> float | None:
        """Mean power while this thread sleeps for `seconds`."""
        self.start()
        while self.spent_s < seconds:
            clock.sleep_s(READ_EVERY_NS / clock.NS_PER_S)
            self._read()
        joules = self.stop()
        return None if joules is None else joules / self.spent_s

    def _read(self) -> None:
        sample = self.last = self._provider.read()
        now_ns = clock.mono_ns()
        self.estimated = self.estimated or sample.power_estimated
        if sample.power_w is None or self._joules is None:
            self._joules = None
        else:
            self._joules += sample.power_w * (now_ns - self._last_ns) / clock.NS_PER_S
        self._last_ns = now_ns
