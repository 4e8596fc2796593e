"""All that the governor knows, as one object that changes in place, and how each measurement changes it. Pure.

`Governor` owns the only one; whoever wants to keep it takes a snapshot. Variants go by index, the most accurate first.
Times are seconds from the start. What comes in here has been checked by the Governor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from edged.governor.estimators import latency, power, thermal
from edged.governor.estimators.latency import plausible
from edged.governor.limits import battery, energy_quota, power_window
from edged.governor.limits.lateness import Feedback
from edged.governor.limits.throttle import UNTHROTTLED, Throttle
from edged.governor.messages import Budget, Decision, Device, Sensed, Unenforceable, Variant
from edged.governor.planner import value_iteration
from edged.governor.planner.options import Tables, tables
from edged.governor.planner.pricing import Allowed, LongRun, Plan
from edged.governor.profile import MAX_BATCH

WARMEST_GUESS_C: Final = 50.0
VARIANT_FACTOR_MOST: Final = 0.5
"""So far (as a logarithm) the energy of a variant follows its time where that differs from the profile."""
MAX_LAG_S: Final = 60.0
WAIT_EWMA: Final = 0.05
WAITING_EWMA: Final = 0.01
LIMIT_KEYS: Final[dict[Unenforceable, str]] = {"power": "power_w", "energy": "energy_wh", "heat": "temperature_c"}


@dataclass(slots=True)
class Activity:
    """What became of the frames of a while: by variant those that ran; dropped as late; to save energy."""

    ran: list[int]
    late: int = 0
    saved: int = 0

    @property
    def results(self) -> int:
        return sum(self.ran)

    @property
    def offered(self) -> int:
        return self.results + self.late + self.saved

    @property
    def frame_share(self) -> float:
        return round(self.results / self.offered, 3) if self.offered else 1.0

    def share(self, variant: int) -> float:
        """Of the results."""
        return round(self.ran[variant] / self.results, 3) if self.results else 0.0


@dataclass(slots=True)
class State:
    """`lost`, `vetoed`, `away`: why a variant may not run. `camera_vetoes`: (camera, variant, why). `allowed`: what may
    run; `candidates`: of those, the ones that no other dominates; `camera_candidates`: the same for each camera with
    vetoes of its own. `clock`: what the device runs at, as far as is known; `clock_s`: when it was last changed from
    here; `highest`: up to which it may be chosen. `smooth_w`: the allowances of window and heat, smoothed, since jitter
    of a budget costs accuracy. `round_s`: time in which every camera gives a frame, as planned with; `offered_s`: as
    offered now. `wait_ms`: mean age of a frame when its service begins; `waiting_frames`: how many wait together.
    `quiet_s`: from when to when no frame runs so that idle power can be measured. `unenforceable`: the limits that even
    no frames would hold; `exceeded_s`: since when one seems to join or to leave them. `activity`: of the last ticks,
    newest last.
    """

    variants: tuple[Variant, ...]
    tables: Tables
    budget: Budget
    begun_ns: int
    latency: latency.Latency
    power: power.Power
    heat_model: thermal.HeatModel
    values: value_iteration.Values
    plan: Plan
    round_s: float
    offered_s: float
    clock: int
    highest: int
    lost: list[str | None]
    vetoed: list[str | None]
    away: list[str | None]
    allowed: tuple[bool, ...]
    candidates: tuple[bool, ...]
    activity: list[Activity]
    decision: Decision
    cameras: int = 1
    heat: thermal.Heat = field(default_factory=thermal.start)
    quota: energy_quota.Quota | None = None
    caps: power_window.Caps | None = None
    store: battery.Store | None = None
    feedback: Feedback = field(default_factory=Feedback)
    camera_vetoes: list[tuple[str, int, str]] = field(default_factory=list)
    camera_candidates: dict[str, tuple[bool, ...]] = field(default_factory=dict)
    pinned: int | None = None
    long_run: LongRun | None = None
    throttle: Throttle = UNTHROTTLED
    planned_s: float = -math.inf
    clock_s: float = -math.inf
    decided_s: float = 0.0
    smooth_w: dict[str, float] = field(default_factory=dict)
    wait_ms: float = 0.0
    waiting_frames: float = 1.0
    quiet_s: tuple[float, float] | None = None
    exceeded_s: dict[str, float] = field(default_factory=dict)
    unenforceable: tuple[str, ...] = ()

    def seconds(self, now_ns: int) -> float:
        return (now_ns - self.begun_ns) / 1e9

    @property
    def device(self) -> Device:
        return self.tables.device

    @property
    def idle_clock(self) -> int:
        """The clock at which idling costs least: the lowest, or the one in force where it is fixed."""
        return self.clock if self.device.fixed_clock else 0

    @property
    def planned(self) -> bool:
        """There is a plan for the variants, budgets and cameras of now."""
        return math.isfinite(self.planned_s)

    @property
    def price(self) -> float:
        """Of a joule, in accuracy-weighted frames."""
        return self.plan.price * math.exp(self.feedback.correction)

    @property
    def late_price(self) -> float:
        return self.feedback.late_price(self.budget.deadline_quantile)

    def drop_penalty(self, joule_price: float) -> float:
        """Of a dropped frame, beyond its lost accuracy: it counts as late unless it is dropped to save energy."""
        return self.late_price if joule_price <= 0.0 else 0.0

    @property
    def frames_per_round(self) -> int:
        """Frames that the plan takes as one: as many as usually wait together; one where no batch pays."""
        most = min(self.cameras, self.tables.max_batch) if self.tables.batched else 1
        return min(most, max(1, round(self.waiting_frames)))

    @property
    def period_s(self) -> float:
        """From one such round to the next."""
        return self.round_s * self.frames_per_round / self.cameras

    @property
    def frames_per_s(self) -> float:
        """Offered by all cameras."""
        return self.cameras / self.offered_s

    @property
    def junction_c(self) -> float:
        return self.heat.junction_c if self.heat.junction_c is not None else WARMEST_GUESS_C

    @property
    def profiled(self) -> bool:
        """The watts were measured on this device before."""
        return not self.unmeasured and not self.device.assumed

    @property
    def unmeasured(self) -> bool:
        """Nothing is known of its watts, not even by a first reading."""
        return not any(self.device.idle_w) and len(self.device.clock_ratio) == len(self.device.idle_w)

    @property
    def knows_power(self) -> bool:
        return self.profiled or self.power.metered

    @property
    def knows_heat(self) -> bool:
        return self.heat.junction_c is not None

    def is_quiet(self, now_s: float) -> bool:
        """No frame runs now, so that idle power can be measured."""
        return self.quiet_s is not None and now_s < self.quiet_s[1]

    def works(self, variant: int) -> bool:
        """It can run now, whether it may or not."""
        return self.lost[variant] is None and self.away[variant] is None

    def service_s(self, variant: int, clock: int) -> float:
        """How long a single frame takes, as estimated now, noise apart."""
        return self.tables.nominal_s[variant][clock] * math.exp(self.latency.log_factor(variant, clock))

    def joules(self, variant: int, clock: int) -> float:
        """What a single frame costs above idle, as estimated now."""
        mean = self.latency.mean
        stretched = math.exp(max(0.0, mean[0]))
        own = math.exp(min(VARIANT_FACTOR_MOST, max(-VARIANT_FACTOR_MOST, mean[1 + variant])))
        unit = own * (power.STALL_ENERGY + (1 - power.STALL_ENERGY) * stretched)
        return self.tables.nominal_j[variant][clock] * unit * self.power.factor(variant, clock)

    # --- what is measured ---------------------------------------------------------------------------------------------

    def ran(self, variant: int, batch: int, service_s: float, wait_ms: float, late: int, now_s: float) -> None:
        """A batch of `batch` frames took `service_s` at the clock in force."""
        known, clock = self.tables, self.clock
        ratio = math.log(max(1e-5, service_s / known.batch_times(variant, batch) / known.nominal_s[variant][clock]))
        self.drawn(variant, batch, batch / self.cameras, now_s)
        self.feedback.count(batch, late)
        self.latency.learn(variant, clock, ratio, now_s)
        self.wait_ms += WAIT_EWMA * (wait_ms - self.wait_ms)
        self.activity[-1].ran[variant] += batch

    def seen_waiting(self, frames: int) -> None:
        self.waiting_frames += WAITING_EWMA * (min(frames, self.cameras) - self.waiting_frames)

    def drawn(self, variant: int, batch: int, share: float, now_s: float) -> None:
        """By a batch, for a `share` of a round's frames: for none where the accuracy guard ran them again."""
        clock = self.clock
        cost_j = self.joules(variant, clock) * self.tables.batch_times(variant, batch)
        self.power.ran(variant, clock, cost_j / self.power.factor(variant, clock), now_s)
        self._spent(cost_j, share)

    def skipped(self, frames: int, late: bool) -> None:
        if late:
            self.feedback.count(frames, frames)
            self.activity[-1].late += frames
        else:
            self._spent(0.0, frames / self.cameras)
            self.activity[-1].saved += frames

    def _spent(self, joules: float, share: float) -> None:
        plan = self.plan
        if plan.price <= 0.0 or plan.paced:
            self.feedback.correction *= 0.995
            return
        least_j = min([self.joules(i, plan.clock) for i, may in enumerate(self.candidates) if may])
        self.feedback.spent(joules, plan.target_j * self.cameras / self.frames_per_round, share, least_j)

    def sensed(self, sample: Sensed, power_w: float | None, temperature_c: float | None, now_s: float) -> None:
        """A sample whose power and temperature were checked."""
        elapsed_s = now_s - self.power.sensed_s
        if elapsed_s <= 0:
            return
        if power_w is not None and 0 <= sample.power_lag_s <= MAX_LAG_S and 0 < sample.power_mean_s <= MAX_LAG_S:
            self.power.lag_s, self.power.mean_s = sample.power_lag_s, sample.power_mean_s
        drawn_w = self.power.sensed(self.tables, self.clock, self.junction_c, power_w, now_s, sample.power_estimated)
        self.heat = thermal.sensed(self.heat, self.heat_model, drawn_w, temperature_c, now_s)
        if self.store is not None and sample.battery is not None:
            self.store.sensed(sample.battery, drawn_w, elapsed_s, now_s)
        if self.quota is not None and sample.energy is not None and power_w is not None:
            self.quota.metered(sample.energy, now_s, self.power.history.drawn_j)
        lately_w = self.power.history.lately_w
        throttled = sample.throttled and self.knows_power
        self.throttle = self.throttle.sensed(throttled, lately_w, min(self.plan.base_w, lately_w), now_s)

    # --- what changes -------------------------------------------------------------------------------------------------

    def adapt(self, variants: Sequence[Variant], budget: Budget, cameras: int, now_s: float) -> None:
        """To other variants, another budget or another number of cameras; what was learnt stays."""
        variants, before = tuple(variants), self.budget
        same = cameras == self.cameras and variants == self.variants
        if not same:
            self.tables = tables(variants, self.device, cameras)
        if variants != self.variants:
            self.long_run = None  # it was of other choices
        if budget.deadline_ms != before.deadline_ms or not same:
            self.values = value_iteration.start(self.tables, budget.deadline_ms / 1000)
        window_s = window_of(budget)
        self.power.history.resize(window_s)
        if budget.power_w is None:
            self.caps = None
        elif self.caps is None or len(self.caps.recent_w) != window_s:
            before_w = math.inf if self.caps is None else max(self.caps.recent_w)
            self.caps = power_window.start(budget.power_w, window_s, int(now_s), before_w)
        if budget.battery != before.battery:
            self.store = None if budget.battery is None else battery.Store(budget.battery, now_s)
        self.quota = energy_quota.start(self.quota, budget, now_s, self.power.history.drawn_j)
        if (budget.deadline_ms, budget.deadline_quantile) != (before.deadline_ms, before.deadline_quantile):
            self.feedback.reset_lateness()
        if budget != before:
            self.smooth_w = {}
            self._forget_unenforceable(budget)
        self.variants, self.budget, self.cameras, self.planned_s = variants, budget, cameras, -math.inf

    def first_latency(self, variant: int, latency_ms: tuple[float, ...], now_s: float) -> None:
        """Of a variant of which nothing was known, by batch size from 1, measured at the clock in force."""
        known, slower = list(self.variants), self.tables.stretch(variant, self.clock)
        known[variant] = replace(known[variant], latency_ms=plausible([ms / slower for ms in latency_ms], MAX_BATCH))
        self.adapt(known, self.budget, self.cameras, now_s)

    def moved(self, variant: int, away: str | None, latency_ms: tuple[float, ...], now_s: float) -> None:
        """It was let go for the reason `away`, which ends a pin, or is loaded (None)."""
        self.away[variant] = away
        self.pinned = None if away is not None and self.pinned == variant else self.pinned
        if latency_ms and not self.variants[variant].latency_ms:
            self.first_latency(variant, latency_ms, now_s)

    def _forget_unenforceable(self, budget: Budget) -> None:
        """Of the limits that could not be held, those that change in `budget` are judged again."""
        same = [name for name, key in LIMIT_KEYS.items() if getattr(self.budget, key) == getattr(budget, key)]
        self.unenforceable = tuple([name for name in self.unenforceable if name in same])
        self.exceeded_s = {name: since_s for name, since_s in self.exceeded_s.items() if name in same}

    def metered(self, device: Device, now_s: float, quiet: bool = False) -> None:
        """The first reading of a device without a profile: `device`, assumed, replaces the unknown one. `quiet`: no
        frame had any part in it; what was learnt before of watts is forgotten."""
        self.tables = tables(self.variants, device, self.cameras)
        self.heat_model = thermal.model(device)
        sensed_s = self.power.sensed_s
        self.power = power.start(self.tables, self.clock, window_of(self.budget), quiet)
        self.power.sensed_s, self.power.history.at_s = sensed_s, int(now_s)
        self.values = value_iteration.start(self.tables, self.budget.deadline_ms / 1000)
        self.plan = no_plan(self.tables, self.budget.deadline_ms / 1000, self.clock)
        self.long_run, self.feedback, self.planned_s = None, Feedback(), -math.inf
        self.quota = energy_quota.start(None, self.budget, now_s, 0.0)

    def set_clock_range(self, highest: int | None) -> None:
        known = self.tables
        if known.clocks == 1:
            return
        self.highest = known.clocks - 1 if highest is None else min(max(0, highest), known.clocks - 1)
        self.tables = replace(known, device=replace(known.device, fixed_clock=highest is None))
        self.clock, self.planned_s = min(self.clock, self.highest), -math.inf

    def permit(self, allowed: Sequence[bool]) -> None:
        """`allowed`: by variant. On a camera whose vetoes leave none of them, the most accurate one that works and is
        not vetoed runs instead."""
        self.allowed = tuple(allowed)
        self.candidates = self._undominated(self.allowed)
        self.camera_candidates = {}
        for camera in dict.fromkeys([camera for camera, _, _ in self.camera_vetoes]):
            barred = {i for name, i, _ in self.camera_vetoes if name == camera}
            here = tuple([may and i not in barred for i, may in enumerate(self.allowed)])
            if not any(here):
                working = [i for i in range(len(self.lost)) if self.works(i)] or [self.allowed.index(True)]
                unvetoed = [i for i in working if self.vetoed[i] is None and i not in barred]
                here = tuple([i == (unvetoed or working)[0] for i in range(len(self.allowed))])
            self.camera_candidates[camera] = self._undominated(here)

    def _undominated(self, allowed: tuple[bool, ...]) -> tuple[bool, ...]:
        """Without those that another allowed one dominates. Where watts are assumed and energy is limited, one that
        is slower and less accurate may still be the cheapest, until its energy is learnt."""
        better = self.tables.dominated_by
        guessed = self.tables.assumed if self.limits_energy else (False,) * len(allowed)

        def dominated(i: int) -> bool:
            others = [k for k in better[i] if allowed[k]]
            if guessed[i] and others:
                least_j = min([self.joules(k, self.clock) for k in others])
                return self.power.learnt(i, self.clock) and least_j <= self.joules(i, self.clock)
            return bool(others)

        return tuple([may and not dominated(i) for i, may in enumerate(allowed)])

    @property
    def limits_energy(self) -> bool:
        """A budget is set that joules count against."""
        budget = self.budget
        return any(x is not None for x in (budget.power_w, budget.energy_wh, budget.temperature_c, budget.battery))


