"""Which frames of a camera are worth an inference: those with motion, and one now and then all the same. In the child.

In: each frame's luma and time, and what the daemon orders (on, off, open for a while). Out: a verdict for each frame.
The frames let through while nothing moves keep results coming, and show whether the gate misses anything.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from edged.frames.motion import Image, MotionDetector
from edged.regions import CameraMotion

HOLD_S: Final = 0.25
"""the gate stays open for so long after the last motion: something that slows down is seen to its end"""
LOOK_OPEN_S: Final = 0.15
"""while it is open anyway, from one look to the next: less than HOLD_S by a frame of a slow camera"""
LOOK_CLOSED_S: Final = 0.1
"""while nothing differs; from the first difference on each frame is looked at"""
EARLY_S: Final = 0.005
"""a frame that comes so much before its look is due has it: cameras' jitter"""
TRIGGER_S: Final = 10.0
"""a trigger from outside opens it for so long"""


class Verdict(Enum):
    MOTION = "motion"
    KEEP_ALIVE = "keep alive"
    STILL = "still"


class MotionGate:
    """Off until `enabled` is set. `options` are the camera's."""

    def __init__(self, options: CameraMotion) -> None:
        self._options = options
        self._detector: MotionDetector | None = None
        self._open_until_s = 0.0
        self._passed_s = 0.0
        self._next_look_s = 0.0
        self.enabled = False

    def trigger(self, now_s: float) -> None:
        """Something outside saw motion."""
        self._open_until_s = max(self._open_until_s, now_s + TRIGGER_S)

    def judge(self, luma: Image, at_s: float) -> Verdict:
        """Of a frame captured at `at_s` (monotonic); `luma` uint8 [height, width], a view is enough."""
        if not self.enabled:
            self._detector = None  # what it has learnt grows old
            return Verdict.MOTION
        if self._detector is None or self._detector.shape != luma.shape:
            self._detector = MotionDetector(luma.shape[1], luma.shape[0], self._options.sensitivity, self._options.mask)
            self._next_look_s = at_s
        if at_s >= self._next_look_s:
            self._look(self._detector, luma, at_s)
        if at_s < self._open_until_s:
            self._passed_s = at_s
            return Verdict.MOTION
        if at_s - self._passed_s >= self._options.keep_alive_s:
            self._passed_s = at_s
            return Verdict.KEEP_ALIVE
        return Verdict.STILL

    def _look(self, detector: MotionDetector, luma: Image, at_s: float) -> None:
        if detector.look(luma, at_s):
            self._open_until_s = max(self._open_until_s, at_s + HOLD_S)
        is_open = at_s < self._open_until_s
        pause_s = LOOK_OPEN_S if is_open else 0.0 if detector.suspects else LOOK_CLOSED_S
        self._next_look_s = at_s + pause_s - EARLY_S
