"""What the governor reads and answers: plain data, so that a run can be logged, replayed and explained.

Units are in the names. Times handed to the governor are nanoseconds of one monotonic clock. `None` is unknown.
Which part of the daemon produces each field: the table in docs/governor.md, held by a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Bound = Literal["heat", "deadline", "load", "power", "energy", "accuracy", "pin", "none"]
"""The constraint that decided; none, when the most accurate variant runs on all frames."""

Limit = Literal["heat", "deadline", "power", "energy", "accuracy", "frame_rate"]

Unenforceable = Literal["power", "energy", "heat", "battery"]
"""What cannot be held while nothing measures it or, the battery apart, while the device exceeds it with no frame."""

RELAX_ORDER: tuple[Limit, ...] = ("heat", "deadline", "power", "energy", "accuracy", "frame_rate")
"""When not all limits can be held, later ones are relaxed first; accuracy falls below its floor only when no working
variant reaches it, heat is relaxed only when no action avoids it."""


@dataclass(frozen=True)
class Variant:
    """What is known of a variant before it has run here.

    `latency_ms`: warm service time of a batch of 1, 2, ... at the highest clock. From a device profile, else empty:
    `clock_factor` multiplies the latency at each clock; `active_w` is the power above idle while it runs there. `away`:
    why it is not loaded at the start, and how long a load takes; None: it is.
    """

    name: str
    accuracy: float | None
    latency_ms: tuple[float, ...]
    clock_factor: tuple[float, ...] = ()
    active_w: tuple[float, ...] = ()
    away: str | None = None


@dataclass(frozen=True)
class Device:
    """What a device profile says. Tuples go by clock, slowest first. `fixed_clock`: the clock is an operator's and not
    changed from here. `leakage_w_per_c`: additional power per degree above 25 C. `assumed`: the watts are a guess for
    want of a profile, learnt while running. `clock_ratio`: each clock as a share of the highest, where nothing was
    measured at them; else one entry."""

    idle_w: tuple[float, ...]
    fixed_clock: bool = True
    leakage_w_per_c: float = 0.0
    junction_j_per_c: float = 12.0
    sink_j_per_c: float = 90.0
    junction_sink_c_per_w: float = 1.2
    sink_air_c_per_w: float = 4.5
    assumed: bool = False
    clock_ratio: tuple[float, ...] = (1.0,)


@dataclass(frozen=True)
class BatteryBudget:
    """The battery must not be empty before `last_s` have passed, again and again from when this was set. `harvest_w`:
    the mean supply expected in each equal part of that time; empty without a forecast."""

    last_s: float
    harvest_w: tuple[float, ...] = ()


@dataclass(frozen=True)
class Budget:
    """The limits in force; None is absent.

    `power_w`: rolling mean over `power_window_s`. `energy_wh`: what may be drawn in each `energy_horizon_h`.
    `temperature_c`: the hottest junction. `min_accuracy`: no variant below it runs. `deadline_quantile` is of all
    frames except those that a budget saves: a frame that would be too late counts as late. `min_fps`: what each
    camera gets whatever the budgets say.
    """

    deadline_ms: float
    deadline_quantile: float
    min_accuracy: float
    power_w: float | None = None
    power_window_s: float = 10.0
    energy_wh: float | None = None
    energy_horizon_h: float = 24.0
    temperature_c: float | None = None
    min_fps: float = 0.0
    battery: BatteryBudget | None = None


# --- observations -----------------------------------------------------------------------------------------------------


class BatchDone(NamedTuple):
    """A batch came back. `service_ms`: preparation, its own time on the engine and decoding, of the whole batch,
    without the time behind another lane's batch. `wait_ms`: the rest of the greatest age from capture to result.
    `late`: how many of its frames missed the deadline. `clock`: that of the device while it ran, None if it is not
    controlled."""

    variant: str
    batch: int
    service_ms: float
    wait_ms: float
    late: int
    clock: int | None = None


class Skipped(NamedTuple):
    """Frames that were dropped: `late`, or else to save energy or for a newer frame of the camera."""

    frames: int
    late: bool


@dataclass(frozen=True)
class EnergyUse:
    """The energy meter's count: joules spent in the horizon in force, and seconds until it ends."""

    spent_j: float
    left_s: float


@dataclass(frozen=True)
class Battery:
    """Its gauge. `harvest_w`: what a charger or a panel supplies now; None where that is not measured."""

    charge_j: float
    capacity_j: float
    harvest_w: float | None = None


@dataclass(frozen=True)
class Sensed:
    """One sample of the device. `power_estimated`: no meter measured it, a model of the machine did. `power_lag_s`,
    `power_mean_s`: how late the power sensor answers and over what it averages."""

    power_w: float | None = None
    temperature_c: float | None = None
    clock: int | None = None
    throttled: bool = False
    power_estimated: bool = False
    battery: Battery | None = None
    energy: EnergyUse | None = None
    power_lag_s: float = 0.2
    power_mean_s: float = 0.4


