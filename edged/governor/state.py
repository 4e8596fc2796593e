"""All that is estimated and priced, as one frozen whole, and how each thing seen changes it. Pure.

`planner` makes its plan twice a second, `choice` decides by it before each batch. Times are seconds from the start.
What comes in here has been checked (`ledger`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edged.governor.estimators import difficulty as scene
from edged.governor.estimators import latency, thermal
from edged.governor.estimators import power as energy
from edged.governor.fast_replace import replace
from edged.governor.limits import battery, power_window
from edged.governor.limits import energy_quota as horizon
from edged.governor.limits import switch_rate as switching
from edged.governor.limits.lateness import Spending
from edged.governor.limits.throttle import UNTHROTTLED, Throttle
from edged.governor.messages import Budget, Device, Variant
from edged.governor.planner import value_iteration as worth
from edged.governor.planner.options import Tables, tables
from edged.governor.planner.pricing import Allowed, LongRun, Plan

WARMEST_GUESS_C: Final = 50.0
OWN_MOST: Final = 0.5
"""So far (as a logarithm) joules are taken to go with the time of a variant that is not what its profile says; what is
further off is rather the profile's latency alone."""
UNKNOWN: Final = Device((0.0,))
"""The device of which nothing is known: its joules cost nothing, and no budget of them is held."""


@dataclass(frozen=True, eq=False)
class Economy:
    """`allowed`: by variant, whether it may run; `allowed_apart`: the same of each camera with vetoes of its own.
    `clock`: what the device runs at, as far as is known; `clock_s`: when it was last changed from here; `highest`: up
    to which it may be, while it is not given. `smooth_w`: the window's and the heat's allowance, smoothed, since jitter
    of a budget costs accuracy; the third is the window's over the time for which a clock is chosen. `round_s`: time
    between two rounds of frames as the plan has it, `offered_s` as the cameras offer them now. `mean_weight`: of a
    frame. `apart`: as in Workload."""

    variants: tuple[Variant, ...]
    tables: Tables
    budget: Budget
    allowed: tuple[bool, ...]
    allowed_apart: tuple[tuple[str, tuple[bool, ...]], ...]
    physics: thermal.HeatModel
    latency: latency.Latency
    energy: energy.Energy
    heat: thermal.Heat
    scene: scene.Scene
    switching: switching.Switching
    caps: power_window.Caps | None
    store: battery.Store
    horizon: horizon.Horizon | None
    worth: worth.Worth
    long_run: LongRun
    plan: Plan
    spending: Spending
    round_s: float
    offered_s: float
    cameras: int
    clock: int
    planned_s: float = -math.inf
    clock_s: float = -math.inf
    highest: int = 0
    throttle: Throttle = UNTHROTTLED
    smooth_w: tuple[float | None, float | None, float | None] = (None, None, None)
    mean_weight: float = 1.0
    apart: bool = False

    @property
    def device(self) -> Device:
        return self.tables.device

    @property
    def rest_clock(self) -> int:
        """The clock at which it costs least to last: the lowest, or the one it runs at where that is given."""
        return self.clock if self.device.held else 0

    @property
    def planned(self) -> bool:
        """There is a plan for the variants, budgets and cameras of now."""
        return math.isfinite(self.planned_s)

    @property
    def price(self) -> float:
        """Of a joule, in accuracy-weighted frames."""
        return self.plan.price * math.exp(self.spending.correction)

    @property
    def rationed(self) -> bool:
        """Whether a joule has a price now: then a frame may be given up to save it, else only because it would be
        late."""
        return self.price > 0

    def given_up_price(self, joule_price: float) -> float:
        """Of a frame that is not run, beyond its lost accuracy: where the quantile is of all frames it is a late one,
        unless it is given up to save joules."""
        return self.late_price if self.budget.of_all_frames and joule_price <= 0.0 else 0.0

    @property
    def together(self) -> int:
        """Frames that the planning takes as one: of every camera, or one where they come apart and no batch pays. Then
        a frame's wait is what the ones before it left, and not the time of a whole round."""
        return 1 if self.apart and not self.tables.batched else self.cameras

    @property
    def period_s(self) -> float:
        """From one such lot of frames to the next."""
        return self.round_s * self.together / self.cameras

    @property
    def late_price(self) -> float:
        return self.spending.late_price(self.budget.deadline_quantile)

    def allowed_on(self, camera: str) -> tuple[bool, ...]:
        """By variant, whether it may run on this camera."""
        return next((here for name, here in self.allowed_apart if name == camera), self.allowed)

    @property
    def junction_c(self) -> float:
        return self.heat.junction_c if self.heat.junction_c is not None else WARMEST_GUESS_C

    @property
    def profiled(self) -> bool:
        """The watts were measured on this device before."""
        return self.device is not UNKNOWN and not self.device.assumed

    @property
    def knows_power(self) -> bool:
        return self.profiled or self.energy.metered

    @property
    def knows_heat(self) -> bool:
        return self.heat.junction_c is not None

    def usual_s(self, variant: int, clock: int) -> float:
        """How long a single frame takes, as estimated now, noise apart."""
        return float(self.tables.latency_s[variant, clock]) * math.exp(self.latency.log_factor(variant))

    def joule(self, variant: int, clock: int) -> float:
        """What a single frame costs above idle, as estimated now."""
        known = self.tables
        stretched = math.exp(max(0.0, self.latency.slow(known.core[variant])))
        own = min(OWN_MOST, max(-OWN_MOST, self.latency.own(variant)))
        unit = math.exp(own) * (energy.STALL_ENERGY + (1 - energy.STALL_ENERGY) * stretched)
        return known.nominal_j[variant][clock] * unit * self.energy.factor(variant)


