"""What the governor is told, what it answers: plain data, so that a decision can be logged, replayed and explained.

Two rhythms. `step` takes every observation and answers with the standing Decision: what runs, and why. Before a batch,
`choose` answers for the very frames that wait with a Choice, which may spend more or less than the standing variant.
An engine loop, on one thread:

    state, decision = start(variants, budget, now_ns, device)     device: from a device profile, or None
    step(state, Workload(...))            at once, and then once a second
    step(state, Sensed(...))              every reading of the device
    step(state, Tick())                   twice a second: plans afresh, some milliseconds
    choose(state, Waiting(...))           before each batch; then either step(Skipped) or run it and step(BatchDone)
    escalate(state, done, ...)            after step(BatchDone): whether a frame of it is worth another run
    step(state, ClockRange(...))          the device's clock may be chosen from now on, up to one; or is given again
    step(state, BudgetChanged(...))       any limit set, changed or taken away

Times are nanoseconds of one monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Bound = Literal["heat", "deadline", "load", "power", "energy", "accuracy", "pin", "none"]
"""The constraint that decided: the temperature limit; the time a frame may take; the engine's capacity; the mean power;
the energy that must last; the accuracy floor, which forbids a faster or cheaper variant that would fit; an operator; or
none, when the most accurate variant runs and fits."""

Yielding = Literal["heat", "deadline", "power", "energy", "accuracy", "frame_rate"]

SURRENDER: tuple[Yielding, ...] = ("heat", "deadline", "power", "energy", "accuracy", "frame_rate")
"""When not all can be held, what stands later yields to what stands before it: first frames are given up, then accuracy
(below the floor only when no working variant reaches it), then energy, power and the deadline, and heat never while any
action avoids it. `Decision.yielded` names what gives way just now."""


@dataclass(frozen=True)
class Variant:
    """What is known of a variant before it has run here.

    `latency_ms` is the warm service time of a batch (as in `BatchDone.service_ms`): index 0 is batch 1; at the device's
    highest clock. What follows is a device profile's and may be absent: `clock_factor` multiplies the latency at each
    clock of `Device.clocks`, `active_w` is the power above idle while it runs there. `accuracy_slope` is what accuracy
    loses from the easiest scene (difficulty 0) to the hardest (1); `accuracy` holds at difficulty TYPICAL. `core` names
    what it runs on: variants on one core slow down together.
    """

    name: str
    accuracy: float | None
    latency_ms: tuple[float, ...]
    clock_factor: tuple[float, ...] = ()
    active_w: tuple[float, ...] = ()
    accuracy_slope: float = 0.0
    core: str = "gpu"


TYPICAL = 0.4
"""Difficulty of the data that a bundle's accuracy was measured on."""


@dataclass(frozen=True)
class Device:
    """What a device profile says, and what the sensors are like. Tuples go by clock, slowest first; `held`: the clock
    is given (an operator's power mode) and never changed from here."""

    idle_w: tuple[float, ...]
    held: bool = True
    leakage_w_per_c: float = 0.0
    """additional power per degree above 25"""
    junction_j_per_c: float = 12.0
    sink_j_per_c: float = 90.0
    junction_sink_c_per_w: float = 1.2
    sink_air_c_per_w: float = 4.5
    sensor_lag_s: float = 0.2
    sensor_mean_s: float = 0.4
    switch_ms: float = 0.0
    """what a change of variant costs"""
    clock_switch_ms: float = 60.0
    clock_dwell_s: float = 2.0
    cold_factor: float = 0.0
    """how much slower the first batch of a variant is that has not run for three seconds"""
    assumed: bool = False
    """its watts are a guess for want of a profile: soon learnt, and marked until then"""


