"""Policies to compare the governor with: a fixed engine, by contrast, a thermostat, race to idle, ALERT (USENIX
ATC '20) after its paper, and the best fixed choice with hindsight."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from edged.simulate.arena import Action, Arrival, Moment, NominalProfile, Outcome
from edged.simulate.device import Reading
from edged.simulate.scenario import accuracy
from edged.simulate.tables import ENGINES

FP16, INT8, SPARSE, LITE = range(4)
TYPICAL_DIFFICULTY = 0.4
CONTRAST_SPLIT = 0.5


@dataclass(frozen=True)
class Waiting:
    """What a baseline decides on: the frames of one round, or those that wait where cameras come in their own time."""

    at_s: float
    age_s: float
    contrast: float
    clock: int
    cap_w: float
    may_switch_clock: bool
    period_s: float
    frames: int


class Baseline:
    """A policy of the arena that answers for a whole round: `decide` gives a clock, and an engine or None to skip it.

    Frames that come together queue as rounds and run as one batch; a round that waited beyond the deadline is dropped.
    Where cameras come in their own time, the newest frame of each waits, and all that wait run as one batch."""

    def start(self, nominal: NominalProfile) -> None:
        self.nominal = nominal
        self.top = nominal.clocks - 1
        self.charge: float | None = None
        self.sun_w = 0.0
        self._queue: list[Arrival] = []
        self._period_s = 1.0 / nominal.fps
        self._round_s = -1.0
        self._late = self._skipped = 0
        self._vetoed: set[int] = set()

    def sense(self, reading: Reading) -> None:
        self.charge, self.sun_w = reading.charge, reading.sun_w

    def tick(self, at_s: float) -> None: ...

    def veto(self, engine: int, camera: int | None, vetoed: bool, at_s: float) -> None:
        """Of one camera it holds for all: a baseline runs one engine for a round."""
        self._vetoed.add(engine) if vetoed else self._vetoed.discard(engine)

    def arrive(self, arrival: Arrival) -> None:
        if self.nominal.together:
            if arrival.at_s != self._round_s:
                if self._round_s >= 0:
                    self._period_s += 0.2 * (arrival.at_s - self._round_s - self._period_s)
                self._round_s = arrival.at_s
        else:
            kept = [other for other in self._queue if other.camera != arrival.camera]
            self._skipped += len(self._queue) - len(kept)
            self._queue = kept
        self._queue.append(arrival)

    @property
    def waiting(self) -> bool:
        return bool(self._queue)

    def decide(self, moment: Moment) -> Action:
        first_s = min(arrival.at_s for arrival in self._queue)
        due = [a for a in self._queue if not self.nominal.together or a.at_s == first_s]
        if moment.at_s - first_s >= self.nominal.deadline_s:
            due = [a for a in due if moment.at_s - a.at_s >= self.nominal.deadline_s]
            self._take(due)
            self._late += len(due)
            return Action(moment.clock)
        waiting = Waiting(
            moment.at_s,
            moment.at_s - first_s,
            due[0].contrast,
            moment.clock,
            moment.cap_w,
            moment.may_switch_clock,
            self._period_s,
            len(due),
        )
        clock, engine = self.choose(waiting)
        self._take(due)
        if engine is None:
            self._skipped += len(due)
            return Action(clock)
        engine = next(e for e in (engine, INT8, FP16, SPARSE, LITE) if e not in self._vetoed)
        return Action(clock, engine, tuple([arrival.index for arrival in due]))

    def _take(self, due: list[Arrival]) -> None:
        gone = {arrival.index for arrival in due}
        self._queue = [arrival for arrival in self._queue if arrival.index not in gone]

    def choose(self, waiting: Waiting) -> tuple[int, int | None]:
        raise NotImplementedError

    def done(self, outcome: Outcome) -> None: ...

    def dropped(self) -> tuple[int, int]:
        counts = self._late, self._skipped
        self._late = self._skipped = 0
        return counts


class Static(Baseline):
    """One engine at the highest clock, whatever comes."""

    def __init__(self, engine: int) -> None:
        self.engine = engine

    def choose(self, waiting: Waiting) -> tuple[int, int | None]:
        engine = self.engine if self.nominal.available[self.engine] else INT8
        return self.top, engine


class Fixed(Baseline):
    """One engine at one clock on every n-th round or so: a `share` of them, evenly spread."""

    def __init__(self, engine: int, clock: int, share: float) -> None:
        self.engine, self.clock, self.share, self.due = engine, clock, share, 0.0

    def choose(self, waiting: Waiting) -> tuple[int, int | None]:
        self.due += self.share
        if self.due < 1.0 - 1e-9:
            return self.clock, None
        self.due -= 1.0
        return self.clock, self.engine


class Contrast(Baseline):
    """FP16 where the frame has much contrast, sparse INT8 elsewhere, at the highest clock."""

    def choose(self, waiting: Waiting) -> tuple[int, int | None]:
        return self.top, FP16 if waiting.contrast > CONTRAST_SPLIT else SPARSE


class RaceToIdle(Baseline):
    """Always FP16 at the highest clock; frames are given up to hold the mean power, the temperature, the charge."""

    def start(self, nominal: NominalProfile) -> None:
        super().start(nominal)
        self.recent_w: deque[float] = deque(maxlen=max(1, int(nominal.window_s * nominal.sensor_hz)))
        self.junction_c, self.hot = 50.0, False

    def sense(self, reading: Reading) -> None:
        super().sense(reading)
        if reading.power_w is not None:
            self.recent_w.append(reading.power_w)
            if reading.temperature_c is not None:
                self.junction_c = reading.temperature_c

    def choose(self, waiting: Waiting) -> tuple[int, int | None]:
        self.hot = self.junction_c > self.nominal.limit_c - (4 if self.hot else 2)
        over = bool(self.recent_w) and sum(self.recent_w) / len(self.recent_w) > waiting.cap_w * 0.985
        short = self.charge is not None and self.charge < 0.95 * (1 - waiting.at_s / self.nominal.duration_s)
        return self.top, None if self.hot or over or short else FP16


class Hysteresis(Baseline):
    """A thermostat: down a fixed ladder when power or temperature is high, up again when both are low."""

    def start(self, nominal: NominalProfile) -> None:
        super().start(nominal)
        top = self.top
        self.ladder = [
            (FP16, top), (FP16, top - 1), (INT8, top - 1), (SPARSE, max(0, top - 2)), (SPARSE, 0), (LITE, 0),
        ]  # fmt: skip
        self.rung, self.moved_s = 0, -99.0
        self.recent_w: deque[tuple[float, float]] = deque()
        self.junction_c, self.cap_w = 50.0, 99.0

    def sense(self, reading: Reading) -> None:
        super().sense(reading)
        now = reading.at_s
        if reading.power_w is not None:
            self.recent_w.append((now, reading.power_w))
            while self.recent_w and self.recent_w[0][0] < now - self.nominal.window_s:
                self.recent_w.popleft()
            if reading.temperature_c is not None:
                self.junction_c = reading.temperature_c
        if now - self.moved_s < 5 or not self.recent_w:
            return
        last = [power for _, power in list(self.recent_w)[-10:]]
        power_w = sum(last) / len(last)
        hot = power_w > self.cap_w * 0.98 or self.junction_c > self.nominal.limit_c - 4
        cold = power_w < self.cap_w * 0.85 and self.junction_c < self.nominal.limit_c - 10
        if self.charge is not None:
            short = self.charge < 0.95 * (1 - now / self.nominal.duration_s)
            hot, cold = hot or short, cold and not short
        if hot and self.rung < len(self.ladder) - 1:
            self.rung, self.moved_s = self.rung + 1, now
        elif cold and not hot and self.rung > 0:
            self.rung, self.moved_s = self.rung - 1, now

    def choose(self, waiting: Waiting) -> tuple[int, int | None]:
        self.cap_w = waiting.cap_w
        if self.charge is not None and self.charge < 0.02:
            return 0, None
        engine, clock = self.ladder[self.rung]
        return clock, engine


class Alert(Baseline):
    """One slow-down factor, normally distributed, by an adaptive Kalman filter; an idle-power ratio by a second one;
    the most accurate (engine, clock) whose expected energy meets the goal. It knows no heat, no tail and no window."""

    def start(self, nominal: NominalProfile) -> None:
        super().start(nominal)
        self.slow, self.variance, self.gain, self.process = 1.0, 0.1, 0.5, 0.1
        self.idle_ratio, self.idle_variance = 0.3, 0.01
        self.clock_s, self.busy_s, self.sensed_s, self.busy_share = -99.0, 0.0, 0.0, 0.0
        self.clock = self.top
        self.profile_w = nominal.idle_w[None, :] + nominal.active_w
        self.accuracy = [accuracy(engine, TYPICAL_DIFFICULTY) for engine in range(len(ENGINES))]
        self.batch_factor = nominal.cameras**nominal.table.batch_power

    def sense(self, reading: Reading) -> None:
        super().sense(reading)
        elapsed_s = reading.at_s - self.sensed_s
        if elapsed_s > 0:
            busy = min(1.0, self.busy_s / elapsed_s)
            self.busy_share += min(1.0, elapsed_s / 2.0) * (busy - self.busy_share)
        self.busy_s, self.sensed_s = 0.0, reading.at_s
        if reading.power_w is not None and self.busy_share < 0.95:
            profiled_w = float(self.profile_w[INT8, self.clock])
            idle_w = (reading.power_w - self.busy_share * profiled_w) / max(0.05, 1 - self.busy_share)
            gain = self.idle_variance / (self.idle_variance + 1e-3)
            self.idle_ratio += gain * (min(1.5, max(0.05, idle_w / profiled_w)) - self.idle_ratio)
            self.idle_variance = (1 - gain) * self.idle_variance + 1e-4

    def done(self, outcome: Outcome) -> None:
        self.busy_s += outcome.end_s - outcome.begin_s
        innovation = outcome.latency_s / float(self.nominal.latency_s[outcome.engine, outcome.clock]) - self.slow
        self.process = max(0.1, 0.3 * self.process + 0.7 * (self.gain * innovation) ** 2)
        predicted = (1 - self.gain) * self.variance + self.process
        self.gain = predicted / (predicted + 0.001)
        self.slow += self.gain * innovation
        self.variance = predicted

    def choose(self, waiting: Waiting) -> tuple[int, int | None]:
        nominal = self.nominal
        goal_w = waiting.cap_w
        if self.charge is not None and nominal.capacity_wh is not None:
            left_j = self.charge * nominal.capacity_wh * 3600
            goal_w = min(goal_w, left_j / max(5.0, nominal.duration_s - waiting.at_s))
        goal_j = goal_w * waiting.period_s
        slack_s = min(nominal.deadline_s, waiting.period_s) - 0.5 * waiting.age_s
        deviation = math.sqrt(max(1e-6, self.variance))
        free = waiting.may_switch_clock and waiting.at_s - self.clock_s > 5.0
        best: tuple[tuple[bool, float, float], int, int] | None = None
        for clock in range(nominal.clocks) if free else (waiting.clock,):
            for engine in (e for e in range(len(ENGINES)) if nominal.available[e]):
                nominal_s = float(nominal.latency_s[engine, clock]) * self.batch_factor
                on_time = _normal((slack_s / nominal_s - self.slow) / deviation)
                active_w, busy_s = float(self.profile_w[engine, clock]), min(self.slow * nominal_s, waiting.period_s)
                energy_j = active_w * (busy_s + self.idle_ratio * max(0.0, waiting.period_s - busy_s))
                fits = energy_j <= goal_j
                key = (fits, self.accuracy[engine] * on_time if fits else -energy_j, -energy_j)
                if best is None or key > best[0]:
                    best = (key, engine, clock)
        assert best is not None
        _, engine, clock = best
        if clock != waiting.clock and free:
            self.clock_s = waiting.at_s
        self.clock = clock if free else waiting.clock
        return self.clock, engine


def _normal(x: float) -> float:
    return 0.5 * (1.0 + math.erf(x / math.sqrt(2.0)))
