"""The limits beside what was measured: samples and results in; a table of them, and events when one is passed, out.

The governor's own books are estimates that decide; these here are the measurements that show whether it held. On the
engine loop's thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple

from edged.bus import schema
from edged.bus.publisher import Publisher
from edged.clock import NS_PER_S
from edged.config import Limits
from edged.power.telemetry import Sample

RECENT_S: Final = 60
"""Shares and rates are those of the last minute."""
POINTS: Final = 60
"""Of a window of power: so finely its beginning is known."""
OVER: Final = 1.02
"""A mean that lies beyond its limit by no more is a matter of the meter."""
OVER_C: Final = 0.5
SAY_AGAIN_NS: Final = 60 * NS_PER_S
GAP_S: Final = 12.0
"""Between two readings further apart the power is not known; the slowest sensor is read every ten seconds."""


class Counts(NamedTuple):
    """Since the start: frames offered to the engine, given up for a budget, published, late, and the sum of the
    accuracies of the variants they were published from, over `judged` of them."""

    offered: int = 0
    budget: int = 0
    results: int = 0
    late: int = 0
    accuracy: float = 0.0
    judged: int = 0

    def since(self, then: Counts) -> Counts:
        """What came since then; a camera that was removed took its frames with it."""
        return Counts(
            max(0, self.offered - then.offered),
            max(0, self.budget - then.budget),
            self.results - then.results,
            self.late - then.late,
            self.accuracy - then.accuracy,
            self.judged - then.judged,
        )


class Meter:
    """Joules by the sensor, and since when; nothing is made up for times without a reading."""

    def __init__(self) -> None:
        self.joules = self.known_s = 0.0
        self.estimated = False
        self._last: tuple[int, float] | None = None
        self._points: deque[tuple[int, float, float]] = deque(maxlen=2 * POINTS)

    def add(self, read_ns: int, power_w: float | None, window_s: float) -> None:
        if power_w is None:
            self._last = None
            return
        if self._last is not None:
            seconds = (read_ns - self._last[0]) / NS_PER_S
            if 0 < seconds <= GAP_S:
                self.joules += seconds * (power_w + self._last[1]) / 2
                self.known_s += seconds
        self._last = read_ns, power_w
        if not self._points or read_ns - self._points[-1][0] >= window_s * NS_PER_S / POINTS:
            self._points.append((read_ns, self.joules, self.known_s))

    def mean_w(self, window_s: float, now_ns: int) -> tuple[float, float] | None:
        """The mean of the last `window_s`, and the seconds of it that are known; None if not even half is."""
        since_ns = now_ns - int(window_s * NS_PER_S)
        before = [point for point in self._points if point[0] <= since_ns]
        then = before[-1] if before else self._points[0] if self._points else None
        if then is None:
            return None
        known_s = self.known_s - then[2]
        covered_s = min(window_s, (now_ns - then[0]) / NS_PER_S)
        return None if known_s <= 0 or known_s < covered_s / 2 else ((self.joules - then[1]) / known_s, known_s)


class LimitMonitor:
    def __init__(self, accuracies: Mapping[str, float | None], publisher: Publisher, now_ns: int) -> None:
        self._accuracies = accuracies
        self._publisher = publisher
        self._limits = Limits()
        self._meter = Meter()
        self._sample: Sample | None = None
        self._results = self._late = self._judged = 0
        self._accuracy = 0.0
        self._recent = deque([Counts()], maxlen=RECENT_S)
        self._horizon = now_ns, 0.0, 0.0  # its begin, and joules and known seconds at that time
        self._said_ns: dict[str, int] = {}

    def limits_changed(self, limits: Limits, now_ns: int) -> None:
        before, self._limits = self._limits, limits
        if (limits.energy_wh is None) != (before.energy_wh is None):
            self._begin_horizon(now_ns)

    def published(self, variant: str, on_time: bool) -> None:
        self._results += 1
        self._late += not on_time
        accuracy = self._accuracies.get(variant)
        if accuracy is not None:
            self._accuracy += accuracy
            self._judged += 1

    def sensed(self, sample: Sample, now_ns: int) -> None:
        """A new sample, or one that has grown too old and knows nothing any more."""
        self._sample = sample
        self._meter.estimated = sample.power_estimated
        self._meter.add(sample.mono_ns, sample.power_w, self._limits.power_window_s)
        limits = self._limits
        if limits.temperature_c is not None and sample.temperature_c is not None:
            over = sample.temperature_c > limits.temperature_c + OVER_C
            text = f"{sample.temperature_c:.1f} C, the limit is {limits.temperature_c:g} C"
            self._say("temperature", "limit_exceeded", text, over, now_ns)
        if limits.power_w is not None and (mean := self._meter.mean_w(limits.power_window_s, now_ns)) is not None:
            text = f"{mean[0]:.2f} W over {limits.power_window_s:g} s, the limit is {limits.power_w:g} W"
            over = mean[0] > OVER * limits.power_w and mean[1] > 0.9 * limits.power_window_s
            self._say("power", "limit_exceeded", text, over, now_ns)
        if limits.energy_wh is not None:
            if now_ns - self._horizon[0] > limits.energy_horizon_h * 3600 * NS_PER_S:
                self._begin_horizon(now_ns)
            spent_wh = self._spent_wh()
            text = f"{spent_wh:.2f} Wh are spent of {limits.energy_wh:g} Wh for {limits.energy_horizon_h:g} h"
            self._say("energy", "budget_exhausted", text, spent_wh >= limits.energy_wh, now_ns)

    def update_counters(self, offered: int, budget: int) -> None:
        """Once a second: the cameras' counts beside the results'."""
        self._recent.append(Counts(offered, budget, self._results, self._late, self._accuracy, self._judged))

    def states(self, now_ns: int) -> list[schema.BudgetState]:
        limits, sample = self._limits, self._sample
        recent = self._recent[-1].since(self._recent[0])
        accuracy = round(recent.accuracy / recent.judged, 4) if recent.judged else None
        estimated = self._meter.estimated
        mean = self._meter.mean_w(limits.power_window_s, now_ns)
        known_s = 0.0 if mean is None else mean[1]
        missing = "; ".join(sample.missing) if sample is not None else "the sensors have not been read yet"
        horizon_s = (now_ns - self._horizon[0]) / NS_PER_S
        metered_s = self._meter.known_s - self._horizon[2]
        metered = metered_s / max(1e-9, horizon_s)
        passed = f"{horizon_s / 60:.0f} min" if horizon_s < 3600 else f"{horizon_s / 3600:.1f} h"
        spent = f"in {passed} of {limits.energy_horizon_h:g} h, metered {metered:.0%} of it"
        temperature_c = None if sample is None else sample.temperature_c
        given_up = f"of {recent.offered} in the last minute; {recent.budget} given up for a budget"
        return [
            schema.BudgetState("deadline", 100 * limits.deadline_quantile, _percent(recent.results - recent.late,
                recent.results), "%", False, f"within {limits.deadline_ms:g} ms, of {recent.results} results"),
            schema.BudgetState("power", limits.power_w, None if mean is None else round(mean[0], 3), "W", estimated,
                f"mean of {known_s:.3g} of {limits.power_window_s:g} s" if mean is not None else missing),
            schema.BudgetState("energy", limits.energy_wh, round(self._spent_wh(), 4) if metered_s > 0 else None, "Wh",
                estimated, spent if metered_s > 0 else missing),
            schema.BudgetState("temperature", limits.temperature_c, temperature_c, "C", False,
                "the hottest now" if temperature_c is not None else missing),
            schema.BudgetState("accuracy", limits.min_accuracy or None, accuracy, "", False,
                "mean of the variants that made the last minute's results"),
            schema.BudgetState("frame_rate", None, _percent(recent.results, recent.offered), "%", False, given_up),
        ]  # fmt: skip

    def _begin_horizon(self, now_ns: int) -> None:
        self._horizon = now_ns, self._meter.joules, self._meter.known_s
        self._said_ns.pop("energy", None)

    def _spent_wh(self) -> float:
        return (self._meter.joules - self._horizon[1]) / 3600

    def _say(self, budget: str, kind: str, text: str, over: bool, now_ns: int) -> None:
        """An event when a limit is passed, and not again for a while, however often it is."""
        said_ns = self._said_ns.get(budget)
        if over and (said_ns is None or now_ns - said_ns >= SAY_AGAIN_NS):
            self._said_ns[budget] = now_ns
            by = " (estimated)" if self._meter.estimated and budget != "temperature" else ""
            self._publisher.publish(schema.Event(kind=kind, text=f"{budget}: {text}{by}"))


def _percent(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 2) if whole > 0 else None