def fresh(variants: tuple[Variant, ...], device: Device, budget: Budget, cameras: int, fps: float) -> Economy:
    known = tables(variants, device, cameras)
    deadline_s = budget.deadline_ms / 1000
    window_s = _window_s(budget)
    clock = known.clocks - 1
    remember = int(min(400, max(64, fps * window_s / 3.0)))
    return Economy(
        variants=variants,
        tables=known,
        budget=budget,
        allowed=(True,) * len(known.names),
        allowed_apart=(),
        physics=thermal.model(device),
        latency=latency.fresh(known.core, known.cores),
        energy=energy.fresh(known, clock, window_s),
        heat=thermal.fresh(),
        scene=scene.fresh(remember),
        switching=switching.fresh(device.switch_ms),
        caps=None if budget.power_w is None else power_window.fresh(budget.power_w, window_s),
        store=battery.Store(),
        horizon=horizon.begun(None, budget, 0.0, 0.0),
        worth=worth.fresh(known, deadline_s),
        long_run=LongRun(),
        plan=_no_plan(known, deadline_s, clock),
        spending=Spending(),
        round_s=1.0 / fps,
        offered_s=1.0 / fps,
        cameras=cameras,
        clock=clock,
        highest=clock,
    )


def _no_plan(known: Tables, deadline_s: float, clock: int) -> Plan:
    step_s = deadline_s * 1.05 / (worth.GRID - 1)
    rest_w = float(known.idle_w[clock])
    return Plan(
        clock, 0.0, False, 0.0, (0.0,) * worth.GRID, step_s, "none", rest_w, Allowed(), home=(0.0,) * len(known.names)
    )


def adapted(e: Economy, variants: Sequence[Variant], budget: Budget, cameras: int, now_s: float) -> Economy:
    """With other variants, another budget or another number of cameras; what was learnt stays."""
    variants = tuple(variants)
    same = cameras == e.cameras and variants == e.variants
    known = e.tables if same else tables(variants, e.device, cameras)
    value = e.worth
    if budget.deadline_ms != e.budget.deadline_ms or not same:
        value = worth.fresh(known, budget.deadline_ms / 1000)
    window_s = _window_s(budget)
    drawn = replace(e.energy, book=e.energy.book.resized(window_s))
    caps = e.caps
    if budget.power_w is None:
        caps = None
    elif caps is None or len(caps.recent_w) != window_s:
        caps = power_window.fresh(budget.power_w, window_s, int(now_s))
    store = e.store
    if budget.battery != e.budget.battery:
        store = battery.Store(begun_s=now_s)
    return replace(
        e, variants=variants, tables=known, budget=budget, cameras=cameras, worth=value, energy=drawn, caps=caps,
        store=store, horizon=horizon.begun(e.horizon, budget, now_s, e.energy.book.drawn_j),
        smooth_w=e.smooth_w if budget == e.budget else (None, None, None), planned_s=-math.inf,
    )  # fmt: skip


