"""A governor driven by a script: observations at times, its frames running as the profile says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edged.bus import schema
from edged.clock import NS_PER_S
from edged.governor.estimators.histogram import Histogram
from edged.governor.governor import Governor
from edged.governor.messages import (
    BatchDone,
    Budget,
    Choice,
    Decision,
    Device,
    Observation,
    Sensed,
    Skipped,
    Tick,
    Variant,
    Waiting,
    Workload,
)
from edged.governor.state import State
from edged.loop.decision_message import decision_message

FP16 = Variant("fp16", 0.80, (20.0, 37.0), (2.0, 1.0), (5.0, 14.0))
INT8 = Variant("int8", 0.73, (13.0, 24.0), (2.0, 1.0), (4.6, 13.0))
SPARSE = Variant("int8-sparse", 0.70, (10.0, 18.0), (2.0, 1.0), (4.7, 13.0))
VARIANTS = (FP16, INT8, SPARSE)
AT_ONE_CLOCK = tuple(replace(v, clock_factor=(1.0,), active_w=v.active_w[-1:]) for v in VARIANTS)
DEVICE = Device((4.6, 5.9), fixed_clock=False, leakage_w_per_c=0.015)
BUDGET = Budget(60.0, 0.99, 0.0, 7.5, 10.0, temperature_c=85.0)


def share_below(histogram: Histogram, value: float) -> float:
    """P(sample < value), as the governor interpolates it."""
    edges = histogram.low + histogram.step * np.arange(1, len(histogram.below) + 1)
    return float(np.interp(value, edges, histogram.below, left=0.0))


class GovernorScript:
    """`run` lets frames of one camera come at `fps`; they take what the profile says times `slow`. `changes`: the
    decisions by time, variant and bound."""

    def __init__(
        self, budget: Budget = BUDGET, device: Device | None = DEVICE, variants: Sequence[Variant] = VARIANTS
    ) -> None:
        self.t_s = 0.0
        self.variants = {v.name: v for v in variants}
        self.last: str | None = None
        self.governor = Governor(variants, budget, 0, device)
        self.changes: list[tuple[float, str, str]] = []
        self.tell(Workload(1, 30.0))

    @property
    def state(self) -> State:
        return self.governor.state

    @property
    def decision(self) -> Decision:
        return self.governor.decision

    @property
    def published(self) -> schema.Decision:
        """The decision in words, with the estimates of now."""
        return decision_message(self.decision, self.state, self.t_s, ())

    def tell(self, *observations: Observation) -> Decision:
        for observation in observations:
            before = self.governor.decision
            decision = self.governor.observe(observation, int(self.t_s * NS_PER_S))
            if decision is not before:
                self.changes.append((round(self.t_s, 3), decision.variant, decision.bound))
        return self.governor.decision

    def at(self, t_s: float, *observations: Observation) -> GovernorScript:
        assert t_s >= self.t_s, "a script goes forward"
        self.t_s = t_s
        self.tell(*observations)
        return self

    def expect(self, variant: str, bound: str) -> GovernorScript:
        assert (self.decision.variant, self.decision.bound) == (variant, bound), (self.decision, self.changes)
        return self

    def choose(self, age_ms: float = 2.0, frames: int = 1, **waiting: Any) -> Choice:
        return self.governor.choose(Waiting(frames, age_ms, **waiting), int(self.t_s * NS_PER_S))

    def run(
        self,
        seconds: float,
        watts: float | None = 7.0,
        slow: float = 1.0,
        celsius: float | None = 50.0,
        fps: float = 30.0,
        idle_w: float | None = None,
    ) -> list[str | None]:
        """What was chosen, frame by frame. The meter shows `watts`, or what frames and `idle_w` really draw."""
        chosen: list[str | None] = []
        every, joules = max(1, round(fps / 5)), 0.0
        for i in range(int(seconds * fps)):
            self.t_s += 1 / fps
            if i % every == 0:
                drawn_w = watts if idle_w is None else idle_w + joules * fps / every
                self.tell(Sensed(drawn_w, celsius, power_lag_s=0.0, power_mean_s=0.1))
                joules = 0.0
            if i % max(1, round(fps / 2)) == 0:
                self.tell(Tick())
            clock = self.state.clock if self.state.device.fixed_clock else self.state.plan.clock
            choice = self.choose(last=self.last, clock=clock)
            chosen.append(choice.variant)
            if choice.variant is None:
                self.tell(Skipped(1, choice.cause != "budget"))
                continue
            variant = self.variants[choice.variant]
            factor = variant.clock_factor[clock] if variant.clock_factor else 1.0
            ms = variant.latency_ms[0] * factor * slow
            joules += ms / 1000 * (variant.active_w[clock] if variant.active_w else 0.0)
            self.tell(BatchDone(choice.variant, 1, ms, 2.0, int(ms + 2.0 > self.state.budget.deadline_ms), clock))
            self.last = choice.variant
        return chosen


def scenario(**changes: Any) -> dict[str, Any]:
    """A short one for the arena."""
    return {"name": "x", "dev": "nx", "T": 60, "fps": 30, "D": 50, "cap": 9.0, "diff": 0.5, **changes}