def start(
    variants: tuple[Variant, ...], device: Device, budget: Budget, fps: float, begun_ns: int, decision: Decision
) -> State:
    known, n, clock = tables(variants, device, 1), len(variants), len(device.idle_w) - 1
    deadline_s = budget.deadline_ms / 1000
    state = State(
        variants=variants,
        tables=known,
        budget=replace(budget, battery=None),
        begun_ns=begun_ns,
        latency=latency.start(n, device.clock_ratio),
        power=power.start(known, clock, window_of(budget)),
        heat_model=thermal.model(device),
        values=value_iteration.start(known, deadline_s),
        plan=no_plan(known, deadline_s, clock),
        round_s=1.0 / fps,
        offered_s=1.0 / fps,
        clock=clock,
        highest=clock,
        lost=[None] * n,
        vetoed=[None] * n,
        away=[v.away for v in variants],
        allowed=(True,) * n,
        candidates=(True,) * n,
        activity=[Activity([0] * n), Activity([0] * n)],
        decision=decision,
    )
    state.adapt(variants, budget, 1, 0.0)
    return state


def no_plan(known: Tables, deadline_s: float, clock: int) -> Plan:
    step_s = deadline_s * 1.05 / (value_iteration.GRID - 1)
    idle_w = float(known.idle_w[clock])
    return Plan(clock, 0.0, False, 0.0, (0.0,) * value_iteration.GRID, step_s, "none", idle_w, Allowed())


def window_of(budget: Budget) -> int:
    return max(1, round(budget.power_window_s))
