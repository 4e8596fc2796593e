"""Which frames the engine takes next: pending frames, deadlines and predicted times in; a batch and drops out.

Pure: no I/O, no clock, no thread of its own; the engine loop owns the one `Scheduler` and calls it between batches.

One frame per camera waits, the latest wins. When not all that wait can be served in time, the set of greatest weight is
kept: frames are admitted one by one, heaviest first and among equals the camera served longest ago first, each if
those already admitted still meet their deadlines. For frames that take equally long this gives the greatest total
weight. A frame not admitted is only set aside: the prediction is cautious, so if the engine proves faster it is served
after all, and it is dropped (`overload`) when it can no longer make it, however fast the engine. Where the prediction
lets none through the first runs all the same: after two slow batches it is too high, and only a run can correct it.
Equal cameras take turns; a frame is given up (`overload`) for one that has not come yet only if that one's camera would
otherwise always find the engine taken.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edged.clock import NS_PER_MS
from edged.frames.frame import DropCause, Frame

TURN_LOSSES: Final = 2
"""Frames a camera must have lost in a row before others step back for it."""


@dataclass(frozen=True)
class Drop:
    """A frame given up, and why."""

    frame: Frame
    cause: DropCause


class _Camera:
    """What is known of one camera; `frame` is the one that waits, with its `deadline_ns`, `weight` and `set_aside`.

    `urgency_ns`, by which the order goes, is the deadline of the first frame since the camera was last served, even if
    newer ones replaced it: without it a camera whose frames always arrive second would be overtaken forever.
    `served` is the turn in which it was last served, `lost` counts frames given up since (`before`: both as they were
    before the last turn that served it), `period_ns` is the time between its last two frames.
    """

    __slots__ = (
        "before", "deadline_ns", "frame", "lost", "period_ns", "served", "set_aside", "urgency_ns", "weight",
    )  # fmt: skip

    def __init__(self) -> None:
        self.frame: Frame | None = None
        self.deadline_ns = 0
        self.weight = 1.0
        self.set_aside = False
        self.urgency_ns = 0
        self.served = 0
        self.lost = 0
        self.before = (0, 0)
        self.period_ns = 0


class Scheduler:
    """The frames that wait, one per camera. Not thread-safe: one thread owns it."""

    def __init__(self) -> None:
        self._cameras: dict[str, _Camera] = {}
        self._waiting = 0
        self._turn = 0

    def __len__(self) -> int:
        """How many frames wait."""
        return self._waiting

    def offer(self, frame: Frame, deadline_ns: int, weight: float = 1.0) -> Drop | None:
        """A frame arrived; `deadline_ns` is when its result must be out (monotonic). Returns the one it replaces."""
        camera = self._cameras.get(frame.camera)
        if camera is None:
            camera = self._cameras[frame.camera] = _Camera()
        drop = self._give_up(camera, "superseded") if camera.frame is not None else None
        camera.urgency_ns = deadline_ns if drop is None else min(deadline_ns, camera.urgency_ns)
        camera.period_ns = max(0, deadline_ns - camera.deadline_ns) if camera.deadline_ns else 0
        camera.frame, camera.deadline_ns, camera.weight, camera.set_aside = frame, deadline_ns, weight, False
        self._waiting += 1
        return drop

    def forget(self, camera: str, cause: DropCause = "shutdown") -> Drop | None:
        """The camera is gone, with its place in the turns; returns the frame it waited with, dropped for `cause`."""
        gone = self._cameras.pop(camera, None)
        if gone is None or gone.frame is None:
            return None
        self._waiting -= 1
        return Drop(gone.frame, cause)

    def next_batch(
        self,
        now_ns: int,
        predict_ms: Sequence[float],
        max_batch: int,
        slack_ms: float,
        least_ms: float = math.inf,
        largest: bool = False,
    ) -> tuple[tuple[Frame, ...], tuple[Drop, ...]]:
        """The frames to run now, earliest deadline first, and those that can no longer make it.

        `predict_ms[k-1]` is the time of a batch of k from start to publish (empty while nothing is known: then one
        frame at a time, as if it took none), a cautious one; `least_ms` (as predicted, if that is less) what one frame
        takes at the very least; `slack_ms` is kept free before every deadline. `largest`: as many frames at once as are
        in time, which saves energy, rather than those that are out soonest. The batch is empty only if nothing is
        left waiting.
        """
        if not self._waiting:
            return (), ()
        slack_ns = int(slack_ms * NS_PER_MS)
        times = [int(ms * NS_PER_MS) for ms in predict_ms[: max(1, max_batch)]] or [0]
        one = times[0]
        least_ns = int(min(one, least_ms * NS_PER_MS))
        useful = [k for k in range(1, len(times) + 1) if k == 1 or times[k - 1] < k * one]
        drops: list[Drop] = []
        while True:
            earliest_end_ns = now_ns + least_ns + slack_ns
            waiting = sorted((c for c in self._cameras.values() if c.frame is not None), key=_edf)
            late = [c for c in waiting if c.deadline_ns < earliest_end_ns]
            if late:
                drops += [self._give_up(c, "late") for c in late]
                waiting = [c for c in waiting if c.frame is not None]
            if not waiting:
                return (), tuple(drops)
            room = [c.deadline_ns - now_ns - slack_ns for c in waiting]
            if not _feasible(room, 0, times, useful):
                waiting, room = _admit(waiting, now_ns + slack_ns, times, useful)
            batch = waiting[: _first_batch(room, times, useful, largest)]
            if not self._starves_another(batch, earliest_end_ns, times):
                return self._serve(batch), tuple(drops)
            drops += [self._give_up(c, "overload") for c in batch]

    def hand_back(self, frames: Sequence[Frame]) -> None:
        """Frames of the batch just returned that should not run now: they keep waiting, in their old place."""
        for frame in frames:
            camera = self._cameras[frame.camera]
            camera.frame, (camera.served, camera.lost) = frame, camera.before
            self._waiting += 1

    def _starves_another(self, batch: list[_Camera], earliest_end_ns: int, times: list[int]) -> bool:
        """Whether the batch would again cost a camera its next frame, which has not come yet but could be in time.

        Such a camera always finds the engine just taken: it would never get a turn. It gets one when it has waited
        longer, is as heavy, and has lost more frames in a row than the others would now (TURN_LOSSES for each).
        """
        for other in self._cameras.values():
            if other.frame is not None or other.lost < TURN_LOSSES * len(batch) or not other.period_ns:
                continue
            next_deadline_ns = other.deadline_ns + other.period_ns
            if earliest_end_ns <= next_deadline_ns < earliest_end_ns + times[len(batch) - 1] and all(
                other.weight >= c.weight and other.served < c.served for c in batch
            ):
                return True
        return False

    def _serve(self, batch: list[_Camera]) -> tuple[Frame, ...]:
        self._turn += 1
        frames = []
        for camera in batch:
            if camera.frame is not None:
                frames.append(camera.frame)
            camera.before = camera.served, camera.lost
            camera.frame, camera.served, camera.lost = None, self._turn, 0
        self._waiting -= len(batch)
        return tuple(frames)

    def _give_up(self, camera: _Camera, cause: DropCause) -> Drop:
        frame = camera.frame
        assert frame is not None, "a camera without a frame has none to give up"
        camera.frame = None
        camera.lost += 1
        self._waiting -= 1
        return Drop(frame, "overload" if camera.set_aside else cause)


def _admit(
    waiting: list[_Camera], from_ns: int, times: list[int], useful: list[int]
) -> tuple[list[_Camera], list[int]]:
    """The set of greatest weight that fits, in the order it will run; the others are marked as set aside."""
    kept: list[_Camera] = []
    order: list[tuple[int, int]] = []
    room: list[int] = []
    # no division into batches serves frames faster: a cheap test before the exact one
    per_frame_ns = min([times[k - 1] / k for k in useful])
    for camera in sorted(waiting, key=_priority):
        edf = _edf(camera)
        at, limit = bisect_right(order, edf), camera.deadline_ns - from_ns
        if limit >= (at + 1) * per_frame_ns and (
            not room or room[-1] >= (len(room) + 1) * per_frame_ns or at == len(room)
        ):
            room.insert(at, limit)
            if _feasible(room, 0, times, useful):
                order.insert(at, edf)
                kept.insert(at, camera)
                continue
            del room[at]
        camera.set_aside = True
    if not kept:  # by a cautious prediction none makes it; the engine is free, and it may prove quicker
        first = min(waiting, key=_priority)
        first.set_aside = False
        return [first], [first.deadline_ns - from_ns]
    return kept, room


def _edf(camera: _Camera) -> tuple[int, int]:
    return camera.urgency_ns, camera.served


def _priority(camera: _Camera) -> tuple[float, int, int]:
    return -camera.weight, camera.served, camera.deadline_ns


def _feasible(room: list[int], start: int, times: list[int], useful: list[int]) -> bool:
    """Whether frames with `room` nanoseconds each, run in this order from `start`, all end in time for some division
    into batches of the `useful` sizes."""
    one = times[0]
    end = start
    for limit in room:
        end += one
        if end > limit:
            break
    else:
        return True
    if len(useful) == 1:
        return False
    n = len(room)
    never = 1 << 62
    done = [start] + [never] * n  # done[i]: earliest end of the first i frames, all in time
    for i in range(n):
        begin = done[i]
        if begin == never:
            continue
        low = room[i]
        for k in range(1, min(len(times), n - i) + 1):
            low = min(low, room[i + k - 1])
            end = begin + times[k - 1]
            if end > low:
                break  # a larger batch takes longer still
            if end < done[i + k]:
                done[i + k] = end
    return done[n] < never


def _first_batch(room: list[int], times: list[int], useful: list[int], largest: bool) -> int:
    """How many of the frames, which are feasible together, run at once now.

    Together only if they are out sooner on average than one after another, or if otherwise not all would be in time.
    On a CPU, where a batch of k takes k times as long, the first never holds and the second does not help.
    """
    n = len(room)
    sizes = [k for k in useful if k <= n]
    sooner = [k for k in sizes if largest or 2 * times[k - 1] <= (k + 1) * times[0]]
    for k in (*reversed(sooner), *sizes):
        end = times[k - 1]
        if end <= min(room[:k]) and (k == n or _feasible(room[k:], end, times, useful)):
            return k
    return 1
