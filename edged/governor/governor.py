"""The governor: one object that the engine loop, the simulator, the arena and the replay drive. Pure: no I/O, no clock.

    governor = Governor(variants, budget, now_ns, device)   device: from a device profile, or None
    governor.observe(Workload(...), now_ns)                 at once, and then once a second
    governor.observe(Sensed(...), now_ns)                   every sample of the device
    governor.observe(Tick(), now_ns)                        twice a second: plans, some milliseconds
    governor.choose(Waiting(...), now_ns)                   before each batch; then observe Skipped, or run it and
                                                            observe BatchDone

When not all limits can be held they are relaxed in RELAX_ORDER, last first. `on_call` gets every call with its answer,
for the recorder. All calls come from one thread.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Final

from edged.errors import EdgedError, UsageError
from edged.governor import dispatch, explain, messages, profile
from edged.governor import state as states
from edged.governor.estimators.latency import plausible_ms
from edged.governor.messages import Answer, Budget, Choice, Decision, Device, Observation, Request, Variant, Waiting
from edged.governor.planner.replan import REPLAN_S, replan
from edged.governor.profile import MAX_BATCH, UNKNOWN
from edged.governor.state import Activity, State

SCHEDULE_QUANTILE: Final = 0.9
"""Of the service times given to the schedule."""
FIRST_FPS: Final = 30.0  # until the cameras are counted
FLOOR_HINT: Final = "lower [limits] min_accuracy, or add a more accurate variant to the bundle"
MAX_W: Final = 1e4
MAX_C: Final = 150.0
MIN_C: Final = -60.0
MAX_MS: Final = 1e6
MAX_WEIGHT: Final = 1e4
MAX_CAMERAS: Final = 256
QUIET: Final = Choice(None, 0, "budget", 0.0, 0.0)
IDLE_GUESS_W: Final = 5.0
"""Assumed of a device that reports its temperature alone: then watts are only a measure of heat."""

OnCall = Callable[[int, Request, Answer, "Governor"], None]
"""Called with (now_ns, request, answer, governor after it), in order, on the caller's thread. It must not raise."""


