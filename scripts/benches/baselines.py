"""Policies to compare the governor with: a fixed engine, by contrast, a thermostat, race to idle, and ALERT (USENIX ATC
'20) after its paper."""

from __future__ import annotations

import math
from collections import deque

from edged.simulate.arena import Action, NominalProfile, Outcome, Waiting
from edged.simulate.device import Reading
from edged.simulate.scenario import accuracy
from edged.simulate.tables import ENGINES

FP16, INT8, SPARSE, LITE = range(4)
TYPICAL_DIFFICULTY = 0.4
CONTRAST_SPLIT = 0.5


class Baseline:
    """What most of them share: nothing is learnt, nothing is run again."""

    def start(self, brief: NominalProfile) -> None:
        self.brief = brief
        self.top = brief.clocks - 1
        self.charge: float | None = None
        self.sun_w = 0.0

    def sense(self, reading: Reading) -> None:
        self.charge, self.sun_w = reading.charge, reading.sun_w

    def decide(self, waiting: Waiting) -> Action:
        raise NotImplementedError

    def done(self, outcome: Outcome) -> None: ...

    def escalate(self, waiting: Waiting, outcome: Outcome) -> int | None:
        return None

    def dropped(self, waiting: Waiting) -> None: ...

    def all_on(self, engine: int, clock: int, waiting: Waiting) -> Action:
        return Action(clock, engine, waiting.frames, waiting.frames > 1)


class Static(Baseline):
    """One engine at the highest clock, whatever comes."""

    def __init__(self, engine: int) -> None:
        self.engine = engine

    def decide(self, waiting: Waiting) -> Action:
        engine = self.engine if self.brief.available[self.engine] else INT8
        return self.all_on(engine, self.top, waiting)


class Contrast(Baseline):
    """FP16 where the frame has much contrast, sparse INT8 elsewhere, at the highest clock."""

    def decide(self, waiting: Waiting) -> Action:
        return self.all_on(FP16 if waiting.contrast > CONTRAST_SPLIT else SPARSE, self.top, waiting)


class RaceToIdle(Baseline):
    """Always FP16 at the highest clock; frames are given up to hold the mean power, the temperature, the charge."""

    def start(self, brief: NominalProfile) -> None:
        super().start(brief)
        self.recent_w: deque[float] = deque(maxlen=max(1, int(brief.window_s * brief.sensor_hz)))
        self.junction_c, self.hot = 50.0, False

    def sense(self, reading: Reading) -> None:
        super().sense(reading)
        if reading.power_w is not None:
            self.recent_w.append(reading.power_w)
            if reading.temperature_c is not None:
                self.junction_c = reading.temperature_c

    def decide(self, waiting: Waiting) -> Action:
        self.hot = self.junction_c > self.brief.limit_c - (4 if self.hot else 2)
        over = bool(self.recent_w) and sum(self.recent_w) / len(self.recent_w) > waiting.cap_w * 0.985
        short = self.charge is not None and self.charge < 0.95 * (1 - waiting.at_s / self.brief.duration_s)
        return Action(self.top) if self.hot or over or short else self.all_on(FP16, self.top, waiting)


class Hysteresis(Baseline):
    """A thermostat: down a fixed ladder when power or temperature is high, up again when both are low."""

    def start(self, brief: NominalProfile) -> None:
        super().start(brief)
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
            while self.recent_w and self.recent_w[0][0] < now - self.brief.window_s:
                self.recent_w.popleft()
            if reading.temperature_c is not None:
                self.junction_c = reading.temperature_c
        if now - self.moved_s < 5 or not self.recent_w:
            return
        last = [power for _, power in list(self.recent_w)[-10:]]
        power_w = sum(last) / len(last)
        hot = power_w > self.cap_w * 0.98 or self.junction_c > self.brief.limit_c - 4
        cold = power_w < self.cap_w * 0.85 and self.junction_c < self.brief.limit_c - 10
        if self.charge is not None:
            short = self.charge < 0.95 * (1 - now / self.brief.duration_s)
            hot, cold = hot or short, cold and not short
        if hot and self.rung < len(self.ladder) - 1:
            self.rung, self.moved_s = self.rung + 1, now
        elif cold and not hot and self.rung > 0:
            self.rung, self.moved_s = self.rung - 1, now

    def decide(self, waiting: Waiting) -> Action:
        self.cap_w = waiting.cap_w
        if self.charge is not None and self.charge < 0.02:
            return Action(0)
        engine, clock = self.ladder[self.rung]
        return self.all_on(engine, clock, waiting)


class Alert(Baseline):
    """One slow-down factor, normally distributed, by an adaptive Kalman filter; an idle-power ratio by a second one;
    the most accurate (engine, clock) whose expected energy meets the goal. It knows no heat, no tail and no window."""

    def start(self, brief: NominalProfile) -> None:
        super().start(brief)
        self.slow, self.variance, self.gain, self.process = 1.0, 0.1, 0.5, 0.1
        self.idle_ratio, self.idle_variance = 0.3, 0.01
        self.clock_s, self.busy_s, self.sensed_s, self.busy_share = -99.0, 0.0, 0.0, 0.0
        self.clock = self.top
        self.profile_w = brief.idle_w[None, :] + brief.active_w
        self.accuracy = [accuracy(engine, TYPICAL_DIFFICULTY) for engine in range(len(ENGINES))]
        self.batch_factor = brief.cameras**brief.table.batch_power

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
        innovation = outcome.latency_s / float(self.brief.latency_s[outcome.engine, outcome.clock]) - self.slow
        self.process = max(0.1, 0.3 * self.process + 0.7 * (self.gain * innovation) ** 2)
        predicted = (1 - self.gain) * self.variance + self.process
        self.gain = predicted / (predicted + 0.001)
        self.slow += self.gain * innovation
        self.variance = predicted

    def decide(self, waiting: Waiting) -> Action:
        brief = self.brief
        goal_w = waiting.cap_w
        if self.charge is not None and brief.capacity_wh is not None:
            left_j = self.charge * brief.capacity_wh * 3600
            goal_w = min(goal_w, left_j / max(5.0, brief.duration_s - waiting.at_s))
        goal_j = goal_w * waiting.period_s
        slack_s = min(brief.deadline_s, waiting.period_s) - 0.5 * waiting.age_s
        deviation = math.sqrt(max(1e-6, self.variance))
        free = waiting.may_switch_clock and waiting.at_s - self.clock_s > 5.0
        best: tuple[tuple[bool, float, float], int, int] | None = None
        for clock in range(brief.clocks) if free else (waiting.clock,):
            for engine in (e for e in range(len(ENGINES)) if brief.available[e]):
                nominal_s = float(brief.latency_s[engine, clock]) * self.batch_factor
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
        return self.all_on(engine, self.clock, waiting)


def _normal(x: float) -> float:
    return 0.5 * (1.0 + math.erf(x / math.sqrt(2.0)))
