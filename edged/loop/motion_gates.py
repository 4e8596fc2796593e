"""The motion gates of the cameras: whether they are on, what they save, what they miss. On the engine loop's thread.

In: the limits in force, the results, the cameras' counters. Out: orders to the cameras, a report for each camera's
status, and an event where a gate is opened because it misses objects.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Final, Literal

from edged import clock
from edged.accuracy_guard.gate_misses import LIMIT, GateMisses
from edged.bus import schema
from edged.bus.publisher import Publisher
from edged.clock import NS_PER_S
from edged.config import Limits
from edged.frames.cameras import Cameras
from edged.frames.frame import Frame
from edged.loop.governor_client import GovernorClient
from edged.vision.results import Detections, Predictions

SURE: Final = 0.5
"""the score from which on an object counts as one that the gate should not have missed"""
SAMPLE_NS: Final = 60 * NS_PER_S
HOUR: Final = 60
"""samples of the counters that the shares are taken over"""

Counts = tuple[int, int, int]
"""when, frames captured, frames still"""


class MotionGates:
    def __init__(
        self, cameras: Cameras, publisher: Publisher, governor: GovernorClient, mode: Literal["auto", "on", "off"]
    ) -> None:
        self._cameras, self._publisher, self._governor, self._mode = cameras, publisher, governor, mode
        self.on = False
        self._misses: defaultdict[str, GateMisses] = defaultdict(GateMisses)
        self._counts: dict[str, deque[Counts]] = {}

    def put_in_force(self, limits: Limits) -> None:
        """With "auto" the gates are on while power or energy is limited."""
        self.on = self._mode == "on" or (self._mode == "auto" and (limits.power_w or limits.energy_wh) is not None)
        self._send()

    def configured(self) -> None:
        """The cameras were changed."""
        names = set(self._cameras.names())
        for removed in self._misses.keys() - names:
            del self._misses[removed]
        self._counts = {name: counts for name, counts in self._counts.items() if name in names}
        self._send()

    def results(self, frames: Sequence[Frame], predictions: Sequence[Predictions]) -> None:
        """Results of these frames are out."""
        if self.on:
            for frame, objects in zip(frames, predictions, strict=True):
                if isinstance(objects, Detections):
                    self._check(frame, objects, clock.mono_ns())

    def _check(self, frame: Frame, detections: Detections, now_ns: int) -> None:
        misses = self._misses[frame.camera]
        before = misses.opened
        misses.look(frame.still, detections.boxes[detections.scores >= SURE], detections.boxes, now_ns)
        if misses.opened != before:
            self._send()
            if misses.opened:
                found = misses.report()
                text = (
                    f"the motion gate of camera {frame.camera} is opened for 10 minutes: {found.missed} of "
                    f"{found.looked_at} still frames showed something new, provably more than {LIMIT:.0%}"
                )
                self._publisher.publish(schema.Event(kind="gate_opened", text=text, camera=frame.camera))

    def report(self, camera: str, captured: int, still: int, now_ns: int) -> schema.Gate | None:
        """For the status of a camera with these counters; None where the gates are off."""
        if not self.on:
            self._counts.pop(camera, None)
            return None
        counts = self._counts.setdefault(camera, deque(maxlen=HOUR))
        if not counts or now_ns - counts[-1][0] >= SAMPLE_NS:
            counts.append((now_ns, captured, still))
        then_ns, captured_then, still_then = counts[0]
        frames, seconds = captured - captured_then, (now_ns - then_ns) / NS_PER_S
        variant = self._governor.message.variant if self._governor.message else None
        energy_mj = None if variant is None else self._governor.energy_mj(variant, 1)
        found = self._misses[camera].report()
        return schema.Gate(
            open=found.opened,
            still_share=(still - still_then) / frames if frames > 0 else None,
            saved_w=None if energy_mj is None or seconds < 1 else (still - still_then) / seconds * energy_mj / 1000,
            looked_at=found.looked_at,
            missed=found.missed,
            missed_low=found.low,
            missed_high=found.high,
        )

    def _send(self) -> None:
        self._cameras.set_gate([name for name, misses in self._misses.items() if misses.opened], self.on)
