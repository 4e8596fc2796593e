"""What another budget would have done: the recorded frames, latencies, watts and degrees against a governor anew. Pure.

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
from edged.governor import governor
from edged.governor.helm import Again, Answer, Asked, Helm, Start, Tap
from edged.governor.messages import (
    BatchDone,
    Budget,
    BudgetChanged,
    Choice,
    Device,
    Sensed,
    Skipped,
    Tick,
    Waiting,
)
from edged.governor.standing import State

NEAR_S: Final = 30.0
STEP_NS: Final = NS_PER_S // 10
Change = Callable[[Budget], Budget]


class Recorded:
    """What a recorded run showed, by time; its replay tells it (`see` is a tap)."""

    def __init__(self) -> None:
        self.first: tuple[int, Asked, State] | None = None
        self._warm_ms: dict[str, tuple[float, ...]] = {}
        self._any: list[tuple[int, float]] = []
        self._own: dict[str, list[tuple[int, float]]] = {}
        self._confidences: list[tuple[int, float]] = []
        self._joules: list[tuple[int, dict[tuple[str, int], float]]] = []

    def see(self, now_ns: int, asked: Asked, answer: Answer, state: State) -> None:
        if self.first is None:
            self.first = (now_ns, asked, state)
        match asked:
            case BatchDone():
                self._batch(now_ns, asked, state)
            case Tick():
                known = {
                    (v.name, k): joules
                    for v in state.variants
                    for k in range(1, max(1, len(v.latency_ms)) + 1)
                    if (joules := governor.energy_j(state, v.name, k)) is not None
                }
                self._joules.append((now_ns, known))

    def _batch(self, now_ns: int, done: BatchDone, state: State) -> None:
        self._warm_ms = {v.name: v.latency_ms for v in state.variants}
        if warm_ms := self._profile_ms(done.variant, done.batch):
            ratio = (now_ns, done.service_ms / warm_ms)
            self._any.append(ratio)
            self._own.setdefault(done.variant, []).append(ratio)
        if done.confidences and not done.again:
            self._confidences.append((now_ns, sum(done.confidences) / len(done.confidences)))

    def service_ms(self, variant: str, batch: int, now_ns: int) -> float:
        near = _nearest(self._own.get(variant, []), now_ns)
        if near is None or abs(near[0] - now_ns) > NEAR_S * NS_PER_S:
            near = _nearest(self._any, now_ns)
        return (self._profile_ms(variant, batch) or 1.0) * (near[1] if near else 1.0)

    def confidence(self, now_ns: int) -> float | None:
        near = _nearest(self._confidences, now_ns)
        return None if near is None else near[1]

    def joules(self, done: BatchDone, now_ns: int) -> float | None:
        """Of all its frames, as estimated then."""
        if not self._joules:
            return None
        i = bisect_right(self._joules, now_ns, key=lambda known: known[0]) - 1
        each = self._joules[max(0, i)][1].get((done.variant, done.batch))
        return None if each is None else each * done.batch * done.serial

    def _profile_ms(self, variant: str, batch: int) -> float:
        warm = self._warm_ms.get(variant, ())
        if not warm:
            return 0.0
        return warm[batch - 1] if batch <= len(warm) else warm[-1] * batch / len(warm)


class Difference:
    """What other joules than the recorded ones do to the sensors. Heat and the power sensor's lag and averaging are
    linear, so the difference alone is followed, in steps of STEP_NS, and laid over what was recorded."""

    def __init__(self, device: Device, now_ns: int) -> None:
        self._device = device
        self._bins: dict[int, float] = {}
        self._lag = max(2, round(device.sensor_lag_s * NS_PER_S / STEP_NS))
        self._gain = 1.0 - math.exp(-STEP_NS / NS_PER_S / max(1e-6, device.sensor_mean_s))
        self._next = now_ns // STEP_NS
        self._late: list[float] = [0.0] * self._lag
        self.power_w = self.junction_c = self._sink_c = 0.0

    def add(self, begin_ns: int, end_ns: int, joules: float) -> None:
        """Spread evenly over a batch's time; what is already told of counts as of now."""
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
    waiting: Waiting


