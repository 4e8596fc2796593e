"""A governor with a device profile at a desk: told things at times, its frames running as the profile says."""

from __future__ import annotations

from typing import Any

from edged.clock import NS_PER_S
from edged.governor import governor
from edged.governor.messages import (
    BatchDone,
    Budget,
    Choice,
    Device,
    Observation,
    Sensed,
    Skipped,
    Tick,
    Variant,
    Waiting,
    Workload,
)

FP16 = Variant("fp16", 0.80, (20.0, 37.0), (2.0, 1.0), (5.0, 14.0), 0.3)
INT8 = Variant("int8", 0.73, (13.0, 24.0), (2.0, 1.0), (4.6, 13.0), 0.42)
SPARSE = Variant("int8-sparse", 0.70, (10.0, 18.0), (2.0, 1.0), (4.7, 13.0), 0.48)
VARIANTS = (FP16, INT8, SPARSE)
DEVICE = Device((4.6, 5.9), held=False, leakage_w_per_c=0.015)
BUDGET = Budget(60.0, 0.99, 0.0, 7.5, 10.0, temperature_c=85.0)


class Desk:
    """`run` lets frames come at 30 a second; they take what the profile says times `slow`."""

    def __init__(
        self, budget: Budget = BUDGET, device: Device | None = DEVICE, variants: tuple[Variant, ...] = VARIANTS
    ) -> None:
        self.t_s = 0.0
        self.variants = {v.name: v for v in variants}
        self.last: str | None = None
        self.state, self.decision = governor.start(variants, budget, 0, device)
        self.tell(Workload(1, 30.0, 0))

    def tell(self, observation: Observation) -> None:
        self.state, self.decision = governor.step(self.state, observation, int(self.t_s * NS_PER_S))

    def choose(self, age_ms: float = 2.0, **waiting: Any) -> Choice:
        asked = Waiting(1, age_ms, 33.0, 0.5, may_switch_clock=True, **waiting)
        return governor.choose(self.state, asked, int(self.t_s * NS_PER_S))

    def run(
        self, seconds: float, watts: float | None = 7.0, slow: float = 1.0, celsius: float = 50.0
    ) -> list[str | None]:
        """What was chosen, frame by frame."""
        chosen: list[str | None] = []
        for i in range(int(seconds * 30)):
            self.t_s += 1 / 30
            if i % 6 == 0:
                self.tell(Sensed(watts, celsius))
            if i % 15 == 0:
                self.tell(Tick())
            choice = self.choose(last=self.last)
            chosen.append(choice.variant)
            if choice.variant is None:
                self.tell(Skipped(1, False))
                continue
            variant = self.variants[choice.variant]
            clock = 1 if choice.clock is None else choice.clock
            ms = variant.latency_ms[0] * (variant.clock_factor[clock] if variant.clock_factor else 1.0) * slow
            self.tell(BatchDone(choice.variant, 1, ms, 2.0, int(ms > 58), (0.7,), 0.5, clock))
            self.last = choice.variant
        return chosen


def scenario(**changes: Any) -> dict[str, Any]:
    """A short one for the arena."""
    return {"name": "x", "dev": "nx", "T": 60, "fps": 30, "D": 50, "cap": 9.0, "diff": 0.5, **changes}
