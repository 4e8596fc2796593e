"""The governor at the wheel of a simulated device: translates what the arena tells and asks, decides nothing. Pure.

`limits` is what a profile or an operator asks beyond the scenario's own limits; a tap records the run as it would a
daemon's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from edged.clock import NS_PER_S
from edged.governor import messages
from edged.governor.helm import Helm, Tap
from edged.governor.messages import (
    BatchDone,
    Battery,
    Budget,
    BudgetChanged,
    Device,
    Observation,
    Sensed,
    Skipped,
    Tick,
    Variant,
    Workload,
)
from edged.simulate.arena import Action, NominalProfile, Outcome, Waiting
from edged.simulate.device import Reading
from edged.simulate.tables import (
    ACCURACY,
    ACCURACY_SLOPE,
    CLOCK_DWELL_S,
    CLOCK_STALL_S,
    COLD_FACTOR,
    DLA,
    ENGINE_STALL_S,
    ENGINES,
    LEAKAGE_W_PER_C,
)

PLAN_EVERY_S: Final = 0.5
NO_CAP_W: Final = 1e6
"""A scenario always has a cap; this one is none."""
NOTHING_ASKED: Final = Budget(deadline_ms=1000.0, deadline_quantile=0.99, min_accuracy=0.0)


def variants(brief: NominalProfile) -> list[Variant]:
    """The device's engines as a bundle's profile would tell of them."""
    found = []
    for i, name in enumerate(ENGINES):
        if not brief.available[i]:
            continue
        top = float(brief.latency_s[i, -1]) * 1000
        found.append(
            Variant(
                name,
                ACCURACY[i] - messages.TYPICAL * ACCURACY_SLOPE[i],
                tuple(top * k**brief.table.batch_power for k in range(1, brief.cameras + 1)),
                tuple(float(x) / float(brief.latency_s[i, -1]) for x in brief.latency_s[i]),
                tuple(float(x) for x in brief.active_w[i]),
                ACCURACY_SLOPE[i],
                "dla" if i == DLA else "gpu",
            )
        )
    return found


def device(brief: NominalProfile, fixed_clock: bool) -> Device:
    table = brief.table
    return Device(
        tuple(float(x) for x in brief.idle_w), fixed_clock, LEAKAGE_W_PER_C, table.junction_j_per_c, table.sink_j_per_c,
        table.junction_sink_c_per_w, table.sink_air_c_per_w, brief.sensor_lag_s, brief.sensor_mean_s,
        ENGINE_STALL_S * 1000, CLOCK_STALL_S * 1000, CLOCK_DWELL_S, COLD_FACTOR,
    )  # fmt: skip


class GovernorPolicy:
    """A policy of the arena. Deadline, window, temperature and cap are the scenario's; quantile, accuracy floor and
    energy are those of `limits`. `profiled`: with a device profile; without one only latency and accuracy are known,
    and the watts are learnt."""

    def __init__(
        self,
        fixed_clock: bool = False,
        profiled: bool = True,
        limits: Budget = NOTHING_ASKED,
        tap: Tap | None = None,
    ) -> None:
        self._fixed_clock, self._profiled, self._limits, self._tap = fixed_clock, profiled, limits, tap

    def start(self, brief: NominalProfile) -> None:
        self.brief = brief
        known, costs = variants(brief), device(brief, self._fixed_clock)
        if not self._profiled:
            known = [replace(v, clock_factor=(), active_w=()) for v in known]
        self._engines = {v.name: ENGINES.index(v.name) for v in known}
        battery = None
        if brief.capacity_wh is not None:
            forecast = tuple(float(x) for x in brief.forecast_w)
            battery = Battery(brief.capacity_wh, brief.duration_s, forecast, brief.forecast_step_s)
        self.budget = replace(
            self._limits, deadline_ms=brief.deadline_s * 1000, power_w=None, power_window_s=brief.window_s,
            temperature_c=brief.limit_c, battery=battery,
        )  # fmt: skip
        self.helm = Helm(known, self.budget, 0, costs if self._profiled else None, self._tap)
        self._tell(Workload(brief.cameras, brief.fps * brief.cameras, 0), 0.0)
        self._planned_s = 0.0
        self._clock = brief.clocks - 1

    def sense(self, reading: Reading) -> None:
        said = Sensed(reading.power_w, reading.temperature_c, reading.charge, reading.sun_w, self._clock)
        self._tell(said, reading.at_s)

    def decide(self, waiting: Waiting) -> Action:
        self._clock = waiting.clock
        cap_w = waiting.cap_w if waiting.cap_w < NO_CAP_W else None
        if self.budget.power_w != cap_w:
            self.budget = replace(self.budget, power_w=cap_w)
            self._tell(BudgetChanged(self.budget), waiting.at_s)
        if waiting.at_s - self._planned_s >= PLAN_EVERY_S:
            self._planned_s = waiting.at_s
            self._tell(Workload(waiting.frames, waiting.frames / waiting.period_s, 0), waiting.at_s)
            self._tell(Tick(), waiting.at_s)
        asked = messages.Waiting(
            frames=waiting.frames,
            age_ms=waiting.age_s * 1000,
            period_ms=waiting.period_s * 1000,
            contrast=waiting.contrast,
            last=ENGINES[waiting.last_engine] if waiting.last_engine >= 0 else None,
            clock=waiting.clock,
            may_switch_clock=waiting.may_switch_clock,
        )
        choice = self.helm.choose(asked, _ns(waiting.at_s))
        self._clock = waiting.clock if choice.clock is None else choice.clock
        if 0 < choice.frames < waiting.frames:
            self._tell(Skipped(waiting.frames - choice.frames, False), waiting.at_s)
        if choice.variant is None:
            self._tell(Skipped(waiting.frames, False), waiting.at_s)
            return Action(self._clock)
        return Action(self._clock, self._engines[choice.variant], choice.frames, choice.batch > 1)

    def done(self, outcome: Outcome) -> None:
        batch_s = outcome.latency_s * outcome.batch**self.brief.table.batch_power
        lead_s = outcome.finished_age_s - (outcome.end_s - outcome.begin_s)
        self._done = BatchDone(
            ENGINES[outcome.engine], outcome.batch, batch_s * 1000, max(0.0, lead_s) * 1000, outcome.late,
            (outcome.confidence,), outcome.contrast, outcome.clock, outcome.frames // outcome.batch, outcome.cold,
            outcome.again,
        )  # fmt: skip
        self._tell(self._done, outcome.end_s)

    def escalate(self, waiting: Waiting, outcome: Outcome) -> int | None:
        period_ms = waiting.period_s * 1000
        again = self.helm.escalate(self._done, outcome.finished_age_s * 1000, period_ms, now_ns=_ns(outcome.end_s))
        return None if again is None else self._engines[again]

    def dropped(self, waiting: Waiting) -> None:
        self._tell(Skipped(waiting.frames, True), waiting.at_s)

    def _tell(self, observation: Observation, at_s: float) -> None:
        self.helm.observe(observation, _ns(at_s))


def _ns(at_s: float) -> int:
    return round(at_s * NS_PER_S)