class Counterfactual:
    """The governor under the changed budget: `see` every recorded call once more, in order; the tap sees the run that
    never was."""

    def __init__(self, recorded: Recorded, change: Change, tap: Tap) -> None:
        assert recorded.first is not None
        first_ns, asked, state = recorded.first
        self._recorded, self._change, self._tap, self._first_ns = recorded, change, tap, first_ns
        if not isinstance(asked, Start):  # else `see` begins
            self._begin(Helm.resumed(state, tap), first_ns)
            self._helm.observe(BudgetChanged(change(state.budget)), first_ns)

    def _begin(self, helm: Helm, now_ns: int) -> None:
        """A run of the daemon, from its start or from where the log begins."""
        self._helm = helm
        self._difference = Difference(helm.state.economy.tables.device, now_ns)
        self._queue: list[int] = []  # capture times of the frames that wait
        self._left = 0  # of the recorded frames that waited, those that stayed
        self._flight: _Flight | None = None
        self._last: str | None = None
        self._like: Waiting | None = None
        self._known_j = True

    def see(self, now_ns: int, asked: Asked, answer: Answer) -> None:
        if now_ns < self._first_ns:  # what led to it is not in the log
            return
        if isinstance(asked, Start):
            self._begin(Helm(asked.variants, self._change(asked.budget), now_ns, asked.device, self._tap), now_ns)
            return
        self._land(now_ns)
        match asked:
            case Again():
                return
            case Waiting():
                self._arrive(asked, answer, now_ns)
            case BatchDone():
                begin_ns = now_ns - round(asked.service_ms * asked.serial * NS_PER_MS)
                self._book(asked, begin_ns, now_ns, -1)
            case Skipped():
                self._left = max(0, self._left - asked.frames)
                if asked.late and not self._queue:
                    self._helm.observe(asked, now_ns)
            case Sensed():
                self._helm.observe(self._sensed(asked, now_ns), now_ns)
            case BudgetChanged(budget):
                self._helm.observe(BudgetChanged(self._change(budget)), now_ns)
            case _:
                self._helm.observe(asked, now_ns)

    def _arrive(self, waiting: Waiting, answer: Answer, now_ns: int) -> None:
        """Those of the frames that wait which did not wait before."""
        new = max(0, waiting.frames - self._left)
        taken = answer.frames if isinstance(answer, Choice) and answer.variant is not None else 0
        self._left = max(0, waiting.frames - taken)
        captured_ns = now_ns - round(waiting.age_ms * NS_PER_MS)
        self._queue += [captured_ns] * new
        self._like = waiting
        gone = len(self._queue) - max(waiting.frames, len(waiting.cameras), self._helm.state.cameras)
        if gone > 0:  # a newer frame of the same camera takes its place
            del self._queue[:gone]
            self._helm.observe(Skipped(gone, False), now_ns)
        self._serve(now_ns)

    def _serve(self, now_ns: int) -> None:
        """Choose for what waits, if the engine is free."""
        like, budget = self._like, self._helm.state.budget
        if self._flight is not None or like is None:
            return
        fresh = [at for at in self._queue if now_ns - at < budget.deadline_ms * NS_PER_MS]
        if len(fresh) < len(self._queue):
            self._helm.observe(Skipped(len(self._queue) - len(fresh), True), now_ns)
        self._queue = fresh
        if not fresh:
            return
        age_ms = (now_ns - fresh[0]) / NS_PER_MS
        n = len(fresh)
        waiting = replace(
            like, frames=n, age_ms=age_ms, last=self._last, weights=like.weights[:n], cameras=like.cameras[:n]
        )
        choice = self._helm.choose(waiting, now_ns)
        if choice.variant is None or choice.frames < 1:
            self._queue = []
            late = budget.of_all_frames and not self._helm.state.economy.rationed
            self._helm.observe(Skipped(n, late), now_ns)
            return
        del self._queue[: choice.frames]
        batch = max(1, min(choice.batch, choice.frames))
        serial = max(1, choice.frames // batch)
        self._fly(choice.variant, batch, serial, age_ms, waiting, now_ns)

    def _fly(
        self, variant: str, batch: int, serial: int, lead_ms: float, waiting: Waiting, now_ns: int, again: bool = False
    ) -> None:
        service_ms = self._recorded.service_ms(variant, batch, now_ns)
        deadline_ms = self._helm.state.budget.deadline_ms
        late = sum(batch for k in range(1, serial + 1) if lead_ms + k * service_ms > deadline_ms)
        sure = self._recorded.confidence(now_ns)
        confidences = () if sure is None else (sure,) * min(batch * serial, 64)
        cameras = waiting.cameras[: len(confidences)] if len(waiting.cameras) >= len(confidences) else ()
        done = BatchDone(
            variant, batch, service_ms, lead_ms, late, confidences, waiting.contrast, waiting.clock, serial,
            again=again, cameras=cameras,
        )  # fmt: skip
        end_ns = now_ns + round(serial * service_ms * NS_PER_MS)
        self._book(done, now_ns, end_ns, +1)
        self._flight = _Flight(end_ns, done, waiting)

    def _land(self, now_ns: int) -> None:
        """What ends before `now_ns`, and what is begun when it does."""
        while self._flight is not None and self._flight.end_ns <= now_ns:
            flight, self._flight = self._flight, None
            done, end_ns = flight.done, flight.end_ns
            self._last = done.variant
            self._helm.observe(done, end_ns)
            age_ms = done.lead_ms + done.service_ms * done.serial
            if done.batch * done.serial == 1 and not done.again and done.confidences:
                period_ms = flight.waiting.period_ms
                again = self._helm.escalate(done, age_ms, period_ms, now_ns=end_ns)
                if again is not None:
                    self._fly(again, 1, 1, age_ms, flight.waiting, end_ns, again=True)
                    continue
            self._serve(end_ns)

    def _book(self, done: BatchDone, begin_ns: int, end_ns: int, sign: int) -> None:
        joules = self._recorded.joules(done, end_ns)
        if joules is None:
            self._known_j = False
        else:
            self._difference.add(begin_ns, end_ns, sign * joules)

    def _sensed(self, said: Sensed, now_ns: int) -> Sensed:
        """The recorded reading, as it would have been."""
        self._difference.advance(now_ns)
        if not self._known_j:
            return replace(said, power_w=None, temperature_c=None, power_estimated=True)
        more_w, warmer_c = self._difference.power_w, self._difference.junction_c
        return replace(
            said,
            power_w=None if said.power_w is None else max(0.0, said.power_w + more_w),
            temperature_c=None if said.temperature_c is None else said.temperature_c + warmer_c,
            power_estimated=True,
        )


def _nearest(times: Sequence[tuple[int, float]], now_ns: int) -> tuple[int, float] | None:
    if not times:
        return None
    i = bisect_left(times, (now_ns, 0.0))
    return min(times[max(0, i - 1) : i + 1], key=lambda found: abs(found[0] - now_ns))
