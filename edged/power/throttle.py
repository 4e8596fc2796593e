"""Throttling: over-current counters and throttle alerts in, numbers and alarms for people out.

The counters run since boot and are never reset. On small Orin modules the third, instantaneous over-current, counts
many times a second under full load at almost no cost: alone it is no alarm unless its rate stays high.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from edged.clock import NS_PER_S
from edged.power.sysfs_reader import SysfsReader

COUNTERS: Final = {"oc1": "under_voltage", "oc2": "average_over_current", "oc3": "peak_over_current"}
HIGH_RATE_PER_S: Final = 100.0
"""Field logs show up to 28 a second without a loss worth measuring."""
HIGH_RATE_S: Final = 10.0
QUIET_NS: Final = 60 * NS_PER_S
"""At most one alarm of a kind in so long; what happened in between is counted in the next."""


def read_events(files: SysfsReader, missing: list[str]) -> dict[str, int | None]:
    """Events since boot, by name; empty where the machine does not count them."""
    for chip in files.entries(files.path("sys/class/hwmon"), "hwmon*"):
        if files.label(chip / "name") == "soctherm_oc":
            return {name: files.integer(chip / f"{oc}_event_cnt", missing) for oc, name in COUNTERS.items()}
    return {}


def read_throttled(files: SysfsReader) -> bool | None:
    """Whether the device throttles now; None where it does not show it."""
    states = [
        files.optional(device / "cur_state")
        for device in files.entries(files.path("sys/class/thermal"), "cooling_device*")
        if (files.label(device / "type") or "").endswith("-throttle-alert")
    ]
    known = [state for state in states if state is not None]
    return any(state > 0 for state in known) if known else None


class Reading(Protocol):
    """What of a Sample matters here."""

    @property
    def mono_ns(self) -> int: ...
    @property
    def throttled(self) -> bool | None: ...
    @property
    def throttle_events(self) -> Mapping[str, int | None]: ...


@dataclass(frozen=True)
class Alarm:
    """`kind` as in the `event` topic; `text` is a sentence."""

    kind: str
    text: str


class Alarms:
    """Samples in, in their order; alarms out, each once. Pure but for what it remembers; one thread."""

    def __init__(self) -> None:
        self._throttled = False
        self._before: dict[str, tuple[int, int]] = {}  # counter -> when, count: as of the last alarm
        self._peak_base: tuple[int, int] | None = None  # when, count: the base of the third counter's present rate
        self._reported_ns: dict[str, int] = {}

    def of(self, sample: Reading) -> list[Alarm]:
        alarms = []
        if sample.throttled is not None and sample.throttled != self._throttled:
            self._throttled = sample.throttled
            text = "the device throttles itself: it is too hot" if sample.throttled else "throttling ended"
            alarms.append(Alarm("throttle", text))
        for name in ("under_voltage", "average_over_current"):
            alarms += self._counted(name, sample.throttle_events.get(name), sample.mono_ns)
        alarms += self._peaks(sample.throttle_events.get("peak_over_current"), sample.mono_ns)
        return alarms

    def _counted(self, name: str, count: int | None, now_ns: int) -> list[Alarm]:
        if count is None:
            return []
        _, before = self._before.setdefault(name, (now_ns, count))
        if count <= before or not self._may_report(name, now_ns):
            return []
        self._before[name] = now_ns, count
        times = "once" if count - before == 1 else f"{count - before} times"
        return [
            Alarm("over_current", f"{name.replace('_', ' ')} {times}: check the power supply, or a lower power mode")
        ]

    def _peaks(self, count: int | None, now_ns: int) -> list[Alarm]:
        if count is None or self._peak_base is None or count < self._peak_base[1]:
            self._peak_base = None if count is None else (now_ns, count)
            return []
        seconds = (now_ns - self._peak_base[0]) / NS_PER_S
        if seconds < HIGH_RATE_S:
            return []
        rate = (count - self._peak_base[1]) / seconds
        self._peak_base = now_ns, count
        if rate < HIGH_RATE_PER_S or not self._may_report("peak_over_current", now_ns):
            return []
        return [Alarm("over_current", f"peak over current {rate:.0f} times a second: a lower power mode avoids it")]

    def _may_report(self, name: str, now_ns: int) -> bool:
        if now_ns - self._reported_ns.get(name, now_ns - QUIET_NS) < QUIET_NS:
            return False
        self._reported_ns[name] = now_ns
        return True
