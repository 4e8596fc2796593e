"""The fast path: the frames that wait in, the next batch out. Pure; some tens of microseconds before each batch.

Equation D1: of all options the one of greatest value after prices, against the value of dropping the frames. The hot
loop is written without calls and attribute look-ups where they cost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from edged.governor.estimators.latency import BIN, EXPLORE_AGAIN_S, LOW
from edged.governor.messages import Cause, Choice, Waiting
from edged.governor.state import State

CHANGE_PRICE: Final = 0.0015  # accuracy that a change of variant must gain: it keeps ties from alternating
EXPLORE: Final = 1.0
EXPLORE_RUNS: Final = 3
"""A variant that has hardly run here is worth a few tries for the knowledge, even if its frame comes late."""
OPTIMISM: Final = 3.0
"""Standard deviations by which it may be faster than it seems; one that would be late even so is not tried."""
EXPLORE_WINDOW: Final = 0.95
"""Tries of unknown power end where the rolling mean allows less than this share of its limit: what a slow sensor has
not shown yet may be more than was guessed."""
EXPLORE_POWER_RUNS: Final = 45
"""At most so many tries at no price until the watts of a variant without a profile are known."""


def choose(state: State, waiting: Waiting, now_s: float) -> Choice:
    """`waiting` is checked; of more frames than cameras the first are chosen for."""
    known, plan, latency = state.tables, state.plan, state.latency
    frames = min(waiting.frames, known.cameras)
    clock = state.clock if waiting.clock is None else waiting.clock
    age_s = waiting.age_ms / 1000
    next_s = frames * state.offered_s / state.cameras  # frames that do not run now are dropped, or chosen for again
    left_s = max(1e-4, state.budget.deadline_ms / 1000 - age_s)
    price, late = state.price, state.late_price
    relative, step_s = plan.relative_value, plan.step_s
    top = len(relative) - 1
    below, bins = latency.noise.below, len(latency.noise.below)
    counted: Sequence[float] = range(frames + 1)
    if waiting.weights:
        counted = list(accumulate(waiting.weights[:frames], initial=0.0))
    allowed = _allowed(state, waiting, frames)
    unlearnt = _unlearnt(state) if price and state.device.assumed else ()
    last = -1 if waiting.last is None else known.index(waiting.last)
    best, best_frames, best_value, shortest_s = -1, 0, -math.inf, math.inf
    variant, service_s, log_room, cost, accuracy, extra = -1, 0.0, 0.0, 0.0, 0.0, 0.0
    for option in known.offers[frames]:
        i, k, times, log_times = option
        if not allowed[k][i]:
            continue
        if i != variant:
            variant = i
            service_s = known.nominal_s[i][clock] * math.exp(latency.log_factor(i, clock))
            room = math.log(left_s / service_s)
            log_room = (room - LOW) / BIN
            guessed = i in unlearnt
            cost = price * state.joules(i, clock) if price and not guessed else 0.0
            accuracy = known.accuracy[i]
            untried = guessed or (
                (latency.runs[i] < EXPLORE_RUNS or now_s - latency.ran_s[i] > EXPLORE_AGAIN_S)
                and room > -OPTIMISM * latency.own_error(i, clock)
            )
            extra = (EXPLORE if untried else 0.0) - (CHANGE_PRICE if last is not None and 0 <= last != i else 0.0)
            shortest_s = min(shortest_s, service_s)
        at = log_room - log_times / BIN
        b = int(at)
        on_time = 0.0 if at <= 1.0 else below[-1] if b >= bins else below[b - 1] + (at - b) * (below[b] - below[b - 1])
        backlog = (age_s + service_s * times - next_s) / step_s
        if backlog <= 0.0:
            ahead = relative[0]
        elif backlog >= top:
            ahead = relative[top]
        else:
            b = int(backlog)
            ahead = relative[b] + (backlog - b) * (relative[b + 1] - relative[b])
        value = on_time * (accuracy * counted[k] + late * k) - late * k - cost * times + ahead + extra
        if value > best_value:
            best, best_frames, best_value = i, k, value
    skip_value = _ahead(relative, (age_s - next_s) / step_s) - state.drop_penalty(price) * frames
    if best >= 0 and (best_value > skip_value or waiting.required > 0):
        return Choice(known.names[best], best_frames, "none", best_value, skip_value)
    cause: Cause = "budget" if price > 0 else "late" if left_s < shortest_s else "overload"
    return Choice(None, 0, cause, best_value, skip_value)


def _unlearnt(state: State) -> Sequence[int]:
    """The variants whose watts are a guess that a few tries may settle, while there is energy for them."""
    allowed = state.plan.allowed
    if state.plan.target_j <= 0.0 or allowed.window_w < EXPLORE_WINDOW * allowed.cap_w:
        return ()
    runs, power, clock = state.latency.runs, state.power, state.clock
    guessed = enumerate(state.tables.assumed)
    return [i for i, guess in guessed if guess and runs[i] < EXPLORE_POWER_RUNS and not power.learnt(i, clock)]


def _ahead(relative: Sequence[float], backlog: float) -> float:
    """H of the backlog that is left to the next frame, interpolated."""
    if backlog <= 0.0:
        return relative[0]
    k = int(backlog)
    if k >= len(relative) - 1:
        return relative[-1]
    return relative[k] + (backlog - k) * (relative[k + 1] - relative[k])


def _allowed(state: State, waiting: Waiting, frames: int) -> Sequence[Sequence[bool]]:
    """Of the first k frames, by k: what may run on all their cameras, by variant. For one frame there is always one."""
    if not state.camera_candidates or not waiting.cameras:
        return (state.candidates,) * (frames + 1)
    found: list[Sequence[bool]] = [state.candidates]
    for camera in waiting.cameras[:frames]:
        here = state.camera_candidates.get(camera, state.candidates)
        found.append(here if len(found) == 1 else [a and b for a, b in zip(found[-1], here, strict=True)])
    return found
