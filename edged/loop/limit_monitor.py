"""The limits beside what was measured: samples and results in; a table of them, and events when one is passed, out.

The governor decides by estimates; these are the measurements that show whether the limits held. What the energy meter
integrated is only subtracted here. On the engine loop's thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple

from edged.bus import schema
from edged.bus.publisher import Publisher
from edged.clock import NS_PER_S
from edged.config import Limits
from edged.governor.messages import EnergyUse
from edged.power.energy_meter import EnergyHorizon, HorizonUse, PowerWindow, Total
from edged.power.telemetry import Sample

RECENT_S: Final = 60
"""Shares and rates are those of the last minute."""
OVER: Final = 1.02
"""A mean above its limit by less is within the meter's error."""
OVER_C: Final = 0.5
REPORT_AGAIN_NS: Final = 60 * NS_PER_S


class Counts(NamedTuple):
    """Since the start: frames offered to the engine, dropped for a budget, published, late; and over `judged` of them
    the sum of the accuracies of the variants they were published from."""

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


class LimitMonitor:
    def __init__(
        self,
        accuracies: Mapping[str, float | None],
        publisher: Publisher,
        restored: HorizonUse | None = None,
    ) -> None:
        """`accuracies` by variant. `restored`: the energy horizon of an earlier run."""
        self._accuracies = accuracies
        self._publisher = publisher
        self._limits = Limits()
        self._window = PowerWindow()
        self._horizon = EnergyHorizon(restored)
        self._sample: Sample | None = None
        self._results = self._late = self._judged = 0
        self._accuracy = 0.0
        self._recent = deque([Counts()], maxlen=RECENT_S)
        self._reported_ns: dict[str, int] = {}

    @property
    def horizon(self) -> HorizonUse | None:
        """What the energy limit has used; None without one. Any thread."""
        return self._horizon.use

    def energy_use(self, now_ns: int) -> EnergyUse | None:
        """For the governor: what the energy limit in force has used, restored from an earlier run too. None without an
        energy limit, and before anything was metered."""
        use = self._horizon.use
        if self._limits.energy_wh is None or use is None or use.metered_s <= 0:
            return None
        return EnergyUse(use.spent_j, use.left_s(now_ns))

    def limits_changed(self, limits: Limits, now_ns: int) -> None:
        self._limits = limits
        self._horizon.set_length(None if limits.energy_wh is None else limits.energy_horizon_h * 3600, now_ns)

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
        limits = self._limits
        total = Total(sample.mono_ns, sample.energy_j or 0.0, sample.energy_gap_s)
        self._window.add(total, limits.power_window_s)
        self._horizon.add(total)
        if limits.temperature_c is not None and sample.temperature_c is not None:
            over = sample.temperature_c > limits.temperature_c + OVER_C
            text = f"{sample.temperature_c:.1f} C, the limit is {limits.temperature_c:g} C"
            self._report("temperature", "limit_exceeded", text, over, now_ns)
        if limits.power_w is not None and (mean := self._window.mean_w(limits.power_window_s, now_ns)) is not None:
            text = f"{mean[0]:.2f} W over {limits.power_window_s:g} s, the limit is {limits.power_w:g} W"
            over = mean[0] > OVER * limits.power_w and mean[1] > 0.9 * limits.power_window_s
            self._report("power", "limit_exceeded", text, over, now_ns)
        if limits.energy_wh is not None:
            if self._horizon.rolled(now_ns):
                self._reported_ns.pop("energy", None)
            spent_wh = self._energy(now_ns)[0] or 0.0
            text = f"{spent_wh:.2f} Wh of {limits.energy_wh:g} Wh for {limits.energy_horizon_h:g} h are used"
            self._report("energy", "budget_exhausted", text, spent_wh >= limits.energy_wh, now_ns)

    def update_counters(self, offered: int, budget: int) -> None:
        """Once a second: the cameras' counts beside the results'."""
        self._recent.append(Counts(offered, budget, self._results, self._late, self._accuracy, self._judged))

    def states(self, now_ns: int) -> list[schema.BudgetState]:
        """Each limit beside what was measured."""
        limits, sample = self._limits, self._sample
        recent = self._recent[-1].since(self._recent[0])
        accuracy = round(recent.accuracy / recent.judged, 4) if recent.judged else None
        estimated = sample is not None and sample.power_estimated
        mean = self._window.mean_w(limits.power_window_s, now_ns)
        missing = "; ".join(sample.missing) if sample is not None else "the sensors have not been read yet"
        window = missing if mean is None else f"mean of {mean[1]:.3g} of {limits.power_window_s:g} s"
        mean_w = None if mean is None else round(mean[0], 3)
        spent_wh, horizon = self._energy(now_ns)
        temperature_c = None if sample is None else sample.temperature_c
        heat = missing if temperature_c is None else "the hottest now"
        on_time = _percent(recent.results - recent.late, recent.results)
        on_time_note = f"within {limits.deadline_ms:g} ms, of {recent.results} results"
        dropped = f"of {recent.offered} in the last minute; {recent.budget} dropped for a budget"
        return [
            schema.BudgetState("deadline", 100 * limits.deadline_quantile, on_time, "%", False, on_time_note),
            schema.BudgetState("power", limits.power_w, mean_w, "W", estimated, window),
            schema.BudgetState(
                "energy", limits.energy_wh, spent_wh, "Wh", estimated, missing if spent_wh is None else horizon
            ),
            schema.BudgetState("temperature", limits.temperature_c, temperature_c, "C", False, heat),
            schema.BudgetState(
                "accuracy",
                limits.min_accuracy or None,
                accuracy,
                "",
                False,
                "mean of the variants that made the last minute's results",
            ),
            schema.BudgetState("frame_rate", None, _percent(recent.results, recent.offered), "%", False, dropped),
        ]

    def _energy(self, now_ns: int) -> tuple[float | None, str]:
        """Watt-hours of the horizon in force, without a limit since edged started; and over what. None before anything
        was metered."""
        use, sample = self._horizon.use, self._sample
        if self._limits.energy_wh is None or use is None:
            energy_j = None if sample is None else sample.energy_j
            return None if energy_j is None else round(energy_j / 3600, 4), "since edged started"
        passed_s = use.passed_s(now_ns)
        passed = f"{passed_s:.0f} s" if passed_s < 120 else f"{passed_s / 60:.0f} min"
        passed = passed if passed_s < 3600 else f"{passed_s / 3600:.1f} h"
        metered = min(1.0, use.metered_s / max(1e-9, passed_s))
        note = f"in {passed} of {self._limits.energy_horizon_h:g} h, metered {metered:.0%} of it"
        return round(use.spent_j / 3600, 4) if use.metered_s > 0 else None, note

    def _report(self, budget: str, kind: str, text: str, over: bool, now_ns: int) -> None:
        """An event when a limit is passed, and not again for a while, however often it is."""
        reported_ns = self._reported_ns.get(budget)
        if over and (reported_ns is None or now_ns - reported_ns >= REPORT_AGAIN_NS):
            self._reported_ns[budget] = now_ns
            estimated = self._sample is not None and self._sample.power_estimated and budget != "temperature"
            suffix = " (estimated)" if estimated else ""
            self._publisher.publish(schema.Event(kind=kind, text=f"{budget}: {text}{suffix}"))


def _percent(part: int, total: int) -> float | None:
    return round(100 * part / total, 2) if total > 0 else None
