"""The fast path: the frames that wait in, what to run them on out; and whether a result is worth another run. Pure.

Microseconds, before each batch: of all options the one that earns most after prices, against giving the frames up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from edged.governor.estimators import difficulty as scene
from edged.governor.planner.options import Option
from edged.governor.state import Economy

SETTLE_FRAMES: Final = 12
"""For so many rounds a change is expected to last that leads to a variant which is better to live with."""
TRY_WORTH: Final = 1.0
TRIES: Final = 3
"""A variant that has hardly run here is worth a few tries for the knowledge, even if its frame comes late."""
RETRY_S: Final = 300.0
"""One that has not run for so long is worth another try: what was learnt of it may be so no more."""
TRY_AFTER_S: Final = 2.0
TRY_SHARE: Final = 0.02
TRY_LEAST: Final = 0.1
"""Of the late frames that the quantile still allows, this share may go to single frames on a variant that has not run
for so long and would be the best if only it came on time: what kept it from that may be over, and only a run can tell.
If next to none are left, they count as if TRY_LEAST were."""
ESCALATE_GAIN: Final = 0.002
OBSERVED_SHARE: Final = 0.65
"""Weight of the result's own confidence against the prediction, when a frame may be run again."""
ROUND_TRIP: Final = 2.0
"""Changes that an escalation costs."""


@dataclass(frozen=True)
class Asked:
    """A checked Waiting. `weights` and `cameras` are empty or one per frame; weights are relative to their mean."""

    age_s: float
    round_s: float
    frames: int
    contrast: float | None
    weights: Sequence[float]
    cameras: Sequence[str]
    last: int | None
    clock: int
    may_switch_clock: bool


def choose(e: Economy, asked: Asked, now_s: float) -> tuple[Option | None, int, float, float]:
    """(option, or None to give the frames up; clock; value; value of giving up)."""
    known, plan, pace, device = e.tables, e.plan, e.latency, e.tables.device
    frames, last, age_s = min(asked.frames, known.cameras), asked.last, asked.age_s
    run_at = plan.clock if asked.may_switch_clock and not device.held else asked.clock
    if run_at != asked.clock:
        age_s += device.clock_switch_ms / 1000
    # frames that come one by one, not all at once, leave that much less time to the next
    next_s = asked.round_s * frames / known.cameras
    left_s = e.budget.deadline_ms / 1000 - age_s
    log_left, log_stalled = math.log(max(1e-4, left_s)), math.log(max(1e-4, left_s - device.switch_ms / 1000))
    late, price, log_times = e.late_price, e.price, known.log_times
    counted, hard = _worths(e, asked, frames)
    change_price = e.switching.price(now_s)
    allowed = _allowed(e, asked, frames)
    stuck = last is not None and allowed[1][last] and e.switching.available(now_s) < 1.0
    best, best_value, variant = None, -math.inf, -1
    usual_s = log_usual = easy = slope = cost = extra = settles = 0.0
    for i in known.offers[frames]:
        option = known.options[i]
        if option.variant != variant:
            variant = option.variant
            usual_s = e.usual_s(variant, run_at)
            log_usual, easy, slope = math.log(usual_s), known.easy[variant], known.slope[variant]
            cost = price * e.joule(variant, run_at)
            untried = pace.runs[variant] < TRIES or now_s - pace.ran_s[variant] > RETRY_S
            extra = TRY_WORTH if untried else 0.0
            settles = 0.0 if last is None else SETTLE_FRAMES * max(0.0, plan.home[variant] - plan.home[last])
        k = option.frames
        if not allowed[k][variant] or (stuck and variant != last):
            continue
        worth = easy * counted[k] - slope * hard[k] + late * k
        log_available = log_left - log_usual - log_times[i]
        on_time = pace.on_time(log_available)
        value = on_time * worth - late * k - cost * option.times + extra
        value += plan.ahead(age_s + usual_s * option.times - next_s)
        if last is not None and variant != last:
            stalled = pace.on_time(log_available - log_left + log_stalled)
            value -= change_price + max(0.0, (on_time - stalled) * worth - settles)
        if value > best_value:
            best, best_value = option, value
    skip_value = plan.ahead(age_s - next_s) - e.given_up_price(price) * frames
    if best is None or best_value <= skip_value:
        return None, run_at, best_value, skip_value
    if best.frames == 1 and not stuck:
        best = _worth_trying(e, asked, best, allowed[1], (counted[1], hard[1]), run_at, age_s, now_s) or best
    return best, run_at, best_value, skip_value


