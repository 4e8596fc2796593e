"""One policy through one scenario: frames come, the policy decides, the plant answers, the run is scored. Pure.

A policy is told the nominal profile and the limits (`NominalProfile`), then sees only what a device would show it:
readings, the frames that wait, and what became of those it ran.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edged.simulate.device import Plant, Reading
from edged.simulate.scenario import FORECAST_STEP_S, Truth, accuracy
from edged.simulate.score import Score, Tally, score
from edged.simulate.shapes import Array
from edged.simulate.tables import (
    CLOCK_DWELL_S,
    CLOCK_STALL_S,
    COLD_AFTER_S,
    COLD_FACTOR,
    ENGINE_STALL_S,
    ENGINES,
    THROTTLED_FACTOR,
    DeviceTable,
)


@dataclass(frozen=True)
class NominalProfile:
    """What a policy is told before the run. Arrays go by engine and clock; nominal, not this unit's."""

    table: DeviceTable
    latency_s: Array
    active_w: Array
    idle_w: Array
    available: tuple[bool, ...]
    cameras: int
    fps: float
    duration_s: float
    deadline_s: float
    window_s: int
    limit_c: float
    capacity_wh: float | None
    forecast_w: Array
    forecast_step_s: float
    sensor_hz: float
    sensor_lag_s: float
    sensor_mean_s: float

    @property
    def clocks(self) -> int:
        return len(self.idle_w)


@dataclass(frozen=True)
class Waiting:
    """One tick's frames, of all cameras. `last_engine` is -1 before the first."""

    at_s: float
    age_s: float
    contrast: float
    clock: int
    last_engine: int
    cap_w: float
    throttled: bool
    may_switch_clock: bool
    period_s: float
    frames: int


@dataclass(frozen=True)
class Action:
    """`engine` None skips the tick; `batched`: all frames at once, else one after the other."""

    clock: int
    engine: int | None = None
    frames: int = 1
    batched: bool = False


@dataclass(frozen=True)
class Outcome:
    """`latency_s` is that of one batch-1 inference; `finished_age_s`: capture to the last result."""

    begin_s: float
    end_s: float
    engine: int
    clock: int
    batch: int
    frames: int
    latency_s: float
    late: int
    confidence: float
    contrast: float
    cold: bool
    again: bool
    finished_age_s: float


class Policy(Protocol):
    """A frame that waited too long is `dropped` unseen. `escalate` may name an engine to run the frame again on."""

    def start(self, brief: NominalProfile) -> None: ...
    def sense(self, reading: Reading) -> None: ...
    def decide(self, waiting: Waiting) -> Action: ...
    def done(self, outcome: Outcome) -> None: ...
    def escalate(self, waiting: Waiting, outcome: Outcome) -> int | None: ...
    def dropped(self, waiting: Waiting) -> None: ...


def brief(truth: Truth) -> NominalProfile:
    table = truth.table
    return NominalProfile(
        table=table,
        latency_s=np.array(table.latency_ms)[:, None] / 1000.0 * truth.nominal_clock_factor,
        active_w=truth.nominal_active_w.copy(),
        idle_w=np.array(table.idle_w, float),
        available=tuple(bool(x) for x in truth.available),
        cameras=truth.cameras,
        fps=float(truth.fps[0]),
        duration_s=truth.duration_s,
        deadline_s=truth.deadline_s,
        window_s=truth.window_s,
        limit_c=truth.limit_c,
        capacity_wh=truth.battery["cap_wh"] if truth.battery else None,
        forecast_w=truth.forecast_w.copy(),
        forecast_step_s=FORECAST_STEP_S,
        sensor_hz=truth.sensor["hz"],
        sensor_lag_s=truth.sensor["lag"],
        sensor_mean_s=truth.sensor["tau"],
    )


def run(truth: Truth, policy: Policy, fixed_clock: bool = False) -> Score:
    """From the first frame to the last. `fixed_clock`: whatever the policy asks, the clock stays at its highest."""
    return _Run(truth, policy, fixed_clock).whole()