@dataclass(frozen=True)
class Battery:
    """A store with a gauge (`Sensed.charge`) that must last until `until_s`; `forecast_w` is the supply expected, one
    value for every `forecast_step_s`: a sun's, or a schedule's (mains by the hour); empty without one. Times are
    seconds from when this battery was first told."""

    capacity_wh: float
    until_s: float
    forecast_w: tuple[float, ...] = ()
    forecast_step_s: float = 30.0


@dataclass(frozen=True)
class Budget:
    """The limits as the governor holds them; None is absent. Each may be set, changed and taken away while running.

    `power_w`: rolling mean over `power_window_s`. `energy_wh`: what may be drawn in each `energy_horizon_h`; the first
    begins when this limit is first told, the next when it ends; kept by the governor's own book, without any gauge.
    `temperature_c`: the hottest junction. `min_accuracy`: no variant below it runs. `of_all_frames`: the quantile is of
    all frames, so that one given up for want of time is one that came late; else of the results alone.
    """

    deadline_ms: float
    deadline_quantile: float
    min_accuracy: float
    power_w: float | None = None
    power_window_s: float = 10.0
    energy_wh: float | None = None
    energy_horizon_h: float = 24.0
    temperature_c: float | None = None
    battery: Battery | None = None
    of_all_frames: bool = False


@dataclass(frozen=True)
class BatchDone:
    """A batch came back. `service_ms` is preparation + inference + decoding of the whole batch on the engine loop,
    `lead_ms` the greatest capture-to-start age of its frames (decoding and waiting), `late` how many missed.

    `confidences`: the best score of each frame, empty if unknown, and `cameras` whose they are, in the same order;
    `contrast` as in Waiting. `clock` is that of the device while it ran (None: as held). `serial`: how many such
    batches ran one after the other; `service_ms` is then that of one of them. `again`: these frames had been inferred
    before by a cheaper variant.
    """

    variant: str
    batch: int
    service_ms: float
    lead_ms: float
    late: int
    confidences: tuple[float, ...] = ()
    contrast: float | None = None
    clock: int | None = None
    serial: int = 1
    cold: bool = False
    again: bool = False
    cameras: tuple[str, ...] = ()


@dataclass(frozen=True)
class Skipped:
    """Frames that were given up: `late`, because they had waited too long, else because a Choice said so."""

    frames: int
    late: bool


@dataclass(frozen=True)
class Sensed:
    """What the device said of itself; None is unknown. `charge` is the battery's, 0 to 1; `harvest_w` the sun's.
    `power_estimated`: no meter said so, but a model of the machine."""

    power_w: float | None = None
    temperature_c: float | None = None
    charge: float | None = None
    harvest_w: float | None = None
    clock: int | None = None
    throttled: bool = False
    power_estimated: bool = False


@dataclass(frozen=True)
class Workload:
    """What the cameras offer: how many are live and the frames per second of all together; told once a second."""

    cameras: int
    frames_per_s: float
    late: int
    """frames dropped since the last Workload because they could not meet their deadline, or for overload"""
    mean_weight: float = 1.0
    """of the frames offered: what a Waiting's weights are relative to"""
    apart: bool = False
    """each camera's frames come in their own time and wait for their turn; else those of all cameras come together"""


@dataclass(frozen=True)
class ClockRange:
    """From now on a Choice may have any clock up to `highest`; None: the clock is given, as `Sensed` and `BatchDone`
    tell it. Of a device with one clock there is nothing to say."""

    highest: int | None


@dataclass(frozen=True)
class BudgetChanged:
    budget: Budget


@dataclass(frozen=True)
class Pinned:
    """An operator holds a variant, or (None) lets go."""

    variant: str | None


@dataclass(frozen=True)
class VariantLost:
    """A variant stopped working at run time and may not be chosen again."""

    variant: str
    why: str


@dataclass(frozen=True)
class Vetoed:
    """The accuracy guard forbids a variant until it says otherwise, on one camera or (None) on all."""

    variant: str
    why: str
    camera: str | None = None


