"""The governor as a contestant of the arena: translates what the arena tells and asks, decides nothing itself."""

from __future__ import annotations

from edged.governor import economy
from edged.governor.decision import Battery, Budget, Device, Variant
from edged.simulate.arena import Action, Brief, Outcome, Waiting
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


def variants(brief: Brief) -> list[Variant]:
    found = []
    for i, name in enumerate(ENGINES):
        if not brief.available[i]:
            continue
        top = float(brief.latency_s[i, -1]) * 1000
        found.append(
            Variant(
                name,
                ACCURACY[i] - 0.4 * ACCURACY_SLOPE[i],
                tuple(top * k**brief.table.batch_power for k in range(1, brief.cameras + 1)),
                tuple(float(x) / float(brief.latency_s[i, -1]) for x in brief.latency_s[i]),
                tuple(float(x) for x in brief.active_w[i]),
                ACCURACY_SLOPE[i],
                "dla" if i == DLA else "gpu",
            )
        )
    return found


def device(brief: Brief, fixed_clock: bool) -> Device:
    table = brief.table
    return Device(
        tuple(float(x) for x in brief.idle_w), fixed_clock, LEAKAGE_W_PER_C, table.junction_j_per_c, table.sink_j_per_c,
        table.junction_sink_c_per_w, table.sink_air_c_per_w, brief.sensor_lag_s, brief.sensor_mean_s,
        ENGINE_STALL_S * 1000, CLOCK_STALL_S * 1000, CLOCK_DWELL_S, COLD_FACTOR,
    )  # fmt: skip


class Contestant:
    def __init__(self, fixed_clock: bool = False) -> None:
        self.fixed_clock = fixed_clock

    def start(self, brief: Brief) -> None:
        self.brief = brief
        known = variants(brief)
        self.engines = [ENGINES.index(v.name) for v in known]
        battery = None
        if brief.capacity_wh is not None:
            forecast = tuple(float(x) for x in brief.forecast_w)
            battery = Battery(brief.capacity_wh, brief.duration_s, forecast, brief.forecast_step_s)
        self.budget = Budget(
            brief.deadline_s * 1000, 0.99, 0.0, 1e3, brief.window_s, temperature_c=brief.limit_c, battery=battery
        )
        self.state = economy.fresh(known, device(brief, self.fixed_clock), self.budget, brief.cameras, brief.fps)
        self.clock = brief.clocks - 1

    def sense(self, reading: Reading) -> None:
        self.state = economy.sensed(
            self.state, reading.at_s, reading.power_w, reading.temperature_c, reading.charge, reading.sun_w, self.clock
        )

    def decide(self, waiting: Waiting) -> Action:
        self._cap(waiting.cap_w)
        self.clock = waiting.clock
        if waiting.at_s - self.state.planned_s >= economy.REPLAN_S:
            self.state = economy.replan(
                self.state, waiting.at_s, waiting.period_s, waiting.clock, waiting.may_switch_clock
            )
        last = self.engines.index(waiting.last_engine) if waiting.last_engine >= 0 else None
        option, clock, _, _ = economy.choose(
            self.state, waiting.age_s, waiting.period_s, waiting.contrast, last, waiting.clock, waiting.may_switch_clock
        )
        self.clock = clock
        if option is None:
            self.state = economy.skipped(self.state, waiting.frames, False)
            return Action(clock)
        chosen = self.state.tables.options[option]
        return Action(clock, self.engines[chosen.variant], chosen.frames, chosen.batch > 1)

    def done(self, outcome: Outcome) -> None:
        batch_factor = outcome.batch**self.brief.table.batch_power
        self.state = economy.ran(
            self.state, outcome.end_s, self.engines.index(outcome.engine), outcome.clock, outcome.frames, outcome.batch,
            outcome.latency_s * batch_factor, outcome.late, outcome.confidence, outcome.contrast, outcome.cold,
            outcome.again,
        )  # fmt: skip

    def escalate(self, waiting: Waiting, outcome: Outcome) -> int | None:
        second = economy.escalate(
            self.state, self.engines.index(outcome.engine), outcome.confidence, outcome.contrast,
            outcome.finished_age_s, waiting.period_s, outcome.clock,
        )  # fmt: skip
        return None if second is None else self.engines[second]

    def dropped(self, waiting: Waiting) -> None:
        self.state = economy.skipped(self.state, waiting.frames, True)

    def _cap(self, cap_w: float) -> None:
        if self.budget.power_w != cap_w:
            from dataclasses import replace

            self.budget = replace(self.budget, power_w=cap_w)
            self.state = replace(self.state, budget=self.budget)
