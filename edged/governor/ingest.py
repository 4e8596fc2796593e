"""From observations to the economy: what each one means for it, checked, since sensors and clocks lie. Pure."""

from __future__ import annotations

import math

from edged.governor import device, dispatch, state
from edged.governor.dispatch import Asked
from edged.governor.estimators.latency import plausible_ms
from edged.governor.fast_replace import replace
from edged.governor.messages import BatchDone, Sensed, Skipped, Waiting, Workload
from edged.governor.planner.options import Option
from edged.governor.profile import MAX_BATCH
from edged.governor.state import UNKNOWN, Economy

MAX_W = 1e4
MAX_C = 150.0
MIN_C = -60.0
MAX_MS = 1e6
MAX_WEIGHT = 1e4
REST_GUESS_W = 5.0
"""Assumed of a device that tells its temperature but not its power: then watts are only a measure of heat."""


def batch_done(e: Economy, done: BatchDone, variant: int, now_s: float) -> Economy:
    if not plausible_ms(done.service_ms) or not 1 <= done.batch <= MAX_BATCH or not 1 <= done.serial <= MAX_BATCH:
        return e
    clock = e.clock if done.clock is None or not 0 <= done.clock < e.tables.clocks else done.clock
    frames = done.batch * done.serial
    cameras = done.cameras if len(done.cameras) == len(done.confidences) else ("",) * len(done.confidences)
    seen = [(c, min(1.0, x)) for c, x in zip(cameras, done.confidences, strict=True) if 0 <= x <= 1.5]
    if seen and not cameras[0]:  # nobody's in particular: one scene
        seen = [("", sum([x for _, x in seen]) / len(seen))]
    run = state.Ran(
        variant, clock, frames, done.batch, done.service_ms / 1000, min(max(0, done.late), frames), tuple(seen),
        _share(done.contrast), done.cold, done.again,
    )  # fmt: skip
    return state.ran(e, now_s, run)


def clock_range(e: Economy, highest: int | None) -> Economy:
    """Whether the clock may be chosen, and up to which; then there is no plan until the next one is made."""
    known = e.tables
    if known.clocks == 1:
        return e
    most = known.clocks - 1 if highest is None else min(max(0, highest), known.clocks - 1)
    free = replace(known, device=replace(known.device, held=highest is None))
    return replace(e, tables=free, highest=most, clock=min(e.clock, most), planned_s=-math.inf)


def skipped(e: Economy, gone: Skipped) -> Economy:
    return state.skipped(e, gone.frames, gone.late) if 0 < gone.frames < 1e6 else e


def sensed(e: Economy, said: Sensed, now_s: float) -> Economy:
    """A reading of power or temperature on a device without a profile makes the assumed one take its place."""
    power_w, temperature_c = _within(said.power_w, 0.0, MAX_W), _within(said.temperature_c, MIN_C, MAX_C)
    first = not e.profiled and not e.energy.metered
    if first and (power_w is not None or (temperature_c is not None and e.device is UNKNOWN)):
        e = state.metered(e, device.assumed(REST_GUESS_W if power_w is None else power_w), now_s)
    if said.clock is not None and 0 <= said.clock < e.tables.clocks:
        e = replace(e, clock=said.clock)
    e = state.sensed(
        e, now_s, power_w, temperature_c, _share(said.charge), _within(said.harvest_w, 0.0, MAX_W), e.clock,
        said.power_estimated,
    )  # fmt: skip
    drawn_w = e.energy.book.lately_w
    throttle = e.throttle.told(said.throttled and e.knows_power, drawn_w, min(e.plan.base_w, drawn_w), now_s)
    return e if throttle is e.throttle else replace(e, throttle=throttle)


def workload(e: Economy, load: Workload, now_s: float) -> Economy:
    cameras = max(1, min(MAX_BATCH, load.cameras))
    if cameras != e.cameras:
        e = state.adapted(e, e.variants, e.budget, cameras, now_s)
    if math.isfinite(load.frames_per_s) and load.frames_per_s > 0.01:
        e = replace(e, offered_s=cameras / load.frames_per_s)
    if load.apart != e.apart:
        e = replace(e, apart=load.apart)
    if 0 < load.mean_weight <= MAX_WEIGHT:
        e = replace(e, mean_weight=load.mean_weight)
    return e


def chosen(e: Economy, waiting: Waiting, now_s: float) -> tuple[Option | None, int, float, float]:
    """As `choice.choose`, of a Waiting that is checked here."""
    frames = min(max(1, waiting.frames), e.tables.cameras)
    weights = [w / e.mean_weight if 0 <= w <= MAX_WEIGHT else 1.0 for w in waiting.weights[:frames]]
    asked = Asked(
        age_s=waiting.age_ms / 1000 if 0 <= waiting.age_ms < MAX_MS else 0.0,
        round_s=waiting.period_ms / 1000 if 0 < waiting.period_ms < MAX_MS else e.round_s,
        frames=frames,
        contrast=_share(waiting.contrast),
        weights=weights if len(weights) == frames else (),
        cameras=waiting.cameras[:frames] if len(waiting.cameras) >= frames else (),
        last=None if waiting.last is None else e.tables.index(waiting.last),
        clock=e.clock if waiting.clock is None or not 0 <= waiting.clock < e.tables.clocks else waiting.clock,
        may_switch_clock=waiting.may_switch_clock,
    )
    return dispatch.choose(e, asked, now_s)


def escalated(e: Economy, done: BatchDone, frame: int, weight: float, age_ms: float, period_ms: float) -> int | None:
    """As `choice.escalate`, of a BatchDone that is checked here."""
    first = e.tables.index(done.variant)
    if first is None or not 0 <= frame < len(done.confidences) or not 0 <= done.confidences[frame] <= 1.5:
        return None
    if not (0 <= age_ms < MAX_MS and 0 < period_ms < MAX_MS and 0 <= weight <= MAX_WEIGHT):
        return None
    camera = done.cameras[frame] if frame < len(done.cameras) else ""
    return dispatch.escalate(
        e, first, done.confidences[frame], camera, weight / e.mean_weight, _share(done.contrast), age_ms / 1000,
        period_ms / 1000, e.clock, e.latency.learnt_s,
    )  # fmt: skip


def _within(value: float | None, low: float, high: float) -> float | None:
    return value if value is not None and low <= value <= high else None


def _share(value: float | None) -> float | None:
    return _within(value, 0.0, 1.0)
