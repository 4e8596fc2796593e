"""One policy through one scenario: frames come, the policy decides, the device answers, the run is scored. Pure.

A policy gets the nominal profile and the limits (`NominalProfile`), then sees only what a device would show it:
samples of the sensors, the frames that arrive, and what became of those it ran. It keeps its own queue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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

TICK_S = 0.5


@dataclass(frozen=True)
class NominalProfile:
    """What a policy knows before the run. Arrays go by engine and clock; nominal, not this unit's."""

    table: DeviceTable
    latency_s: Array
    active_w: Array
    idle_w: Array
    available: tuple[bool, ...]
    cameras: int
    weights: tuple[float, ...]
    together: bool
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
class Arrival:
    """Frame `index` of the run, of one camera."""

    index: int
    camera: int
    at_s: float
    contrast: float


@dataclass(frozen=True)
class Moment:
    """The engine is free: what a policy may know of now. `last_engine` is -1 before the first batch."""

    at_s: float
    clock: int
    last_engine: int
    cap_w: float
    throttled: bool
    may_switch_clock: bool


@dataclass(frozen=True)
class Action:
    """The clock to run at, and a batch: frames by index, on `engine`; `serial`: one after the other instead. No frames:
    nothing runs now. `waits`: the policy still has frames to run."""

    clock: int
    engine: int = -1
    frames: tuple[int, ...] = ()
    serial: bool = False


@dataclass(frozen=True)
class Outcome:
    """`latency_s` is that of one batch-1 inference; `finished_age_s`: capture of the oldest frame to the last
    result."""

    begin_s: float
    end_s: float
    engine: int
    clock: int
    frames: int
    serial: bool
    latency_s: float
    late: int
    finished_age_s: float


class Policy(Protocol):
    """`dropped`: what the policy dropped since the last call: (as late, by choice)."""

    def start(self, nominal: NominalProfile) -> None: ...
    def sense(self, reading: Reading) -> None: ...
    def tick(self, at_s: float) -> None: ...
    def veto(self, engine: int, camera: int | None, vetoed: bool, at_s: float) -> None: ...
    def arrive(self, arrival: Arrival) -> None: ...
    @property
    def waiting(self) -> bool: ...
    def decide(self, moment: Moment) -> Action: ...
    def done(self, outcome: Outcome) -> None: ...
    def dropped(self) -> tuple[int, int]: ...


