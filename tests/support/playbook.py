"""Governor tests that read as scripts: at a time, an observation, and what is then decided."""

from __future__ import annotations

from collections.abc import Sequence

from edged.clock import NS_PER_S
from edged.governor import governor
from edged.governor.messages import BatchDone, Budget, Decision, Observation, Variant, Workload

FP16 = Variant("fp16", 0.90, (30.0,))
MIXED = Variant("mixed", 0.85, (18.0,))
INT8 = Variant("int8-sparse", 0.80, (6.0,))
BUDGET = Budget(deadline_ms=50.0, deadline_quantile=0.99, min_accuracy=0.0)


class Playbook:
    """`at(t, observation)` moves the time and tells the governor; `expect` says what must be in force."""

    def __init__(self, variants: Sequence[Variant] = (FP16, MIXED, INT8), budget: Budget = BUDGET) -> None:
        self.t_s = 0.0
        self.state, self.decision = governor.start(variants, budget, 0)
        self.changes: list[tuple[float, str, str]] = [(0.0, self.decision.variant, self.decision.bound)]
        self.warm = {v.name: v.latency_ms for v in variants}

    def tell(self, observation: Observation) -> Decision:
        self.state, decision = governor.step(self.state, observation, int(self.t_s * NS_PER_S))
        if decision is not self.decision:
            self.changes.append((round(self.t_s, 3), decision.variant, decision.bound))
        self.decision = decision
        return decision

    def at(self, t_s: float, observation: Observation) -> Playbook:
        assert t_s >= self.t_s, "a script goes forward"
        self.t_s = t_s
        self.tell(observation)
        return self

    def run(
        self, seconds: float, slow: float = 1.0, cameras: int = 1, fps: float = 20.0, lead_ms: float = 4.0
    ) -> Playbook:
        """Frames for a while, each as long as the profile says times `slow`, at most as many as the engine can do."""
        end_s, told_s = self.t_s + seconds, self.t_s
        self.tell(Workload(cameras, fps, 0))
        while self.t_s < end_s:
            service_ms = slow * self.warm[self.decision.variant][0]
            self.t_s += max(1 / fps, service_ms / 1000)
            self.tell(BatchDone(self.decision.variant, 1, service_ms, lead_ms, 0))
            if self.t_s - told_s >= 1:
                told_s = self.t_s
                self.tell(Workload(cameras, fps, 0))
        return self

    def expect(self, variant: str, bound: str) -> Playbook:
        assert (self.decision.variant, self.decision.bound) == (variant, bound), (self.t_s, self.decision, self.changes)
        return self

    @property
    def switches(self) -> list[tuple[float, str]]:
        """When the variant changed, and to what."""
        pairs = zip(self.changes, self.changes[1:], strict=False)
        return [(t, variant) for (_, before, _), (t, variant, _) in pairs if variant != before]
