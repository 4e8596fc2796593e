"""Which of the frames that wait run next, and on what: the schedule's order, the governor's choice. On the engine loop.

The schedule knows the deadlines and says which frames are next; the governor says what they get, or that they shall be
given up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from edged.frames.frame import DropCause, Frame
from edged.frames.schedule import Scheduler
from edged.loop.governor_client import GovernorClient

SLACK_MS: Final = 0.5
"""Kept free before each deadline: publishing and the wake-up of this thread."""
NO_TIME: Final = (0.0,)

GiveUp = Callable[[Frame, DropCause], None]


class Dispatcher:
    """`weights`: by camera, 1 on average."""

    def __init__(self, schedule: Scheduler, steering: GovernorClient, max_batch: int, give_up: GiveUp) -> None:
        self._schedule = schedule
        self._steering = steering
        self._max_batch = max_batch
        self._give_up = give_up
        self.weights: dict[str, float] = {}

    def next(self, now_ns: int, free_ns: int, probing: bool) -> tuple[Sequence[Frame], str] | None:
        """The next batch and its variant, None if nothing is left waiting. `free_ns`: when the engine can begin.
        `probing`: the next frame runs whatever its predicted time."""
        steering = self._steering
        while frames := self._due(free_ns, steering.quickest_ms(), steering.decision.max_batch, probing):
            # what is not run for want of a budget shall be what counts least
            frames = sorted(frames, key=self._weight, reverse=True) if len(frames) > 1 else frames
            weights = [self._weight(frame) for frame in frames]
            choice = steering.choose(frames, weights, free_ns, now_ns)
            if choice.variant is not None:
                return self._take(frames, choice.frames if choice.batch > 1 else 1), choice.variant
            if probing and not steering.rationed:
                return self._take(frames, 1), steering.variant_for(frames[0].camera)
            for frame in frames:
                self._give_up(frame, "budget" if steering.rationed else "late")
        return None

    def _take(self, frames: Sequence[Frame], taken: int) -> Sequence[Frame]:
        self._schedule.hand_back(frames[taken:])
        return frames[:taken]

    def _due(self, free_ns: int, predict_ms: tuple[float, ...], most: int, probing: bool) -> Sequence[Frame]:
        times_ms = NO_TIME if probing else predict_ms
        most, least_ms = min(most, self._max_batch), self._steering.least_ms()
        frames, drops = self._schedule.next_batch(free_ns, times_ms, most, SLACK_MS, least_ms)
        for drop in drops:
            self._give_up(drop.frame, drop.cause)
        return frames

    def _weight(self, frame: Frame) -> float:
        return self.weights.get(frame.camera, 1.0)
