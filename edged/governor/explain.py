"""The governor's sentences, for a field engineer: how each variant stood and why one was chosen, with numbers. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from edged.governor.messages import SURRENDER, Alternative, Bound, Budget, Yielding
from edged.governor.planner.pricing import Plan

BUSY_BOUND: Final = 0.85
"""Share of the engine's time the frames may need; beyond it waiting times grow without limit."""

LIMITS: Final[dict[Bound, str]] = {
    "heat": "heat",
    "power": "the rolling mean power",
    "energy": "the energy that must last",
}


class View(NamedTuple):
    """A variant as it stands now. `predicted_ms`: capture to publish at the budget's quantile; `busy`: share of the
    engine's time for all frames offered; `barred`: why it may not run at all. With a power profile: joules per frame,
    watts of the device with all frames on it, and what the budget named by `limit` allows."""

    name: str
    accuracy: float | None
    predicted_ms: float | None
    busy: float
    barred: str | None
    in_time: bool
    in_load: bool
    energy_j: float | None = None
    power_w: float | None = None
    allowed_w: float = math.inf
    limit: Bound = "none"

    @property
    def in_power(self) -> bool:
        return self.power_w is None or self.power_w <= self.allowed_w

    @property
    def fits(self) -> bool:
        return self.barred is None and self.in_time and self.in_load and self.in_power


class Scene(NamedTuple):
    """What all sentences share."""

    budget: Budget
    cameras: int
    frames_per_s: float

    def deadline(self) -> str:
        return f"{human_ms(self.budget.deadline_ms)} at the {self.budget.deadline_quantile * 100:g} % quantile"

    def load(self) -> str:
        cameras = f"with {self.cameras} camera{'' if self.cameras == 1 else 's'}"
        return f"{cameras} at {human(self.frames_per_s)} frames/s" if self.frames_per_s > 0 else cameras


def human(value: float) -> str:
    """Three digits, and never an exponent."""
    return f"{value:.3g}" if 1e-3 <= abs(value) < 999.5 else f"{value:.0f}"


def human_ms(ms: float | None) -> str:
    """`8.24 ms`, `312 ms`, `2.97 s`, `18 min`."""
    if ms is None:
        return "an unknown time"
    if ms < 999.5:
        return f"{human(ms)} ms"
    return f"{human(ms / 1000)} s" if ms < 999_500 else f"{human(ms / 60_000)} min"


def barred_by_floor(accuracy: float | None, budget: Budget) -> str | None:
    """Why the accuracy floor forbids a variant, or None."""
    if budget.min_accuracy <= 0 or (accuracy is not None and accuracy >= budget.min_accuracy):
        return None
    known = "is unknown" if accuracy is None else f"{accuracy:.3g} is below the floor"
    return f"its accuracy {known}, min_accuracy is {budget.min_accuracy:g}"


def misfit(view: View, scene: Scene) -> str:
    """Why a variant does not fit: a clause without its subject."""
    if view.barred is not None:
        return f"may not run: {view.barred}"
    if view.predicted_ms is None:
        return "has no known latency"
    if not view.in_time:
        return f"would need {human_ms(view.predicted_ms)} of {scene.deadline()} {scene.load()}"
    if not view.in_power and view.in_load:
        allowed = f"allows {human(view.allowed_w)} W" if view.allowed_w > 0 else "allows nothing"
        return f"would draw {human(view.power_w or 0.0)} W {scene.load()}, {LIMITS[view.limit]} {allowed}"
    return f"would keep the engine {view.busy:.0%} busy {scene.load()} (bound {BUSY_BOUND:.0%})"


