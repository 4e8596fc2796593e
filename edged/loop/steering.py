"""The governor's shell: observations in, the chosen variant out to the pool and the bus. On the engine loop's thread.

The governor itself is pure; what it decides is carried out, published and remembered here.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from edged.bus import schema
from edged.bus.publisher import Publisher
from edged.config import Limits
from edged.engines.pool import Pool, VariantError
from edged.errors import EdgedError
from edged.governor import governor
from edged.governor.decision import Budget, BudgetChanged, Decision, Observation, Pinned, Variant, VariantLost
from edged.loop import chronicle

REMEMBERED: Final = 1000
RETIRE_AFTER: Final = 3
"""Failed batches in a row: one can be a bad picture, three are a bad engine."""
GIVE_UP_AFTER: Final = 100


class Steering:
    """Holds the governor's state and the last decisions."""

    def __init__(self, pool: Pool, limits: Limits, publisher: Publisher, now_ns: int) -> None:
        self._pool = pool
        self._publisher = publisher
        self._state, decision = governor.start(usable_variants(pool), budget_of(limits), now_ns)
        self._failures: dict[str, int] = {}
        self._history: deque[schema.Decision] = deque(maxlen=REMEMBERED)
        self._adopt(decision)

    @property
    def decision(self) -> Decision:
        return self._decision

    @property
    def message(self) -> schema.Decision:
        """The decision in force, as published."""
        return self._history[-1]

    @property
    def predict_ms(self) -> tuple[float, ...]:
        """Time of a batch of 1, 2, ... from start to publish on the variant in force."""
        return self._predict_ms

    def observe(self, observation: Observation, now_ns: int) -> None:
        self._state, decision = governor.step(self._state, observation, now_ns)
        if decision is not self._decision:
            self._adopt(decision)
        else:
            self._predict_ms = governor.predict_ms(self._state, decision.variant)

    def set_limits(self, limits: Limits, now_ns: int) -> None:
        """UsageError, and nothing changed, if no variant could hold them."""
        self.observe(BudgetChanged(budget_of(limits)), now_ns)

    def pin(self, variant: str | None, now_ns: int) -> None:
        """UsageError for a variant that is not there."""
        self.observe(Pinned(variant), now_ns)

    def failed(self, error: VariantError, now_ns: int) -> None:
        """A batch failed. A variant that keeps failing is not run again while there is another; the last one is tried
        on and on, until it is plain that only a restart can help: then EdgedError."""
        failures = self._failures[error.variant] = self._failures.get(error.variant, 0) + 1
        if failures == 1:
            self._event("engine_failed", error)
        if failures < RETIRE_AFTER:
            return
        if sum(variant.refused is None for variant in self._pool.variants) > 1:
            self._pool.retire(error.variant, error.why)
            self._event("engine_refused", error)
            self.observe(VariantLost(error.variant, error.why), now_ns)
        elif failures >= GIVE_UP_AFTER:
            raise EdgedError(f"the last variant failed {failures} times in a row: {error.why}", "restart edged")

    def succeeded(self, variant: str) -> None:
        """A batch came back whole."""
        if self._failures:
            self._failures.pop(variant, None)

    def why(self, n: int) -> list[schema.Decision]:
        """The last `n` decisions, newest last."""
        return list(self._history)[-n:]

    def _event(self, kind: str, error: VariantError) -> None:
        chronicle.happened(self._publisher.publish(schema.Event(kind=kind, text=error.message, variant=error.variant)))

    def _adopt(self, decision: Decision) -> None:
        self._pool.select(decision.variant)
        self._decision = decision
        self._predict_ms = governor.predict_ms(self._state, decision.variant)
        message = schema.Decision(
            variant=decision.variant,
            max_batch=decision.max_batch,
            bound=decision.bound,
            reason=decision.reason,
            alternatives=[
                schema.Alternative(a.variant, a.accuracy, a.predicted_ms, a.fits, a.verdict)
                for a in decision.alternatives
            ],
            pinned=decision.pinned,
        )
        chronicle.decided(message, self._history[-1] if self._history else None)
        self._history.append(self._publisher.publish(message))


def usable_variants(pool: Pool) -> tuple[Variant, ...]:
    return tuple(Variant(v.name, v.accuracy, v.latency_ms) for v in pool.variants if v.refused is None)


def budget_of(limits: Limits) -> Budget:
    return Budget(
        deadline_ms=limits.deadline_ms,
        deadline_quantile=limits.deadline_quantile,
        min_accuracy=limits.min_accuracy,
        power_w=limits.power_w,
        power_window_s=limits.power_window_s,
        energy_wh=limits.energy_wh,
        energy_horizon_h=limits.energy_horizon_h,
        temperature_c=limits.temperature_c,
    )