@dataclass(frozen=True)
class Workload:
    """Once a second: how many cameras are live, and the frames per second of all together. `still`: by camera with a
    motion gate, the share of its frames in that second that it left out; for people."""

    cameras: int
    frames_per_s: float
    still: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class ClockRange:
    """From now on the governor chooses the clock, up to `highest`; None: it is fixed, as `Sensed` tells it."""

    highest: int | None


@dataclass(frozen=True)
class BudgetChanged:
    budget: Budget


@dataclass(frozen=True)
class Pinned:
    """An operator fixes the variant, or (None) releases it."""

    variant: str | None


@dataclass(frozen=True)
class VariantLost:
    """A variant stopped working and may not be chosen again."""

    variant: str
    why: str


@dataclass(frozen=True)
class Residency:
    """A variant was let go, `away` says why and how long a load takes; or it is loaded (None), `latency_ms` as for
    `Variant` where it was measured while it was warmed."""

    variant: str
    away: str | None
    latency_ms: tuple[float, ...] = ()


@dataclass(frozen=True)
class Vetoed:
    """The accuracy guard forbids a variant on one camera or (None) on all, until `Unvetoed`."""

    variant: str
    why: str
    camera: str | None = None


@dataclass(frozen=True)
class Unvetoed:
    """The accuracy guard allows a variant again: the end of the veto of the same camera."""

    variant: str
    why: str
    camera: str | None = None


@dataclass(frozen=True)
class ShadowDone:
    """The accuracy guard ran frames again: energy was spent, no frame was served."""

    variant: str
    batch: int


@dataclass(frozen=True)
class Tick:
    """Twice a second, best while no frame waits: the governor plans, and publishes what ran if that has changed."""


Change = BudgetChanged | ClockRange | Pinned | VariantLost | Residency | Vetoed | Unvetoed
"""Of what may run, or of a limit."""
Observation = BatchDone | Skipped | Sensed | Workload | ShadowDone | Change | Tick


# --- requests and answers ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """What the governor was started with."""

    variants: tuple[Variant, ...]
    budget: Budget
    device: Device | None


class Waiting(NamedTuple):
    """The frames that wait, in the order in which they would run. `age_ms`: of the oldest, at the time when the engine
    can begin. `weights`: how much each frame's accuracy counts, 1 on average; empty: all alike. `cameras`: whose they
    are. `required`: so many of the first frames must run, since their cameras are owed one (`Budget.min_fps`)."""

    frames: int
    age_ms: float
    weights: tuple[float, ...] = ()
    cameras: tuple[str, ...] = ()
    last: str | None = None
    clock: int | None = None
    required: int = 0


Cause = Literal["none", "late", "overload", "budget"]
"""Why frames are dropped: none can be in time on any variant; the engine has no room for them; to save energy."""


class Choice(NamedTuple):
    """The next batch: the variant (None: drop them all, for `cause`) and how many of the first frames. `value`:
    expected accuracy-weighted frames after prices; `skip_value`: of dropping them."""

    variant: str | None
    frames: int
    cause: Cause
    value: float
    skip_value: float


class Misfit(NamedTuple):
    """Why a variant cannot run on all frames: `bound` allows less than it `needs`. In milliseconds from capture to
    result (None: not known), in shares of the engine's time, or in watts of the device."""

    bound: Bound
    needs: float | None
    allowed: float


@dataclass(frozen=True)
class Decision:
    """What ran in the last second, and why. `variant`: the one that made most results (before the first: that would run
    next). `wanted`: the one that `bound` keeps from running on all frames. `results`, `late`, `saved`: frames of the
    last second that ran, were dropped as late, and to save energy; `frame_share`: of all these, those that ran;
    `shares`: of those, by variant. `clock`: the ceiling requested, None where it is fixed. `price_per_j`:
    accuracy-weighted frames that a joule must gain; 0 while energy is not limited. `relaxed`: limits that are relaxed
    now. `unenforceable`: those that are set but cannot be held."""

    variant: str
    max_batch: int
    bound: Bound
    wanted: str
    pinned: bool = False
    clock: int | None = None
    price_per_j: float = 0.0
    results: int = 0
    late: int = 0
    saved: int = 0
    frame_share: float = 1.0
    shares: tuple[tuple[str, float], ...] = ()
    relaxed: tuple[Limit, ...] = ()
    unenforceable: tuple[Unenforceable, ...] = ()


Request = Start | Observation | Waiting
Answer = Decision | Choice | None
"""To a Start the first Decision; to an Observation the Decision if it is a new one; to a Waiting a Choice."""
