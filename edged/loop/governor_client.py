"""The governor's shell: observations in, choices out to the engine, decisions out to the bus. On the engine loop.

The governor itself is pure; what it decides is carried out, published and remembered here. Everything that it is told
or asked goes through one `Helm`, where a recorder listens.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final

from edged.bus import schema
from edged.bus.publisher import Publisher
from edged.clock import NS_PER_S
from edged.config import Limits
from edged.engines.pool import Pool, VariantError
from edged.errors import EdgedError
from edged.frames.frame import DropCause, Frame
from edged.governor import governor
from edged.governor.helm import Helm, Tap
from edged.governor.messages import (
    BatchDone,
    Budget,
    BudgetChanged,
    Choice,
    Decision,
    Observation,
    Pinned,
    Skipped,
    Tick,
    VariantLost,
    Waiting,
    Workload,
)
from edged.loop import event_log
from edged.loop.device_info import DeviceInfo
from edged.loop.gpu_clock import GpuClock
from edged.loop.messages import decision_message
from edged.loop.relaxed_limits import RelaxedLimits

REMEMBERED: Final = 1000
RETIRE_AFTER: Final = 3
"""Failed batches in a row: one can be a bad picture, three are a bad engine."""
GIVE_UP_AFTER: Final = 100
COLD_AFTER_NS: Final = 3 * NS_PER_S
"""A variant that has not run for so long begins slowly: its caches hold something else."""
TICK_EVERY_NS: Final = NS_PER_S // 2

_WAITED: Final[frozenset[DropCause]] = frozenset({"late", "overload", "torn"})
"""Drops of frames that had waited too long, as the governor counts them."""
_PASSED: Final[frozenset[DropCause]] = frozenset({"budget", "superseded"})
"""Drops of frames that cost nothing and were not late."""

Ran = Callable[[str, int, int], None]
"""(variant, begin, end): a batch was on the engine between these two times."""


class GovernorClient:
    """Holds the governor and the last decisions."""

    def __init__(
        self,
        pool: Pool,
        known: DeviceInfo,
        limits: Limits,
        publisher: Publisher,
        now_ns: int,
        tap: Tap | None = None,
        ran: Ran | None = None,
        ceiling: GpuClock | None = None,
    ) -> None:
        """`tap` hears every call to the governor, `ran` of every batch; `ceiling` has the clocks of `known`; without it
        the device's clock is a given."""
        self._pool = pool
        self._publisher = publisher
        self._ran = ran
        self.ceiling = ceiling or GpuClock(known.clocks_mhz)
        self._helm = Helm(known.variants, budget_of(limits), now_ns, known.device, tap)
        self._yielding = RelaxedLimits()
        self._failures: dict[str, int] = {}
        self._dropped: Counter[DropCause] = Counter()
        self._last: str | None = None
        self._ran_ns: dict[str, int] = {}
        self._period_ms = 0.0
        self._energy_mj: dict[tuple[str, int], float | None] = {}
        self._history: deque[schema.Decision] = deque(maxlen=REMEMBERED)
        self.due_ns = now_ns
        self._adopt(self._helm.decision)

    @property
    def decision(self) -> Decision:
        return self._decision

    @property
    def message(self) -> schema.Decision:
        """The decision in force, as published."""
        return self._history[-1]

    @property
    def rationed(self) -> bool:
        """Whether a joule has a price now."""
        return self._helm.state.economy.rationed

    def why(self, n: int) -> list[schema.Decision]:
        """The last `n` decisions, newest last."""
        return list(self._history)[-n:]

    # ---- what it is told -----------------------------------------------------------------------------------------

    def observe(self, observation: Observation, now_ns: int) -> None:
        if isinstance(observation, Workload) and observation.frames_per_s > 0:
            self._period_ms = 1000 * observation.cameras / observation.frames_per_s
        decision = self._helm.observe(observation, now_ns)
        if decision is not self._decision:
            self._adopt(decision)

    def tick(self, now_ns: int) -> None:
        """Every half second, best while nothing waits: it plans afresh, which takes some milliseconds."""
        self.due_ns = now_ns + TICK_EVERY_NS
        self._energy_mj.clear()
        ranged, event = self.ceiling.news()
        if event is not None:
            event_log.happened(self._publisher.publish(event))
        if ranged is not None:
            self.observe(ranged, now_ns)
        self.observe(Tick(), now_ns)
        self.ceiling.ask(self._helm.state.economy.plan.clock, now_ns)
        if (event := self._yielding.event(self._decision, now_ns)) is not None:
            self._publisher.publish(event)

    def set_limits(self, limits: Limits, now_ns: int) -> None:
        """UsageError, and nothing changed, if no variant could hold them."""
        self.observe(BudgetChanged(budget_of(limits)), now_ns)

    def check(self, limits: Limits, now_ns: int) -> None:
        """UsageError if no variant could hold these limits. Nothing changes."""
        governor.step(self._helm.state, BudgetChanged(budget_of(limits)), now_ns)

    def pin(self, variant: str | None, now_ns: int) -> None:
        """UsageError for a variant that is not there."""
        self.observe(Pinned(variant), now_ns)

    def dropped(self, cause: DropCause) -> None:
        """A frame was given up; told to the governor, by kind, with `tell_dropped`."""
        self._dropped[cause] += 1

    def tell_dropped(self, now_ns: int) -> None:
        if not self._dropped:
            return
        for causes, late in ((_WAITED, True), (_PASSED, False)):
            if frames := sum(n for cause, n in self._dropped.items() if cause in causes):
                self.observe(Skipped(frames, late), now_ns)
        self._dropped.clear()

    def cold(self, variant: str, now_ns: int) -> bool:
        """Whether the variant has not run for a while."""
        return now_ns - self._ran_ns.get(variant, 0) > COLD_AFTER_NS

    def ran(self, variant: str, begin_ns: int, end_ns: int) -> None:
        """The engine ran a batch, of whatever use it was."""
        self._last = variant
        self._ran_ns[variant] = end_ns
        if self._ran is not None:
            self._ran(variant, begin_ns, end_ns)

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

    # ---- what it is asked ----------------------------------------------------------------------------------------

    def predict_ms(self, variant: str) -> tuple[float, ...]:
        """Time of a batch of 1, 2, ... from start to publish."""
        return self._helm.predict_ms(variant)

    def quickest_ms(self) -> tuple[float, ...]:
        """Of the variants that may run, the times of the one with the shortest; empty while nothing is known."""
        economy = self._helm.state.economy
        allowed = [name for name, able in zip(economy.tables.names, economy.allowed, strict=True) if able]
        return min((times for name in allowed if (times := self.predict_ms(name))), default=())

    def least_ms(self) -> float:
        """What a frame takes at the very least: with less time left it is late."""
        return self._helm.least_ms()

    def choose(self, frames: Sequence[Frame], weights: Sequence[float], start_ns: int, now_ns: int) -> Choice:
        """What these frames get, the first of them first. `start_ns`: when the engine could begin."""
        oldest_ns = min([frame.mono_capture_ns for frame in frames])
        waiting = Waiting(
            len(frames),
            (start_ns - oldest_ns) / 1e6,
            self._period_ms,
            weights=tuple(weights),
            cameras=tuple([frame.camera for frame in frames]),
            last=self._last,
            clock=self.ceiling.clock,  # the one in force; the one that is planned is asked for when nothing waits
        )
        return self._helm.choose(waiting, now_ns)

    def variant_for(self, camera: str) -> str:
        """What runs on a camera where no choice was made: the decision's variant, or what stands in for it there."""
        return governor.variant_for(self._helm.state, camera)

    def again(self, done: BatchDone, frame: int, age_ms: float, weight: float, now_ns: int) -> str | None:
        """The variant to run frame `frame` of a batch again on, once the governor was told of the batch; or None."""
        return self._helm.escalate(done, age_ms, self._period_ms, frame, weight, now_ns=now_ns)

    def energy_mj(self, variant: str, batch: int) -> float | None:
        """Estimated for one frame of such a batch, above what the device draws at rest; None while nothing is known. As
        of the last tick: it is asked for with every batch and changes slowly."""
        if (variant, batch) not in self._energy_mj:
            joules = governor.energy_j(self._helm.state, variant, batch)
            self._energy_mj[variant, batch] = None if joules is None else round(1000 * joules, 3)
        return self._energy_mj[variant, batch]

    # ---- what comes of it ----------------------------------------------------------------------------------------

    def _event(self, kind: str, error: VariantError) -> None:
        event_log.happened(self._publisher.publish(schema.Event(kind=kind, text=error.message, variant=error.variant)))

    def _adopt(self, decision: Decision) -> None:
        self._pool.select(decision.variant)
        self._decision = decision
        message = decision_message(decision, self.ceiling.clocks_mhz)
        event_log.decided(message, self._history[-1] if self._history else None)
        self._history.append(self._publisher.publish(message))


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
        of_all_frames=True,
    )