@dataclass(frozen=True)
class Unvetoed:
    """The accuracy guard allows a variant again, on the evidence named: the end of the veto of the same camera."""

    variant: str
    why: str
    camera: str | None = None


@dataclass(frozen=True)
class Compared:
    """How far `variant` saw in a frame what the reference saw in it, 0..1; None if neither saw anything."""

    camera: str
    variant: str
    agreement: float | None


@dataclass(frozen=True)
class ShadowDone:
    """The accuracy guard had `variant` run frames again that had their result already: time and energy were spent, and
    no frame served. `compared` is what came of it."""

    variant: str
    batch: int
    service_ms: float
    compared: tuple[Compared, ...] = ()


@dataclass(frozen=True)
class Tick:
    """Time passed: the moment for the slow path, which plans afresh at most twice a second."""


Changed = BudgetChanged | ClockRange | Pinned | VariantLost | Vetoed | Unvetoed
Observation = BatchDone | Skipped | Sensed | Workload | ShadowDone | Changed | Tick


@dataclass(frozen=True)
class Waiting:
    """The frames that a Choice is wanted for: how many wait, the age of the oldest, and what is known of the scene.

    `period_ms`: the time of one round, in which every camera gives a frame. `weights` (how much the accuracy of each
    counts; empty: all alike) and `cameras` (whose they are) go in the order in which the frames would be run; a
    camera's last confidences tell how difficult its next frame is.
    """

    frames: int
    age_ms: float
    period_ms: float
    contrast: float | None = None
    """0 to 1, of the frames themselves; None if not measured"""
    weights: tuple[float, ...] = ()
    cameras: tuple[str, ...] = ()
    last: str | None = None
    """the variant that ran before"""
    clock: int | None = None
    may_switch_clock: bool = False


@dataclass(frozen=True)
class Choice:
    """For the frames that wait: the variant (None: give them up), how many of them, in batches of how many (1: one
    after the other); the clock to run at. Frames beyond those may be asked for again or given up. `value` is what was
    expected of it, in accuracy-weighted frames after prices; `skip_value`: of skipping."""

    variant: str | None
    frames: int
    batch: int
    clock: int | None
    value: float
    skip_value: float


@dataclass(frozen=True)
class Alternative:
    """A variant as it stood when the choice was made; `predicted_ms` is its time from capture to publish at the
    budget's quantile, None when nothing is known; `energy_j` per frame and `power_w` of the device with all frames on
    it, None without a power profile."""

    variant: str
    accuracy: float | None
    predicted_ms: float | None
    fits: bool
    verdict: str
    energy_j: float | None = None
    power_w: float | None = None


@dataclass(frozen=True)
class Escalation:
    """Run a frame again on `variant` if its confidence is below `confidence` and deadline and price allow it."""

    variant: str
    confidence: float


@dataclass(frozen=True)
class Number:
    """One number that went into a Decision, with its standard error where it is an estimate and its age. `assumed`: it
    comes from a guess that nothing measured has replaced yet."""

    name: str
    value: float
    unit: str
    error: float | None = None
    age_s: float | None = None
    assumed: bool = False


@dataclass(frozen=True)
class Decision:
    """What the next batches get, and why in one sentence with its numbers.

    `clock`: the ceiling asked for, None where it is given. `price_per_j`: accuracy-weighted frames that one joule must
    earn; 0 while nothing is scarce. `frame_share`: share of the frames expected to run. `yielded`: what of SURRENDER
    gives way just now. `unheld`: limits that are set but cannot be held, a sentence each.
    """

    variant: str
    max_batch: int
    bound: Bound
    reason: str
    alternatives: tuple[Alternative, ...]
    pinned: bool
    clock: int | None = None
    price_per_j: float = 0.0
    frame_share: float = 1.0
    escalation: Escalation | None = None
    yielded: tuple[Yielding, ...] = ()
    numbers: tuple[Number, ...] = ()
    unheld: tuple[str, ...] = ()
