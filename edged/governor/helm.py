"""The one door to the governor: a loop holds its state here, tells it and asks it; what passes goes to a tap too. Pure.

The engine loop, the simulator and the replay all steer through it, so what was recorded in one is replayed by the same
calls in another. Runs on its caller's thread; the tap (a recorder's) must be quick and must not raise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edged.governor import governor
from edged.governor.messages import BatchDone, Budget, Choice, Decision, Device, Observation, Variant, Waiting
from edged.governor.standing import State


@dataclass(frozen=True)
class Start:
    """What the governor was started with."""

    variants: tuple[Variant, ...]
    budget: Budget
    device: Device | None


@dataclass(frozen=True)
class Again:
    """Asked whether frame `frame` of a batch is worth another run."""

    done: BatchDone
    age_ms: float
    period_ms: float
    frame: int
    weight: float


Asked = Start | Observation | Waiting | Again
Answer = Decision | Choice | str | None
"""To a Start the first Decision, to an Observation the Decision if it is a new one, to a Waiting a Choice, to an Again
a variant or None."""

Tap = Callable[[int, Asked, Answer, State], None]
"""Called with (now_ns, asked, answer, state after it), in order, on the caller's thread."""


class Helm:
    def __init__(
        self,
        variants: Sequence[Variant],
        budget: Budget,
        now_ns: int,
        device: Device | None = None,
        tap: Tap | None = None,
    ) -> None:
        """UsageError as `governor.start` raises it."""
        self._tap = tap
        self._state, self._decision = governor.start(variants, budget, now_ns, device)
        if tap is not None:
            tap(now_ns, Start(tuple(variants), budget, device), self._decision, self._state)

    @classmethod
    def resumed(cls, state: State, tap: Tap | None = None) -> Helm:
        """From a state that was recorded."""
        helm = cls.__new__(cls)
        helm._tap, helm._state, helm._decision = tap, state, state.decision
        return helm

    @property
    def state(self) -> State:
        return self._state

    @property
    def decision(self) -> Decision:
        """The one in force."""
        return self._decision

    def observe(self, observation: Observation, now_ns: int) -> Decision:
        """The Decision in force after it, the very same object while nothing changed. What the governor refuses it
        refuses here (UsageError, EdgedError), and nothing has happened."""
        self._state, decision = governor.step(self._state, observation, now_ns)
        if self._tap is not None:
            self._tap(now_ns, observation, None if decision is self._decision else decision, self._state)
        self._decision = decision
        return decision

    def choose(self, waiting: Waiting, now_ns: int) -> Choice:
        choice = governor.choose(self._state, waiting, now_ns)
        if self._tap is not None:
            self._tap(now_ns, waiting, choice, self._state)
        return choice

    def escalate(
        self, done: BatchDone, age_ms: float, period_ms: float, frame: int = 0, weight: float = 1.0, *, now_ns: int
    ) -> str | None:
        """Whether to run a frame of the batch just told of again, and on which variant."""
        again = governor.escalate(self._state, done, age_ms, period_ms, frame, weight)
        if self._tap is not None:
            self._tap(now_ns, Again(done, age_ms, period_ms, frame, weight), again, self._state)
        return again

    def least_ms(self) -> float:
        return governor.least_ms(self._state)

    def predict_ms(self, variant: str) -> tuple[float, ...]:
        return governor.predict_ms(self._state, variant)
