"""The engine loop's side of the governor: observations in, decisions out to the bus. On the engine loop.

The governor itself is pure; what it decides is carried out, published and remembered here.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from edged.bus import schema
from edged.bus.publisher import Publisher
from edged.clock import NS_PER_S
from edged.config import Limits, PowerConfig
from edged.engines.pool import Pool, VariantError
from edged.errors import EdgedError
from edged.frames.frame import DropCause
from edged.governor import explain
from edged.governor.governor import Governor, OnCall
from edged.governor.messages import (
    BatteryBudget,
    Budget,
    BudgetChanged,
    Decision,
    Observation,
    Pinned,
    Skipped,
    Tick,
    VariantLost,
)
from edged.loop.decision_message import decision_message
from edged.loop.device_info import DeviceInfo
from edged.loop.gpu_clock import GpuClock
from edged.loop.messages import RelaxedLimits, log_decision, log_event

REMEMBERED: Final = 1000
REMEMBERED_BYTES: Final = 256 * 1024
RETIRE_AFTER: Final = 3
"""Failed batches in a row: one can be a bad picture, three are a bad engine."""
GIVE_UP_AFTER: Final = 100
TICK_EVERY_NS: Final = NS_PER_S // 2

_TIME: Final[frozenset[DropCause]] = frozenset({"late", "overload", "torn"})
"""Drops as late, as the governor counts them."""
_SAVED: Final[frozenset[DropCause]] = frozenset({"budget", "superseded"})
"""Drops of frames that cost nothing and were not late."""

OnBatch = Callable[[str, int, int], None]
"""(variant, begin, end): a batch was on the engine between these two times."""


@dataclass(frozen=True)
class Hooks:
    """Called with every call of the governor and its answer, and with every batch."""

    on_call: OnCall | None = None
    on_batch: OnBatch | None = None


class DecisionHistory:
    """The last decisions, encoded: as objects they would take six times the memory. They are in one ring buffer that is
    resident from the start: where decisions are rare, memory would grow with them for hours. On the engine loop."""

    def __init__(self) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._buffer = bytearray(b"\xff") * REMEMBERED_BYTES  # unlike bytearray(n) it writes, and so takes, the memory
        self._sizes: deque[int] = deque()
        self._used = self._end = 0

    def add(self, message: schema.Decision) -> None:
        encoded = self._encoder.encode(message)
        if len(encoded) > REMEMBERED_BYTES:
            return
        while len(self._sizes) == REMEMBERED or self._used + len(encoded) > REMEMBERED_BYTES:
            self._used -= self._sizes.popleft()
        fitting = REMEMBERED_BYTES - self._end
        self._buffer[self._end : self._end + len(encoded)] = encoded[:fitting]
        self._buffer[: len(encoded[fitting:])] = encoded[fitting:]
        self._sizes.append(len(encoded))
        self._used += len(encoded)
        self._end = (self._end + len(encoded)) % REMEMBERED_BYTES

    def last(self, n: int) -> list[bytes]:
        """Oldest first."""
        found, end = [], self._end
        for size in itertools.islice(reversed(self._sizes), n):
            begin = (end - size) % REMEMBERED_BYTES
            wrapped = b"" if begin + size <= REMEMBERED_BYTES else bytes(self._buffer[:end])
            found.append(bytes(self._buffer[begin : begin + size]) + wrapped)
            end = begin
        return found[::-1]


class GovernorClient:
    """Holds the governor and the last decisions."""

    def __init__(
        self,
        pool: Pool,
        device_info: DeviceInfo,
        limits: Limits,
        publisher: Publisher,
        now_ns: int,
        hooks: Hooks = Hooks(),
        gpu_clock: GpuClock | None = None,
        battery: BatteryBudget | None = None,
    ) -> None:
        """`gpu_clock` has the clocks of `device_info`; without it the device's clock is fixed. `battery`: how long one
        must last, None without such a limit."""
        self._pool = pool
        self._publisher = publisher
        self._on_batch = hooks.on_batch
        self.gpu_clock = gpu_clock or GpuClock(device_info.clocks_mhz)
        self._battery = battery
        self.governor = Governor(
            device_info.variants, budget_of(limits, battery), now_ns, device_info.device, hooks.on_call
        )
        self._relaxed = RelaxedLimits()
        self._failures: dict[str, int] = {}
        self._drops: Counter[DropCause] = Counter()
        self._energy_mj: dict[tuple[str, int], float | None] = {}
        self.history = DecisionHistory()
        """The messages published, as they were encoded."""
        self._message: schema.Decision | None = None
        self.due_ns = now_ns
        self._adopt(self.governor.decision, now_ns)

    @property
    def decision(self) -> Decision:
        """What ran lately, and why."""
        return self._decision

    @property
    def message(self) -> schema.Decision:
        """The decision in force, as published."""
        assert self._message is not None
        return self._message

    # ---- to the governor -----------------------------------------------------------------------------------------

    def observe(self, observation: Observation, now_ns: int) -> None:
        decision = self.governor.observe(observation, now_ns)
        if decision is not self._decision:
            self._adopt(decision, now_ns)

    def tick(self, now_ns: int) -> None:
        """Every half second, best while nothing waits: it plans, which takes some milliseconds."""
        self.due_ns = now_ns + TICK_EVERY_NS
        self._energy_mj.clear()
        ranged, event = self.gpu_clock.news()
        if event is not None:
            log_event(self._publisher.publish(event))
        if ranged is not None:
            self.observe(ranged, now_ns)
        self.observe(Tick(), now_ns)
        self.gpu_clock.ask(self.governor.state.plan.clock, now_ns)
        for event in self._relaxed.events(self.message, now_ns):
            log_event(self._publisher.publish(event))

    def set_limits(self, limits: Limits, now_ns: int) -> None:
        """UsageError, and nothing changed, if no variant could hold them."""
        self.observe(BudgetChanged(budget_of(limits, self._battery)), now_ns)

    def check(self, limits: Limits) -> None:
        """UsageError if no variant could hold these limits. Nothing changes."""
        self.governor.check(budget_of(limits, self._battery))

    def would_run(self, variant: str) -> tuple[str | None, bool]:
        """Of a variant, loaded or not: why it may not run, or None; and whether it could run on all frames."""
        state = self.governor.state
        i = state.tables.index(variant)
        if i is None or state.lost[i] is not None:
            return "it does not work here", False
        floor = explain.barred_by_floor(state.variants[i].accuracy, state.budget)
        return state.vetoed[i] or floor, explain.misfit(state, i) is None

    def pin(self, variant: str | None, now_ns: int) -> None:
        """UsageError for a variant that is not there."""
        self.observe(Pinned(variant), now_ns)

    def dropped(self, cause: DropCause) -> None:
        """A frame was dropped; reported to the governor, by kind, with `report_drops`."""
        self._drops[cause] += 1

    def report_drops(self, now_ns: int) -> None:
        if not self._drops:
            return
        for causes, late in ((_TIME, True), (_SAVED, False)):
            if frames := sum(n for cause, n in self._drops.items() if cause in causes):
                self.observe(Skipped(frames, late), now_ns)
        self._drops.clear()

    def ran(self, variant: str, begin_ns: int, end_ns: int) -> None:
        """The engine ran a batch, of whatever use it was."""
        if self._on_batch is not None:
            self._on_batch(variant, begin_ns, end_ns)

    def failed(self, error: VariantError, now_ns: int) -> None:
        """A batch failed. A variant that keeps failing is not run again while there is another; the last one is retried
        until it is clear that only a restart can help: then EdgedError."""
        failures = self._failures[error.variant] = self._failures.get(error.variant, 0) + 1
        if failures == 1:
            self._event("engine_failed", error)
        if failures < RETIRE_AFTER:
            return
        if len(self._pool.resident) > 1:
            self._pool.retire(error.variant, error.why)
            self._event("engine_refused", error)
            self.observe(VariantLost(error.variant, error.why), now_ns)
        elif failures >= GIVE_UP_AFTER:
            raise EdgedError(f"the last variant failed {failures} times in a row: {error.why}", "restart edged")

    def succeeded(self, variant: str) -> None:
        """All frames of a batch have results."""
        if self._failures:
            self._failures.pop(variant, None)

    # ---- from the governor ---------------------------------------------------------------------------------------

    def predict_ms(self, variant: str) -> tuple[float, ...]:
        """Service time of a batch of 1, 2, ..."""
        return self.governor.predict_ms(variant)

    def energy_mj(self, variant: str, batch: int) -> float | None:
        """Estimated for one frame of such a batch, above idle; None while nothing is known. As of the last tick: it is
        read with every batch and changes slowly."""
        if (variant, batch) not in self._energy_mj:
            joules = self.governor.energy_j(variant, batch)
            self._energy_mj[variant, batch] = None if joules is None else round(1000 * joules, 3)
        return self._energy_mj[variant, batch]

    def _event(self, kind: str, error: VariantError) -> None:
        log_event(self._publisher.publish(schema.Event(kind=kind, text=error.message, variant=error.variant)))

    def _adopt(self, decision: Decision, now_ns: int) -> None:
        if decision.variant in self._pool.resident:  # what ran most lately may have been let go since
            self._pool.select(decision.variant)
        self._decision = decision
        state = self.governor.state
        message = decision_message(decision, state, state.seconds(now_ns), self.gpu_clock.clocks_mhz)
        log_decision(message, self._message)
        self._message = self._publisher.publish(message)
        self.history.add(self._message)


def battery_budget(config: PowerConfig) -> BatteryBudget | None:
    if config.battery_last_h is None:
        return None
    return BatteryBudget(config.battery_last_h * 3600, tuple(config.battery_harvest_w))


def budget_of(limits: Limits, battery: BatteryBudget | None = None) -> Budget:
    return Budget(
        deadline_ms=limits.deadline_ms,
        deadline_quantile=limits.deadline_quantile,
        min_accuracy=limits.min_accuracy,
        power_w=limits.power_w,
        power_window_s=limits.power_window_s,
        energy_wh=limits.energy_wh,
        energy_horizon_h=limits.energy_horizon_h,
        temperature_c=limits.temperature_c,
        min_fps=limits.min_fps,
        battery=battery,
    )
