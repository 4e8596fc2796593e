"""Counts what a subscriber of the demo receives: results in, numbers per camera and variant out, and against truth.

The daemon's own counters are not used: ages, late frames and objects found are counted from its results, and the
objects in each picture are known from the rendered scene. On the demo's main thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from edged.bus.schema import Detection, Result
from edged.commands.demo.fixture import DemoCamera
from edged.synthetic.scene import LABELS, SceneObject

MATCH_IOU: Final = 0.5
EDGE_PX: Final = 12.0
"""A part nearer than this to the left or right edge may be cut off; a detector's box is uncertain by a few pixels."""
RATE_WINDOW_S: Final = 2.0
AGES_KEPT: Final = 100_000

Box = tuple[float, float, float, float]


@dataclass
class VariantStats:
    """`ages_ms` of its results; `found`, `wrong` and `missed` objects on the cameras whose truth is known."""

    frames: int = 0
    late: int = 0
    ages_ms: deque[float] = field(default_factory=lambda: deque(maxlen=AGES_KEPT))
    found: int = 0
    wrong: int = 0
    missed: int = 0

    def age_ms(self, quantile: float) -> float | None:
        return float(np.quantile(self.ages_ms, quantile)) if self.ages_ms else None

    @property
    def precision(self) -> float | None:
        return self.found / (self.found + self.wrong) if self.found + self.wrong else None

    @property
    def recall(self) -> float | None:
        return self.found / (self.found + self.missed) if self.found + self.missed else None


@dataclass
class CameraStats:
    """`arrivals_s`: arrival times of results within the last RATE_WINDOW_S."""

    results: int = 0
    arrivals_s: deque[float] = field(default_factory=deque)
    last: Result | None = None

    def fps(self, now_s: float) -> float:
        while self.arrivals_s and now_s - self.arrivals_s[0] > RATE_WINDOW_S:
            self.arrivals_s.popleft()
        return len(self.arrivals_s) / min(RATE_WINDOW_S, max(now_s, 0.1))


class Stats:
    """Everything received so far; times are seconds since the demo began."""

    def __init__(self, cameras: Sequence[DemoCamera], measured: bool) -> None:
        """`measured`: whether the bundle's labels are those of the scenes, so that objects can be checked."""
        self.cameras = {camera.name: CameraStats() for camera in cameras}
        self.variants: dict[str, VariantStats] = {}
        self.runs: list[tuple[float, str]] = []
        """(time of the first result, variant) of each run of results from one variant"""
        self.recent: deque[Result] = deque(maxlen=120)
        self._scenes = {c.name: c.scene for c in cameras if measured and c.kind == "test"}

    @property
    def results(self) -> int:
        return sum(camera.results for camera in self.cameras.values())

    def add(self, result: Result, now_s: float) -> None:
        camera = self.cameras[result.camera]
        camera.results += 1
        camera.arrivals_s.append(now_s)
        camera.last = result
        self.recent.append(result)
        if not self.runs or self.runs[-1][1] != result.variant:
            self.runs.append((now_s, result.variant))
        variant = self.variants.setdefault(result.variant, VariantStats())
        variant.frames += 1
        variant.late += not result.deadline_met
        variant.ages_ms.append(result.age_ms)
        scene = self._scenes.get(result.camera)
        if scene is not None and isinstance(result.detections, list):
            found, wrong, missed = compare(result.detections, scene.truth(result.frame), result.width)
            variant.found += found
            variant.wrong += wrong
            variant.missed += missed


def knows(labels: Sequence[str]) -> bool:
    """Whether a bundle's labels are those of the scene, so that its objects can be checked."""
    return set(labels) <= set(LABELS)


def compare(detections: Sequence[Detection], truth: Sequence[SceneObject], width: int) -> tuple[int, int, int]:
    """(found, wrong, missed): the right label and IoU >= MATCH_IOU, each object once, best score first.

    Parts enter and leave on the left and right; the scene's truth leaves out those hardly visible. So what touches
    these edges counts neither as found or missed, nor as wrong.
    """
    left = list(truth)
    found = wrong = 0
    for detection in sorted(detections, key=lambda d: -d.score):
        same = [real for real in left if real.label == detection.label]
        best = max(same, key=lambda real: iou(real.box, detection.box), default=None)
        if best is not None and iou(best.box, detection.box) >= MATCH_IOU:
            left.remove(best)
            found += not _cut(best.box, width)
        else:
            wrong += not _cut(detection.box, width)
    return found, wrong, sum(not _cut(real.box, width) for real in left)


def _cut(box: Box, width: int) -> bool:
    return box[0] < EDGE_PX or box[2] > width - EDGE_PX


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes x0, y0, x1, y1."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)
