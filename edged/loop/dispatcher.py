"""Which of the frames that wait run next, and on what: the schedule's order, the governor's choice. Pure.

The schedule knows the deadlines and says which frames are next; the governor chooses the variant, or that they are
dropped. The engine loop and the arena use the same object.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from edged.clock import NS_PER_MS, NS_PER_S
from edged.frames.frame import DropCause, Frame
from edged.frames.schedule import Scheduler
from edged.governor.governor import Governor
from edged.governor.messages import Waiting

SLACK_MS: Final = 0.5
"""Kept free before each deadline: publishing and the wake-up of this thread."""
NO_TIME: Final = (0.0,)
TILE_WEIGHT: Final = 0.5
"""of each tile but the first, beside a frame's: it adds detail to what the frame as a whole would have shown, so where
energy is short tiles go before frames do"""

OnDrop = Callable[[Frame, DropCause], None]


class Chosen(NamedTuple):
    """A batch: its frames, or with `grid` (columns, rows) the tiles of its only frame."""

    frames: Sequence[Frame]
    variant: str
    grid: tuple[int, int] | None = None


class Dispatcher:
    """`weights`: by camera, 1 on average. `grids`: columns and rows of the tiles of the cameras that have them, at most
    `max_batch` together."""

    def __init__(self, schedule: Scheduler, governor: Governor, max_batch: int, on_drop: OnDrop) -> None:
        self._schedule = schedule
        self._governor = governor
        self._max_batch = max_batch
        self._on_drop = on_drop
        self._last: str | None = None
        self._served_ns: dict[str, int] = {}
        self.weights: dict[str, float] = {}
        self.grids: dict[str, tuple[int, int]] = {}

    def next(self, now_ns: int, free_ns: int, probing: bool, clock: int | None = None) -> Chosen | None:
        """The next batch; None if nothing is left waiting. `free_ns`: when the engine can begin.
        `probing`: the next frame runs regardless of its predicted time. `clock`: the GPU's, where it is controlled."""
        governor = self._governor
        while frames := self._due(free_ns, probing):
            if (tiled := self._in_tiles(frames, now_ns, free_ns, clock)) is not None:
                return tiled
            owed = self._owed(frames, now_ns)
            if len(frames) > 1:  # what is dropped to save energy is what counts least
                frames = sorted(frames, key=lambda frame: (frame.camera not in owed, -self._weight(frame)))
            waiting = Waiting(
                len(frames),
                (free_ns - min([frame.mono_capture_ns for frame in frames])) / NS_PER_MS,
                tuple([self._weight(frame) for frame in frames]),
                tuple([frame.camera for frame in frames]),
                self._last,
                clock,
                len(owed),
            )
            choice = governor.choose(waiting, now_ns)
            if choice.variant is not None:
                return self._take(frames, choice.frames, choice.variant, now_ns)
            if probing and not governor.energy_limited:
                return self._take(frames, 1, governor.variant_for(frames[0].camera), now_ns)
            for frame in frames:
                self._on_drop(frame, "late" if choice.cause == "none" else choice.cause)
        return None

    def forget(self, camera: str) -> None:
        """The camera was removed."""
        self._served_ns.pop(camera, None)

    def _in_tiles(self, frames: Sequence[Frame], now_ns: int, free_ns: int, clock: int | None) -> Chosen | None:
        """The first frame in tiles, which are frames to the governor; None if its camera has none, or if the governor
        would not run the last of them when the others, and all other frames that wait, are done: then there is time,
        or energy, for the whole only."""
        camera, weight = frames[0].camera, self._weight(frames[0])
        if (grid := self.grids.get(camera)) is None:
            return None
        count, age_ms = grid[0] * grid[1], (free_ns - frames[0].mono_capture_ns) / NS_PER_MS
        weights = (weight, *(TILE_WEIGHT * weight,) * (count - 1))
        choice = self._governor.choose(Waiting(count, age_ms, weights, (camera,) * count, self._last, clock), now_ns)
        others = len(self._schedule) + len(frames) - 1
        if choice.variant is not None and (others or choice.frames < count):
            before_ms = self._predict_ms(choice.variant, others + count - 1)
            last = Waiting(1, age_ms + before_ms, weights[-1:], (camera,), choice.variant, clock)
            choice = self._governor.choose(last, now_ns)
        if choice.variant is None:
            return None
        return self._take(frames, 1, choice.variant, now_ns)._replace(grid=grid)

    def _predict_ms(self, variant: str, frames: int) -> float:
        """Of so many frames at once; of more than is known for, as if the largest batch took as long for each."""
        times_ms = self._governor.predict_ms(variant) or NO_TIME
        return times_ms[min(frames, len(times_ms)) - 1] * max(1.0, frames / len(times_ms))

    def _take(self, frames: Sequence[Frame], count: int, variant: str, now_ns: int) -> Chosen:
        self._schedule.hand_back(frames[count:])
        self._last = variant
        for frame in frames[:count]:
            self._served_ns[frame.camera] = now_ns
        return Chosen(frames[:count], variant)

    def _due(self, free_ns: int, probing: bool) -> Sequence[Frame]:
        governor = self._governor
        times_ms = NO_TIME if probing else governor.schedule_ms()
        most = min(governor.max_batch, self._max_batch)
        frames, drops = self._schedule.next_batch(
            free_ns, times_ms, most, SLACK_MS, governor.least_ms(), governor.energy_limited
        )
        for drop in drops:
            self._on_drop(drop.frame, drop.cause)
        return frames

    def _owed(self, frames: Sequence[Frame], now_ns: int) -> set[str]:
        """The cameras that had no result for so long that `min_fps` promises them one."""
        min_fps = self._governor.state.budget.min_fps
        if min_fps <= 0:
            return set()
        before_ns = now_ns - NS_PER_S / min_fps
        return {frame.camera for frame in frames if self._served_ns.setdefault(frame.camera, now_ns) < before_ns}

    def _weight(self, frame: Frame) -> float:
        return self.weights.get(frame.camera, 1.0)
