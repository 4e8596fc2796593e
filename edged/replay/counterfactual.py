"""What another budget would have done: the recorded frames, latencies, watts and degrees against a new governor. Pure.

The method, and its limits. The frames that waited arrive when they did; the governor, under the changed budget, chooses
for them. A batch takes what its variant's profile says, times the slow-down that the recording shows nearest in time:
that variant's own if it ran within NEAR_S, else any. Its joules, and those of the recorded batches, are the estimates
that the recorded governor had then; the device's power is the measured one, less the recorded batches' joules, plus
these. The temperature is the measured one plus what the difference in power does to the device's two heat nodes. So
power and temperature are estimates; throttling, leakage and a battery's charge stay as recorded.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from edged.clock import NS_PER_MS, NS_PER_S
from edged.governor.governor import Governor, OnCall
from edged.governor.messages import (
    Answer,
    BatchDone,
    Budget,
    BudgetChanged,
    Choice,
    Device,
    Request,
    Sensed,
    Skipped,
    Start,
    Tick,
    Variant,
    Waiting,
)
from edged.governor.state import State

NEAR_S: Final = 30.0
STEP_NS: Final = NS_PER_S // 10
Change = Callable[[Budget], Budget]


class Recorded:
    """What a recorded run showed, by time; its replay reports it with `on_call`. `first`: the first call and a snapshot
    of the state after it."""

    def __init__(self) -> None:
        self.first: tuple[int, Request, State] | None = None
        self._warm_ms: dict[str, tuple[float, ...]] = {}
        self._any: list[tuple[int, float]] = []
        self._own: dict[str, list[tuple[int, float]]] = {}
        self._joules: list[tuple[int, dict[tuple[str, int], float]]] = []

    def on_call(self, now_ns: int, request: Request, answer: Answer, governor: Governor) -> None:
        if self.first is None:
            self.first = (now_ns, request, governor.snapshot())
        match request:
            case BatchDone():
                self._batch(now_ns, request, governor.state.variants)
            case Tick():
                known = {
                    (v.name, k): joules
                    for v in governor.state.variants
                    for k in range(1, max(1, len(v.latency_ms)) + 1)
                    if (joules := governor.energy_j(v.name, k)) is not None
                }
                self._joules.append((now_ns, known))

    def _batch(self, now_ns: int, done: BatchDone, variants: Sequence[Variant]) -> None:
        self._warm_ms = {v.name: v.latency_ms for v in variants}
        if warm_ms := self._profile_ms(done.variant, done.batch):
            ratio = (now_ns, done.service_ms / warm_ms)
            self._any.append(ratio)
            self._own.setdefault(done.variant, []).append(ratio)

    def service_ms(self, variant: str, batch: int, now_ns: int) -> float:
        near = _nearest(self._own.get(variant, []), now_ns)
        if near is None or abs(near[0] - now_ns) > NEAR_S * NS_PER_S:
            near = _nearest(self._any, now_ns)
        return (self._profile_ms(variant, batch) or 1.0) * (near[1] if near else 1.0)

    def joules(self, done: BatchDone, now_ns: int) -> float | None:
        """Of all its frames, as estimated then."""
        if not self._joules:
            return None
        i = bisect_right(self._joules, now_ns, key=lambda known: known[0]) - 1
        each = self._joules[max(0, i)][1].get((done.variant, done.batch))
        return None if each is None else each * done.batch

    def _profile_ms(self, variant: str, batch: int) -> float:
        warm = self._warm_ms.get(variant, ())
        if not warm:
            return 0.0
        return warm[batch - 1] if batch <= len(warm) else warm[-1] * batch / len(warm)


class Difference:
    """What other joules than the recorded ones do to the sensors. Heat and the power sensor's lag and averaging are
    linear, so the difference alone is followed, in steps of STEP_NS, and laid over what was recorded."""

    def __init__(self, device: Device, lag_s: float, mean_s: float, now_ns: int) -> None:
        self._device = device
        self._bins: dict[int, float] = {}
        self._lag = max(2, round(lag_s * NS_PER_S / STEP_NS))
        self._gain = 1.0 - math.exp(-STEP_NS / NS_PER_S / max(1e-6, mean_s))
        self._next = now_ns // STEP_NS
        self._late: list[float] = [0.0] * self._lag
        self.power_w = self.junction_c = self._sink_c = 0.0

    def add(self, begin_ns: int, end_ns: int, joules: float) -> None:
        """Spread evenly over a batch's time; what is already known counts as of now."""
        first, last = begin_ns // STEP_NS, max(begin_ns, end_ns) // STEP_NS
        for k in range(first, last + 1):
            at = max(self._next, k)
            self._bins[at] = self._bins.get(at, 0.0) + joules / (last + 1 - first)

    def advance(self, now_ns: int) -> None:
        d, step_s = self._device, STEP_NS / NS_PER_S
        while self._next < now_ns // STEP_NS:
            more_w = self._bins.pop(self._next, 0.0) / step_s
            self._next += 1
            flow_w = (self.junction_c - self._sink_c) / d.junction_sink_c_per_w
            self.junction_c += step_s * (more_w - flow_w) / d.junction_j_per_c
            self._sink_c += step_s * (flow_w - self._sink_c / d.sink_air_c_per_w) / d.sink_j_per_c
            self._late.append(more_w)
            self.power_w += self._gain * (self._late.pop(0) - self.power_w)


@dataclass
class _Flight:
    """What the engine is busy with."""

    end_ns: int
    done: BatchDone