class _Run:
    def __init__(self, truth: Truth, policy: Policy, fixed_clock: bool) -> None:
        policy.start(brief(truth))
        self._truth, self._policy = truth, policy
        self._plant = Plant(truth, len(truth.idle_w) - 1)
        n = len(truth.tick)
        self._tally = Tally(np.zeros(n), np.zeros(n, dtype=int))
        self._free_s = 0.0
        self._clock_changed_s = float("inf") if fixed_clock else -1e9
        self._last_engine = -1
        self._last_used_s = [-1e9] * len(ENGINES)

    def whole(self) -> Score:
        truth, tick = self._truth, self._truth.tick
        period_s = 1.0 / truth.fps[0]
        for i in range(len(tick)):
            if i:
                period_s += 0.2 * ((tick[i] - tick[i - 1]) - period_s)
            begin_s = max(float(tick[i]), self._free_s)
            if begin_s >= truth.duration_s - 0.1:
                break
            self._pass(begin_s)
            if self._plant.off_until_s > begin_s:
                self._tally.dropped += truth.cameras
                self._free_s = max(self._free_s, float(tick[i]))
                continue
            self._tick(i, begin_s, float(period_s))
        self._pass(truth.duration_s)
        return score(truth, self._plant.log, self._tally)

    def _pass(self, to_s: float) -> None:
        for reading in self._plant.advance(to_s):
            self._policy.sense(reading)

    def _tick(self, i: int, begin_s: float, period_s: float) -> None:
        truth, plant, tally, n = self._truth, self._plant, self._tally, self._truth.cameras
        may_switch = begin_s - self._clock_changed_s >= CLOCK_DWELL_S and not plant.throttled
        age_s = begin_s - float(truth.tick[i])
        cap_w = float(truth.cap_w[min(truth.steps - 1, int(begin_s / 0.1))])
        waiting = Waiting(
            begin_s, age_s, float(truth.contrast[i]), plant.running_clock, self._last_engine, cap_w, plant.throttled,
            may_switch, period_s, n,
        )  # fmt: skip
        if age_s >= truth.deadline_s:
            tally.dropped += n
            tally.late += n
            tally.processed += n
            self._policy.dropped(waiting)
            return
        action = self._policy.decide(waiting)
        if action.clock != plant.clock and may_switch:
            plant.set_clock(action.clock)
            self._clock_changed_s = begin_s
            tally.clock_changes += 1
            begin_s += CLOCK_STALL_S
        if action.engine is None or action.frames <= 0 or not truth.available[action.engine]:
            tally.skipped += n
            self._free_s = max(self._free_s, begin_s)
            return
        self._infer(i, begin_s, waiting, action, action.engine)

    def _infer(self, i: int, begin_s: float, waiting: Waiting, action: Action, engine: int) -> None:
        truth, tally, frames = self._truth, self._tally, action.frames
        if engine != self._last_engine:
            tally.engine_changes += 1
            begin_s += ENGINE_STALL_S
        one_s, cold = self._latency(i, engine, begin_s)
        factor = frames**truth.table.batch_power if action.batched and frames > 1 else 1.0
        runs = 1 if action.batched or frames == 1 else frames
        end_s = begin_s + runs * one_s * factor
        clock = self._plant.running_clock
        self._plant.spend(begin_s, end_s, truth.energy_j(i, engine, clock, factor) * runs)
        arrived_s, gain, late = float(truth.tick[i]), accuracy(engine, truth.difficulty[i]), 0
        got = 0.0
        for k in range(runs):
            count = frames // runs
            if begin_s + (k + 1) * one_s * factor - arrived_s <= truth.deadline_s:
                got += count * gain
            else:
                late += count
        tally.processed += frames
        tally.skipped += waiting.frames - frames
        self._last_engine, self._last_used_s[engine] = engine, end_s
        confidence = float(1.0 - 0.8 * truth.difficulty[i] + truth.confidence_noise[i])
        outcome = Outcome(
            begin_s, end_s, engine, clock, frames if action.batched and frames > 1 else 1, frames, one_s, late,
            confidence, waiting.contrast, cold, False, end_s - arrived_s,
        )  # fmt: skip
        self._policy.done(outcome)
        if waiting.frames == 1 and late == 0:
            second = self._policy.escalate(waiting, outcome)
            if second is not None and truth.available[second]:
                end_s, got = self._again(i, second, outcome, got)
        tally.late += late
        tally.accuracy[i] = got
        tally.finished_s[i] = int(end_s)
        self._free_s = end_s

    def _again(self, i: int, engine: int, first: Outcome, got: float) -> tuple[float, float]:
        """The same frame on another engine; the better of two results on time counts."""
        truth = self._truth
        begin_s = first.end_s + ENGINE_STALL_S
        one_s, cold = self._latency(i, engine, begin_s)
        end_s = begin_s + one_s
        self._plant.spend(begin_s, end_s, truth.energy_j(i, engine, first.clock, 1.0))
        self._tally.escalations += 1
        age_s = end_s - float(truth.tick[i])
        if age_s <= truth.deadline_s:
            got = max(got, accuracy(engine, truth.difficulty[i]))
        self._last_engine, self._last_used_s[engine] = engine, end_s
        self._policy.done(
            Outcome(
                begin_s, end_s, engine, first.clock, 1, 1, one_s, 0, first.confidence, first.contrast, cold, True, age_s
            )
        )
        return end_s, got

    def _latency(self, i: int, engine: int, at_s: float) -> tuple[float, bool]:
        one_s = self._truth.latency_s(i, engine, self._plant.running_clock)
        if self._plant.throttled:
            one_s *= THROTTLED_FACTOR
        cold = at_s - self._last_used_s[engine] > COLD_AFTER_S
        return one_s * (1.0 + COLD_FACTOR) if cold else one_s, cold