def _worth_trying(
    e: Economy, asked: Asked, best: Option, allowed: Sequence[bool], worths: tuple[float, float], run_at: int,
    age_s: float, now_s: float,
) -> Option | None:  # fmt: skip
    """A variant for this one frame that would be the better one if it came on time, if it is time to find out."""
    known, plan, pace = e.tables, e.plan, e.latency
    next_s, left_s = asked.round_s / known.cameras, e.budget.deadline_ms / 1000 - age_s

    def earned(variant: int) -> float:
        worth = known.easy[variant] * worths[0] - known.slope[variant] * worths[1]
        return worth - e.price * e.joule(variant, run_at) + plan.ahead(age_s + e.usual_s(variant, run_at) - next_s)

    for variant in range(best.variant):
        rested_s = now_s - pace.ran_s[variant]
        if not allowed[variant] or rested_s < TRY_AFTER_S or earned(variant) <= earned(best.variant):
            continue
        risk = 1.0 - pace.on_time(math.log(max(1e-4, left_s) / e.usual_s(variant, run_at)))
        quantile = e.budget.deadline_quantile
        spare = max(TRY_LEAST, 1.0 - e.spending.late_used(quantile)) * (1.0 - quantile) / next_s
        if risk < TRY_SHARE * spare * rested_s:
            return known.options[next(i for i in known.offers[1] if known.options[i].variant == variant)]
    return None


def _allowed(e: Economy, asked: Asked, frames: int) -> Sequence[Sequence[bool]]:
    """Of the first k frames, by k: what may run on all their cameras, by variant. For one frame there is always one."""
    if not e.allowed_apart or not asked.cameras:
        return (e.allowed,) * (frames + 1)
    found: list[Sequence[bool]] = [e.allowed, e.allowed_on(asked.cameras[0])]
    for camera in asked.cameras[1:frames]:
        found.append([before and here for before, here in zip(found[-1], e.allowed_on(camera), strict=True)])
    return found


def _worths(e: Economy, asked: Asked, frames: int) -> tuple[Sequence[float], Sequence[float]]:
    """Of the first k frames, by k: the sum of their weights, and that of weight times expected difficulty."""
    if not asked.cameras and not asked.weights:
        difficulty = e.scene.predict(asked.contrast)
        return range(frames + 1), [difficulty * k for k in range(frames + 1)]
    weights = asked.weights or (1.0,) * frames
    difficulties = [e.scene.predict(asked.contrast, camera) for camera in asked.cameras or ("",) * frames]
    hard = accumulate([w * d for w, d in zip(weights, difficulties, strict=True)], initial=0.0)
    return list(accumulate(weights, initial=0.0)), list(hard)


def escalate(
    e: Economy, first: int, confidence: float, camera: str, weight: float, contrast: float | None, age_s: float,
    round_s: float, clock: int, now_s: float,
) -> int | None:  # fmt: skip
    """The variant to run the same frame again on, if it gains more than its joules, its delay and the result in hand
    are worth: only the second result counts, and it may come too late."""
    known, plan = e.tables, e.plan
    predicted = e.scene.predict(contrast, camera)
    difficulty = (1 - OBSERVED_SHARE) * predicted + OBSERVED_SHARE * scene.observed(confidence)
    expected = [easy - slope * difficulty for easy, slope in zip(known.easy, known.slope, strict=True)]
    allowed = e.allowed_on(camera)
    second = max((i for i in range(len(known.names)) if allowed[i]), key=lambda i: expected[i])
    gained = weight * (expected[second] - expected[first])
    if second == first or gained <= 0 or e.switching.available(now_s) < ROUND_TRIP:
        return None
    usual_s = e.usual_s(second, clock)
    stall_s = known.device.switch_ms / 1000
    left_s = e.budget.deadline_ms / 1000 - age_s - stall_s
    if left_s <= 0.6 * usual_s:
        return None
    on_time = e.latency.on_time(math.log(left_s / usual_s))
    next_s = round_s * e.together / e.cameras
    delay = plan.ahead(age_s + usual_s + stall_s - next_s) - plan.ahead(age_s - next_s)
    lost = (1.0 - on_time) * (weight * expected[first] + e.late_price)
    return second if on_time * gained - lost - e.price * e.joule(second, clock) + delay > ESCALATE_GAIN else None