class Counterfactual:
    """The governor under the changed budget: `observe` every recorded call again, in order; `on_call` gets those of the
    counterfactual run."""

    def __init__(self, recorded: Recorded, change: Change, on_call: OnCall) -> None:
        assert recorded.first is not None
        first_ns, request, state = recorded.first
        self._recorded, self._change, self._on_call, self._first_ns = recorded, change, on_call, first_ns
        if not isinstance(request, Start):  # else `observe` begins
            self._begin(Governor.resumed(state, on_call), first_ns)
            self._governor.observe(BudgetChanged(change(state.budget)), first_ns)

    def _begin(self, governor: Governor, now_ns: int) -> None:
        """A run of the daemon, from its start or from where the log begins."""
        self._governor, power = governor, governor.state.power
        self._difference = Difference(governor.state.device, power.lag_s, power.mean_s, now_ns)
        self._queue: list[int] = []  # capture times of the frames that wait
        self._left = 0  # of the recorded frames that waited, those that stayed
        self._flight: _Flight | None = None
        self._last: str | None = None
        self._like: Waiting | None = None
        self._known_j = True

    def observe(self, now_ns: int, request: Request, answer: Answer) -> None:
        if now_ns < self._first_ns:  # what led to it is not in the log
            return
        if isinstance(request, Start):
            budget = self._change(request.budget)
            self._begin(Governor(request.variants, budget, now_ns, request.device, self._on_call), now_ns)
            return
        self._land(now_ns)
        match request:
            case Waiting():
                self._arrive(request, answer, now_ns)
            case BatchDone():
                self._count(request, now_ns - round(request.service_ms * NS_PER_MS), now_ns, -1)
            case Skipped():
                self._left = max(0, self._left - request.frames)
                if request.late and not self._queue:
                    self._governor.observe(request, now_ns)
            case Sensed():
                self._governor.observe(self._sensed(request, now_ns), now_ns)
            case BudgetChanged(budget):
                self._governor.observe(BudgetChanged(self._change(budget)), now_ns)
            case _:
                self._governor.observe(request, now_ns)

    def _arrive(self, waiting: Waiting, answer: Answer, now_ns: int) -> None:
        """Those of the frames that wait which did not wait before."""
        new = max(0, waiting.frames - self._left)
        taken = answer.frames if isinstance(answer, Choice) and answer.variant is not None else 0
        self._left = max(0, waiting.frames - taken)
        captured_ns = now_ns - round(waiting.age_ms * NS_PER_MS)
        self._queue += [captured_ns] * new
        self._like = waiting
        replaced = len(self._queue) - max(waiting.frames, len(waiting.cameras), self._governor.state.cameras)
        if replaced > 0:  # a newer frame of the same camera takes its place
            del self._queue[:replaced]
            self._governor.observe(Skipped(replaced, False), now_ns)
        self._serve(now_ns)

    def _serve(self, now_ns: int) -> None:
        """Choose for what waits, if the engine is free."""
        like, budget = self._like, self._governor.state.budget
        if self._flight is not None or like is None:
            return
        fresh = [at for at in self._queue if now_ns - at < budget.deadline_ms * NS_PER_MS]
        if len(fresh) < len(self._queue):
            self._governor.observe(Skipped(len(self._queue) - len(fresh), True), now_ns)
        self._queue = fresh
        if not fresh:
            return
        age_ms = (now_ns - fresh[0]) / NS_PER_MS
        n = len(fresh)
        waiting = like._replace(
            frames=n, age_ms=age_ms, last=self._last, weights=like.weights[:n], cameras=like.cameras[:n]
        )
        choice = self._governor.choose(waiting, now_ns)
        if choice.variant is None:
            self._queue = []
            self._governor.observe(Skipped(n, choice.cause != "budget"), now_ns)
            return
        del self._queue[: choice.frames]
        self._run(choice.variant, choice.frames, age_ms, waiting.clock, now_ns)

    def _run(self, variant: str, batch: int, wait_ms: float, clock: int | None, now_ns: int) -> None:
        service_ms = self._recorded.service_ms(variant, batch, now_ns)
        late = batch if wait_ms + service_ms > self._governor.state.budget.deadline_ms else 0
        done = BatchDone(variant, batch, service_ms, wait_ms, late, clock)
        end_ns = now_ns + round(service_ms * NS_PER_MS)
        self._count(done, now_ns, end_ns, +1)
        self._flight = _Flight(end_ns, done)

    def _land(self, now_ns: int) -> None:
        """What ends before `now_ns`, and what is begun when it does."""
        while self._flight is not None and self._flight.end_ns <= now_ns:
            flight, self._flight = self._flight, None
            self._last = flight.done.variant
            self._governor.observe(flight.done, flight.end_ns)
            self._serve(flight.end_ns)

    def _count(self, done: BatchDone, begin_ns: int, end_ns: int, sign: int) -> None:
        joules = self._recorded.joules(done, end_ns)
        if joules is None:
            self._known_j = False
        else:
            self._difference.add(begin_ns, end_ns, sign * joules)

    def _sensed(self, sample: Sensed, now_ns: int) -> Sensed:
        """The recorded reading, as it would have been."""
        self._difference.advance(now_ns)
        if not self._known_j:
            return replace(sample, power_w=None, temperature_c=None, power_estimated=True)
        more_w, warmer_c = self._difference.power_w, self._difference.junction_c
        return replace(
            sample,
            power_w=None if sample.power_w is None else max(0.0, sample.power_w + more_w),
            temperature_c=None if sample.temperature_c is None else sample.temperature_c + warmer_c,
            power_estimated=True,
        )


def _nearest(times: Sequence[tuple[int, float]], now_ns: int) -> tuple[int, float] | None:
    if not times:
        return None
    i = bisect_left(times, (now_ns, 0.0))
    return min(times[max(0, i - 1) : i + 1], key=lambda found: abs(found[0] - now_ns))