def alternatives(views: Sequence[View], chosen: int, scene: Scene) -> tuple[Alternative, ...]:
    """All variants, best accuracy first, each with its verdict."""
    told = []
    for i, view in enumerate(views):
        predicted_ms = None if view.predicted_ms is None else round(view.predicted_ms, 2)
        if not view.fits:
            verdict = ("runs, though it " if i == chosen else "") + misfit(view, scene)
        elif i == chosen:
            verdict = f"runs: needs {human_ms(view.predicted_ms)} of {scene.deadline()}, {view.busy:.0%} busy"
        elif i < chosen:
            verdict = (
                f"fits with {human_ms(view.predicted_ms)}, but not by enough or not for long enough to change to it"
            )
        else:
            verdict = f"fits with {human_ms(view.predicted_ms)}, but is not more accurate"
        energy_j = None if view.energy_j is None else round(view.energy_j, 5)
        power_w = None if view.power_w is None else round(view.power_w, 2)
        told.append(Alternative(view.name, view.accuracy, predicted_ms, view.fits, verdict, energy_j, power_w))
    return tuple(told)


def bound(views: Sequence[View], chosen: int, pinned: bool, late: bool) -> Bound:
    """The constraint that decided for `chosen`; `late`: it, or the one just left for it, had too many late frames."""
    if pinned:
        return "pin"
    view = views[chosen]
    if not view.fits and any(v.barred and v.in_time and v.in_load for v in views[chosen + 1 :]):
        return "accuracy"
    if not view.fits:
        return _misfit_bound(view)
    better = _better(views, chosen)
    if better is None:
        return "deadline" if late else "none"
    return "deadline" if better.fits else _misfit_bound(better)


def _misfit_bound(view: View) -> Bound:
    if not view.in_time or view.predicted_ms is None:
        return "deadline"
    return view.limit if view.in_load else "load"


def yielded(views: Sequence[View], chosen: int, plan: Plan) -> tuple[Yielding, ...]:
    """What gives way while `chosen` runs, in the order of surrender. A budget of watts gives way only if the device
    draws more than it allows even without a frame."""
    view, allowed = views[chosen], plan.allowed
    given: set[Yielding] = set()
    watts: tuple[tuple[Yielding, float], ...] = (
        ("heat", allowed.heat_w), ("power", allowed.window_w), ("energy", allowed.battery_w),
    )  # fmt: skip
    for limit, allowed_w in watts:
        if plan.base_w > allowed_w:
            given |= {limit, "frame_rate"}
    if view.barred is not None:
        given.add("accuracy")
    if not view.in_time:
        given.add("deadline")
    elif not (view.in_load and view.in_power):
        given.add("frame_rate")
    return tuple(limit for limit in SURRENDER if limit in given)


def reason(views: Sequence[View], chosen: int, scene: Scene, pinned: bool, late: str | None) -> str:
    """Why `chosen` runs. `late`: the variant whose late frames led to this choice."""
    view = views[chosen]
    needs = "its latency is not known yet"
    if view.predicted_ms is not None:
        needs = f"needs {human_ms(view.predicted_ms)} of {scene.deadline()} {scene.load()}"
    if pinned:
        fits = "" if view.fits else f"; left alone it would not be chosen: it {misfit(view, scene)}"
        return f"{view.name}: pinned by an operator, {needs}{fits}"
    if late == view.name:
        return f"{view.name}: more frames are late than allowed and no faster variant may run; {needs} by prediction"
    if late is not None:
        return f"{view.name}: {late} had more late frames than allowed {scene.load()}; {view.name} {needs}"
    if not view.fits:
        spared = next((v for v in views[chosen + 1 :] if v.barred and v.in_time and v.in_load), None)
        floor = f"; {spared.name} would fit but {spared.barred}" if spared else ""
        trouble = "frames will be late" if not view.in_time else "frames will be given up"
        extreme = "cheapest" if view.in_time and view.in_load else "fastest"
        return f"{view.name}: the {extreme} allowed, but it {misfit(view, scene)}, so {trouble}{floor}"
    better = _better(views, chosen)
    if better is None:
        return f"{view.name}: the most accurate that may run, {needs}"
    if not better.fits:
        return f"{view.name}: {better.name} {misfit(better, scene)}; {view.name} {needs}"
    needed = human_ms(better.predicted_ms)
    return f"{view.name}: {better.name} fits with {needed}, but not yet by enough or for long enough"


def _better(views: Sequence[View], chosen: int) -> View | None:
    """The next more accurate variant that may run."""
    return next((v for v in reversed(views[:chosen]) if v.barred is None), None)