def nominal_profile(truth: Truth) -> NominalProfile:
    table = truth.table
    return NominalProfile(
        table=table,
        latency_s=np.array(table.latency_ms)[:, None] / 1000.0 * truth.nominal_clock_factor,
        active_w=truth.nominal_active_w.copy(),
        idle_w=np.array(table.idle_w, float),
        available=tuple(bool(x) for x in truth.available),
        cameras=truth.cameras,
        weights=truth.weights,
        together=not truth.apart,
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
    """From the first frame to the last. `fixed_clock`: the clock stays at its maximum."""
    return _Run(truth, policy, fixed_clock).score()


class _Run:
    def __init__(self, truth: Truth, policy: Policy, fixed_clock: bool) -> None:
        policy.start(nominal_profile(truth))
        self._truth, self._policy = truth, policy
        self._plant = Plant(truth, len(truth.idle_w) - 1)
        self._tally = Tally.of(truth.frames)
        self._clock_changed_s = math.inf if fixed_clock else -1e9
        self._last_engine = -1
        self._last_used_s = [-1e9] * len(ENGINES)
        self._now_s = 0.0
        self._next = 0
        self._ticked_s = 0.0
        self._vetoes = list(truth.veto_changes)

    def score(self) -> Score:
        truth, policy, end_s = self._truth, self._policy, self._truth.duration_s - 0.1
        while True:
            self._arrivals()
            if policy.waiting:
                if self._now_s >= end_s:
                    break
                self._pass(self._now_s)
                self._decide()
            elif self._next < truth.frames and truth.arrived_s(self._next) < end_s:
                self._now_s = max(self._now_s, min(truth.arrived_s(self._next), self._ticked_s + TICK_S))
                self._pass(self._now_s)
            else:
                break
        self._pass(truth.duration_s)
        self._count_drops()
        return score(truth, self._plant.log, self._tally)

    def _arrivals(self) -> None:
        truth = self._truth
        while self._next < truth.frames and truth.arrived_s(self._next) <= self._now_s:
            j, self._next = self._next, self._next + 1
            tick = truth.tick_of(j)
            if self._plant.off_until_s > truth.arrived_s(j):
                self._tally.dropped += 1
                continue
            self._policy.arrive(Arrival(j, truth.camera_of(j), truth.arrived_s(j), float(truth.contrast[tick])))

    def _pass(self, to_s: float) -> None:
        """Advance the time, with the readings, vetoes and ticks that are due."""
        for reading in self._plant.advance(to_s):
            self._policy.sense(reading)
        while self._vetoes and self._vetoes[0][0] <= to_s:
            at_s, engine, camera, vetoed = self._vetoes.pop(0)
            self._policy.veto(engine, camera, vetoed, at_s)
        if to_s >= self._ticked_s + TICK_S:
            self._ticked_s = to_s
            self._policy.tick(to_s)

    def _decide(self) -> None:
        truth, plant, begin_s = self._truth, self._plant, self._now_s
        may_switch = begin_s - self._clock_changed_s >= CLOCK_DWELL_S and not plant.throttled
        cap_w = float(truth.cap_w[min(truth.steps - 1, int(begin_s / 0.1))])
        moment = Moment(begin_s, plant.running_clock, self._last_engine, cap_w, plant.throttled, may_switch)
        action = self._policy.decide(moment)
        self._count_drops()
        if action.clock != plant.clock and may_switch:
            plant.set_clock(action.clock)
            self._clock_changed_s = begin_s
            self._tally.clock_changes += 1
            begin_s += CLOCK_STALL_S
        if action.frames and truth.available[action.engine]:
            begin_s = self._infer(begin_s, action.engine, action.frames, action.serial)
        self._now_s = max(self._now_s, begin_s)

    def _infer(self, begin_s: float, engine: int, frames: Sequence[int], serial: bool) -> float:
        truth, tally, count = self._truth, self._tally, len(frames)
        if engine != self._last_engine:
            tally.engine_changes += 1
            begin_s += ENGINE_STALL_S
        tick = truth.tick_of(frames[0])
        one_s = self._latency_s(tick, engine, begin_s)
        factor = 1.0 if serial else count**truth.table.batch_power
        runs = count if serial else 1
        end_s = begin_s + runs * one_s * factor
        clock = self._plant.running_clock
        self._plant.spend(begin_s, end_s, truth.energy_j(tick, engine, clock, factor) * runs)
        late = 0
        for place, j in enumerate(frames):
            done_s = begin_s + (place + 1) * one_s if serial else end_s
            on_time = done_s - truth.arrived_s(j) <= truth.deadline_s
            late += not on_time
            counts = on_time and not truth.is_vetoed(engine, truth.camera_of(j), begin_s)
            gained = accuracy(engine, truth.difficulty[truth.tick_of(j)])
            tally.add(j, int(end_s), counts, gained, truth.weights[truth.camera_of(j)])
        tally.late += late
        tally.processed += count
        self._last_engine, self._last_used_s[engine] = engine, end_s
        age_s = end_s - min([truth.arrived_s(j) for j in frames])
        self._policy.done(Outcome(begin_s, end_s, engine, clock, count, serial, one_s, late, age_s))
        return end_s

    def _count_drops(self) -> None:
        late, chosen = self._policy.dropped()
        self._tally.dropped += late
        self._tally.late += late
        self._tally.processed += late
        self._tally.skipped += chosen

    def _latency_s(self, tick: int, engine: int, at_s: float) -> float:
        one_s = self._truth.latency_s(tick, engine, self._plant.running_clock)
        if self._plant.throttled:
            one_s *= THROTTLED_FACTOR
        cold = at_s - self._last_used_s[engine] > COLD_AFTER_S
        return one_s * (1.0 + COLD_FACTOR) if cold else one_s