def metered(e: Economy, device: Device, now_s: float) -> Economy:
    """Something is known of the watts at last: `device` takes the place of what was not known."""
    known = tables(e.variants, device, e.cameras)
    clock = known.clocks - 1
    begun = energy.fresh(known, clock, _window_s(e.budget))
    begun = replace(begun, sensed_s=e.energy.sensed_s, book=replace(begun.book, at_s=int(now_s)))
    return replace(
        e, tables=known, physics=thermal.model(device), energy=begun,
        worth=worth.fresh(known, e.budget.deadline_ms / 1000), long_run=LongRun(), spending=Spending(),
        plan=_no_plan(known, e.budget.deadline_ms / 1000, clock), clock=clock, highest=clock, planned_s=-math.inf,
        switching=replace(switching.fresh(device.switch_ms), at_s=now_s, last=e.switching.last),
        horizon=horizon.begun(None, e.budget, now_s, 0.0),
    )  # fmt: skip


def _window_s(budget: Budget) -> int:
    return max(1, round(budget.power_window_s))


# --- what is seen -----------------------------------------------------------------------------------------------------


def sensed(
    e: Economy, now_s: float, power_w: float | None, temperature_c: float | None, charge: float | None,
    harvest_w: float | None, clock: int, estimated: bool = False,
) -> Economy:  # fmt: skip
    """After a reading; None is unknown."""
    elapsed_s = now_s - e.energy.sensed_s
    if elapsed_s <= 0:
        return e
    drawn, drawn_w = energy.sensed(e.energy, e.tables, clock, e.junction_c, power_w, now_s, estimated)
    heat = thermal.sensed(e.heat, e.physics, drawn_w, temperature_c, now_s)
    store = e.store
    if e.budget.battery is not None and charge is not None:
        store = battery.sensed(store, e.budget.battery, charge, harvest_w or 0.0, drawn_w, elapsed_s, now_s)
    return replace(e, energy=drawn, heat=heat, store=store, clock=clock)


@dataclass(frozen=True)
class Ran:
    """A checked BatchDone: `seconds` of one batch of `batch`, of which there were frames / batch one after the
    other. `seen`: camera and confidence of each frame that has one."""

    variant: int
    clock: int
    frames: int
    batch: int
    seconds: float
    late: int
    seen: tuple[tuple[str, float], ...]
    contrast: float | None
    cold: bool
    again: bool


def ran(e: Economy, now_s: float, run: Ran) -> Economy:
    known, pace = e.tables, e.latency
    warm_s = run.seconds / (1.0 + known.device.cold_factor if run.cold else 1.0)
    times = known.times(run.variant, run.batch, run.batch)
    single_s = warm_s / times
    ratio = math.log(max(1e-5, single_s / float(known.latency_s[run.variant, run.clock])))
    if run.frames != run.batch:
        times = known.times(run.variant, run.frames, run.batch)
    factor = e.energy.factor(run.variant)
    cost_j = e.joule(run.variant, run.clock) * times
    spending = _spent(e, cost_j, 0.0 if run.again else run.frames / e.cameras)
    learnt = e.scene
    if not run.again:
        spending = spending.counted(run.frames, run.late)
        for camera, confidence in run.seen:
            learnt = scene.learn(learnt, run.contrast, confidence, camera)
    return replace(
        e,
        energy=energy.ran(e.energy, run.variant, cost_j / factor, now_s),
        latency=latency.learn(pace, run.variant, ratio, now_s),
        scene=learnt,
        spending=spending,
        switching=switching.ran(e.switching, run.variant, now_s),
        clock=run.clock,
    )


def shadowed(e: Economy, variant: int, batch: int, now_s: float) -> Economy:
    """Frames were run again for the guard: their joules are spent, and serve nobody."""
    cost_j = e.joule(variant, e.clock) * e.tables.times(variant, batch, batch)
    spent = energy.ran(e.energy, variant, cost_j / e.energy.factor(variant), now_s)
    return replace(e, energy=spent, spending=_spent(e, cost_j, 0.0))


def skipped(e: Economy, frames: int, late: bool) -> Economy:
    """Frames that were not run: by choice, or because they had waited too long."""
    if late:
        return replace(e, spending=e.spending.counted(frames, frames))
    return replace(e, spending=_spent(e, 0.0, frames / e.cameras))


def _spent(e: Economy, joules: float, share: float) -> Spending:
    plan = e.plan
    if plan.price <= 0.0 or plan.paced:
        return e.spending.relaxed(0.995)
    least_j = min(e.joule(i, plan.clock) for i in range(len(e.tables.names)) if e.allowed[i])
    return e.spending.spent(joules, plan.target_j * e.cameras / e.together, share, least_j)