class Governor:
    def __init__(
        self,
        variants: Sequence[Variant],
        budget: Budget,
        now_ns: int,
        device: Device | None = None,
        on_call: OnCall | None = None,
    ) -> None:
        """Without a Device, budgets of power and energy are held from the first reading of power on, that of heat from
        the first temperature, by assumed watts that are learnt.

        Raises UsageError if no variant reaches min_accuracy, or for a device whose constants are not plausible."""
        if (why := refusal(variants, budget)) is not None:
            raise UsageError(why, FLOOR_HINT)
        if device is not None and not profile.is_plausible(device):
            raise UsageError(
                "the device profile is not plausible: a power or heat constant is not a positive number",
                "measure it again: edged-calibrate profile",
            )
        ranked = tuple(sorted((profile.checked(v) for v in variants), key=profile.rank))
        first = Decision("", 1, "none", "")
        self._on_call = on_call
        self.state = states.start(ranked, device or UNKNOWN, budget, FIRST_FPS, now_ns, first)
        self._permit()
        self.state.decision = explain.decide(self.state, 0.0, changed=True)
        if on_call is not None:
            on_call(now_ns, messages.Start(tuple(variants), budget, device), self.state.decision, self)

    @classmethod
    def resumed(cls, state: State, on_call: OnCall | None = None) -> Governor:
        """From a snapshot, which is copied."""
        governor = cls.__new__(cls)
        governor._on_call, governor.state = on_call, copy.deepcopy(state)
        return governor

    def snapshot(self) -> State:
        """A copy of the state, which itself changes with every call."""
        return copy.deepcopy(self.state)

    @property
    def decision(self) -> Decision:
        """What ran lately, and why: the same object while nothing is new."""
        return self.state.decision

    @property
    def energy_limited(self) -> bool:
        """Whether a joule has a price now: then a frame may be dropped to save it."""
        return self.state.price > 0

    def observe(self, observation: Observation, now_ns: int) -> Decision:
        """The Decision in force after it, the very same object while nothing is new.

        Raises EdgedError when the last variant is lost; UsageError, and nothing changed, for a pin on a variant that is
        not there and for a budget that no variant can hold."""
        before = self.state.decision
        self.state.decision = decision = self._observe(observation, self.state.seconds(now_ns))
        if self._on_call is not None:
            self._on_call(now_ns, observation, None if decision is before else decision, self)
        return decision

    def choose(self, waiting: Waiting, now_ns: int) -> Choice:
        """The next batch of the frames that wait. Report what came of it as BatchDone, or as Skipped."""
        state, checked, now_s = self.state, self._checked(waiting), self.state.seconds(now_ns)
        state.seen_waiting(checked.frames)
        quiet = state.is_quiet(now_s) and not checked.required
        choice = QUIET if quiet else dispatch.choose(state, checked, now_s)
        if self._on_call is not None:
            self._on_call(now_ns, waiting, choice, self)
        return choice

    def check(self, budget: Budget) -> None:
        """UsageError if no working variant could hold this budget, or not the pinned one. Nothing changes."""
        state = self.state
        working = [v for v, why in zip(state.variants, state.lost, strict=True) if why is None]
        if (why := refusal(working, budget)) is not None:
            raise UsageError(why, FLOOR_HINT)
        if state.pinned is not None:
            _check_floor(state.variants[state.pinned], budget)

    # --- for the schedule and the reports -----------------------------------------------------------------------------

    def predict_ms(self, variant: str) -> tuple[float, ...]:
        """Service time of a batch of 1, 2, ... of this variant as now expected (9 in 10 are faster). Empty while
        nothing is known."""
        state, i = self.state, self.state.tables.index(variant)
        if i is None or not state.variants[i].latency_ms:
            return ()
        scale = 1000 * state.service_s(i, state.clock) * state.latency.tail(SCHEDULE_QUANTILE)
        return tuple([scale * times for times in state.tables.times[i]])

    def schedule_ms(self) -> tuple[float, ...]:
        """The same of the fastest variant that may run; empty while nothing is known."""
        state, able = self.state, self._able()
        if not able:
            return ()
        return self.predict_ms(state.tables.names[min(able, key=lambda i: state.service_s(i, state.clock))])

    def least_ms(self) -> float:
        """A service time that no frame undercuts: the profile's, or less where this device has proved quicker. However
        slow it seems now, a frame with more time left is not late yet."""
        nominal_s, clock, latency = self.state.tables.nominal_s, self.state.clock, self.state.latency
        known_s = [nominal_s[i][clock] * math.exp(min(0.0, latency.log_factor(i, clock))) for i in self._able()]
        return 1000 * min(known_s, default=0.0)

    def _able(self) -> list[int]:
        """The variants that may run and of whose latency something is known."""
        state = self.state
        return [i for i, may in enumerate(state.candidates) if may and state.variants[i].latency_ms]

    @property
    def max_batch(self) -> int:
        """The largest worthwhile batch of any variant."""
        return self.state.tables.max_batch

    def energy_j(self, variant: str, batch: int) -> float | None:
        """Estimated of a frame of such a batch, above idle; None while nothing is known of the device's power."""
        state, i = self.state, self.state.tables.index(variant)
        if i is None or batch < 1 or not state.knows_power:
            return None
        return state.joules(i, state.clock) * state.tables.batch_times(i, batch) / batch

    def variant_for(self, camera: str) -> str:
        """What runs on a camera's frame without a choice: the Decision's variant, unless it may not run there."""
        state = self.state
        here = state.camera_candidates.get(camera, state.candidates)
        current = state.tables.index(state.decision.variant)
        return state.tables.names[current if current is not None and here[current] else here.index(True)]

    # --- observations -------------------------------------------------------------------------------------------------

    def _observe(self, observation: Observation, now_s: float) -> Decision:
        state = self.state
        match observation:
            case messages.BatchDone():
                self._batch_done(observation, now_s)
            case messages.Skipped(frames, late):
                if 0 < frames < 1e6:
                    state.skipped(frames, late)
            case messages.Sensed():
                self._sensed(observation, now_s)
            case messages.Tick():
                self._plan(now_s)
                decision = explain.decide(state, now_s)
                state.activity = [*state.activity[1:], Activity([0] * len(state.variants))]
                return decision
            case messages.Workload():
                return self._workload(observation, now_s)
            case messages.ShadowDone(variant, batch):
                i = state.tables.index(variant)
                if i is not None and 1 <= batch <= MAX_BATCH:
                    state.drawn(i, batch, 0.0, now_s)
            case _:
                return self._change(observation, now_s)
        return state.decision

    def _change(self, change: messages.Change, now_s: float) -> Decision:
        """What may run has changed, or a limit."""
        state = self.state
        match change:
            case messages.BudgetChanged(budget):
                self.check(budget)
                state.adapt(state.variants, budget, state.cameras, now_s)
            case messages.ClockRange(highest):
                state.set_clock_range(highest)
            case messages.Pinned(variant):
                state.pinned = None if variant is None else self._pin(variant)
                state.feedback.reset_lateness()
            case messages.VariantLost(variant, why):
                return self._lose(variant, why, now_s)
            case messages.Residency(variant, away, latency_ms):
                if (i := state.tables.index(variant)) is not None:
                    state.moved(i, away, latency_ms, now_s)
            case _:
                return self._veto(change, now_s)
        return self._new_terms(now_s)

    def _batch_done(self, done: messages.BatchDone, now_s: float) -> None:
        state, i = self.state, self.state.tables.index(done.variant)
        if i is None or not 1 <= done.batch <= MAX_BATCH or not plausible_ms(done.service_ms):
            return
        if done.clock is not None and 0 <= done.clock < state.tables.clocks:
            state.clock = done.clock
        if not state.variants[i].latency_ms:  # nothing was known of it until it ran here, pinned
            one = done.service_ms / done.batch / math.exp(state.latency.log_factor(i, state.clock))
            state.first_latency(i, tuple([one * k for k in range(1, done.batch + 1)]), now_s)
            self._permit()
        wait_ms = done.wait_ms if 0 <= done.wait_ms < MAX_MS else state.wait_ms
        state.ran(i, done.batch, done.service_ms / 1000, wait_ms, min(max(0, done.late), done.batch), now_s)

    def _sensed(self, sample: messages.Sensed, now_s: float) -> None:
        state = self.state
        power_w = sample.power_w if sample.power_w is not None and 0 <= sample.power_w <= MAX_W else None
        celsius = sample.temperature_c
        temperature_c = celsius if celsius is not None and MIN_C <= celsius <= MAX_C else None
        if sample.clock is not None and 0 <= sample.clock < state.tables.clocks:
            state.clock = sample.clock
        if not state.profiled and (power_w is not None or temperature_c is not None):
            self._assume(sample, power_w, now_s)
        state.sensed(sample, power_w, temperature_c, now_s)

    def _assume(self, sample: messages.Sensed, power_w: float | None, now_s: float) -> None:
        """Idle power of a device without a profile: the first reading at once; once energy is limited, that after a
        short time without frames."""
        state = self.state
        quiet = power_w is not None and state.quiet_s is not None and state.quiet_s[0] <= now_s < state.quiet_s[1]
        if quiet or (not state.power.metered and (power_w is not None or state.unmeasured)):
            idle_w = IDLE_GUESS_W if power_w is None else power_w
            state.metered(profile.assumed(idle_w, state.device, state.clock), now_s, quiet)
            self._permit()
        if quiet:
            state.quiet_s = (now_s, now_s)
        elif power_w is not None and state.quiet_s is None and state.limits_energy:
            state.quiet_s = profile.quiet_time(now_s, sample)

    def _workload(self, load: messages.Workload, now_s: float) -> Decision:
        state = self.state
        cameras = max(1, min(MAX_CAMERAS, load.cameras))
        changed = cameras != state.cameras
        if changed:
            state.adapt(state.variants, state.budget, cameras, now_s)
            self._permit()
        if math.isfinite(load.frames_per_s) and load.frames_per_s > 0.01:
            state.offered_s = cameras / load.frames_per_s
        if not state.planned:
            self._plan(now_s)
        return explain.decide(state, now_s, changed=True) if changed else state.decision

    def _checked(self, waiting: Waiting) -> Waiting:
        """With only plausible values."""
        frames, age_ms, weights, cameras, _, clock, _ = waiting
        if frames < 1 or not 0 <= age_ms < MAX_MS:
            waiting = waiting._replace(frames=max(1, frames), age_ms=age_ms if 0 <= age_ms < MAX_MS else 0.0)
        if weights and not (len(weights) >= frames and min(weights) >= 0 and sum(weights) <= MAX_WEIGHT):
            waiting = waiting._replace(weights=())
        if cameras and len(cameras) < frames:
            waiting = waiting._replace(cameras=())
        if clock is not None and not 0 <= clock < self.state.tables.clocks:
            waiting = waiting._replace(clock=None)
        return waiting

    # --- what may run -------------------------------------------------------------------------------------------------

    def _plan(self, now_s: float) -> None:
        if now_s - self.state.planned_s >= REPLAN_S:
            replan(self.state, now_s)

    def _new_terms(self, now_s: float) -> Decision:
        """After a change of what may run or of the limits."""
        self._permit()
        state = self.state
        if not state.planned:
            replan(state, now_s)
        state.activity = [Activity([0] * len(state.variants)) for _ in state.activity]
        return explain.decide(state, now_s, changed=True)

    def _permit(self) -> None:
        """The pinned variant may run; else what works, is not vetoed and reaches the floor; else the most accurate one
        that works, not vetoed if there is one."""
        state = self.state
        n = len(state.variants)
        able = [bool(state.variants[i].latency_ms) and explain.barred(state, i) is None for i in range(n)]
        if state.pinned is not None:
            able = [i == state.pinned for i in range(n)]
        elif not any(able):
            working = [i for i in range(n) if state.works(i)] or [i for i in range(n) if state.lost[i] is None]
            stand_in = next((i for i in working if state.vetoed[i] is None), working[0])
            able = [i == stand_in for i in range(n)]
        state.permit(able)

    def _pin(self, variant: str) -> int:
        state, i = self.state, self.state.tables.index(variant)
        names = ", ".join(v.name for v, why in zip(state.variants, state.lost, strict=True) if why is None)
        if i is None:
            raise UsageError(f"there is no variant {variant!r} to pin", f"choose one of: {names}")
        if (why := explain.unable(state, i)) is not None:
            raise UsageError(f"{variant} cannot be pinned: {why}", f"choose one of: {names}")
        _check_floor(state.variants[i], state.budget)
        return i

    def _lose(self, variant: str, why: str, now_s: float) -> Decision:
        state, i = self.state, self.state.tables.index(variant)
        if i is None or state.lost[i] is not None:
            return state.decision
        working = [v for v, gone in zip(state.variants, state.lost, strict=True) if gone is None and v.name != variant]
        if not working:
            raise EdgedError(
                f"the last working variant, {variant}, stopped working: {why}", "see the events before this one"
            )
        if (refused := refusal(working, state.budget)) is not None:
            raise EdgedError(f"{variant} stopped working: {why}; of the others, {refused}", FLOOR_HINT)
        state.lost[i] = why
        state.pinned = None if state.pinned == i else state.pinned
        return self._new_terms(now_s)

    def _veto(self, veto: messages.Vetoed | messages.Unvetoed, now_s: float) -> Decision:
        """A veto on all cameras ends an operator's pin. One of a single camera leaves the variant to the others."""
        state, i = self.state, self.state.tables.index(veto.variant)
        if i is None:
            return state.decision
        why = veto.why if isinstance(veto, messages.Vetoed) else None
        if veto.camera is not None:
            state.camera_vetoes = [item for item in state.camera_vetoes if item[:2] != (veto.camera, i)]
            if why is not None:
                state.camera_vetoes.append((veto.camera, i, why))
            self._permit()
            return state.decision
        if (state.vetoed[i] is None) == (why is None):
            return state.decision
        state.vetoed[i] = why
        state.pinned = None if state.pinned == i else state.pinned
        return self._new_terms(now_s)


def refusal(variants: Sequence[Variant], budget: Budget) -> str | None:
    """Why these variants cannot hold this budget (none reaches min_accuracy), or None. For `check` and `set`."""
    known = [profile.checked(v).accuracy for v in variants]
    if any(explain.barred_by_floor(accuracy, budget) is None for accuracy in known):
        return None
    best = max((a for a in known if a is not None), default=None)
    most = "no variant's accuracy is known" if best is None else f"the most accurate variant has {best:.3g}"
    return f"min_accuracy = {budget.min_accuracy:g} cannot be held: {most}"


def _check_floor(variant: Variant, budget: Budget) -> None:
    """The floor holds for an operator too, so that it is lowered on purpose."""
    if (why := explain.barred_by_floor(variant.accuracy, budget)) is not None:
        raise UsageError(f"{variant.name} cannot be pinned: {why}", "first lower [limits] min_accuracy, or unpin")
