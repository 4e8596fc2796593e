"""Scores and boxes in tensors of their own: SSD, the DETR family, and graphs that did the NMS themselves.

Pure arithmetic, any thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edged.engines.decoder_spec import BoxesDecoder, DetectionsDecoder
from edged.engines.engine import Outputs
from edged.engines.manifest import InputSpec
from edged.vision.decoders.activations import activated
from edged.vision.finite import finite
from edged.vision.letterbox import Letterbox
from edged.vision.nms import placed, select
from edged.vision.results import NOTHING, Detections, Floats


class ScoredBoxes:
    """Each row counts as its best class; NMS by class."""

    def __init__(self, spec: BoxesDecoder, image: InputSpec, classes: int) -> None:
        self._spec = spec
        self._first = int(spec.background == "first")
        self._classes = classes
        self._corners = _Corners(spec.box or "xyxy", bool(spec.unit), image)
        self._anchors = _anchors(spec, image)

    def __call__(self, outputs: Outputs, index: int, letterbox: Letterbox) -> Detections:
        spec = self._spec
        logits = finite(outputs[spec.scores][index], spec.scores)
        boxes = finite(outputs[spec.boxes][index], spec.boxes)
        if spec.columns:
            logits, boxes = logits.T, boxes.T
        scores = activated(logits, spec.activation or "none")[:, self._first : self._first + self._classes]
        best = scores.max(axis=1)
        chosen = np.flatnonzero(best >= spec.score_threshold)
        if not chosen.size:
            return NOTHING
        chosen = chosen[np.argsort(-best[chosen], kind="stable")]
        class_ids = scores[chosen].argmax(axis=1)
        found = boxes[chosen].astype(np.float32)
        corners = self._corners(found) if self._anchors is None else self._decoded(found, self._anchors[chosen])
        return select(corners, best[chosen].astype(np.float32).clip(0, 1), class_ids, spec, letterbox).detections

    def _decoded(self, offsets: Floats, anchors: Floats) -> Floats:
        """Offsets from anchors (n, 4) cx, cy, w, h -> corners, all in input pixels."""
        center, size = self._spec.variances
        middle = anchors[:, :2] + offsets[:, :2] * center * anchors[:, 2:]
        half = anchors[:, 2:] * np.exp((offsets[:, 2:] * size).clip(-20, 20)) / 2
        corners: Floats = np.concatenate((middle - half, middle + half), axis=1)
        return self._corners.clip(corners)


class GivenDetections:
    """The rows that the graph kept, best first."""

    def __init__(self, spec: DetectionsDecoder, image: InputSpec, classes: int) -> None:
        self._spec = spec
        self._classes = classes
        self._corners = _Corners(spec.box, bool(spec.unit), image)

    def __call__(self, outputs: Outputs, index: int, letterbox: Letterbox) -> Detections:
        spec = self._spec
        scores = finite(outputs[spec.scores][index], spec.scores)
        boxes = finite(outputs[spec.boxes][index], spec.boxes)
        class_ids = np.zeros(len(scores), np.int64)
        if spec.class_ids:
            class_ids = finite(outputs[spec.class_ids][index], spec.class_ids)
            class_ids = np.rint(class_ids.clip(-1, 1 << 20)).astype(np.int64) - spec.first_class
        chosen = np.flatnonzero((scores >= spec.score_threshold) & (class_ids >= 0) & (class_ids < self._classes))
        chosen = chosen[np.argsort(-scores[chosen], kind="stable")][: spec.max_detections]
        if not chosen.size:
            return NOTHING
        corners = self._corners(boxes[chosen].astype(np.float32))
        found = scores[chosen].astype(np.float32).clip(0, 1)
        return placed(corners, found, class_ids[chosen], np.arange(len(chosen)), letterbox).detections


class _Corners:
    """Boxes (n, 4) as a model gives them -> corners x0, y0, x1, y1 in input pixels."""

    def __init__(self, form: str, unit: bool, image: InputSpec) -> None:
        self._form = form
        self._reach = float(4 * max(image.width, image.height))
        self._scale = np.array((image.width, image.height) * 2 if unit else (1, 1, 1, 1), np.float32)

    def __call__(self, boxes: Floats) -> Floats:
        if self._form == "yxyx":
            boxes = boxes[:, [1, 0, 3, 2]]
        boxes = self.clip(boxes * self._scale)
        if self._form == "cxcywh":
            half = np.maximum(boxes[:, 2:], 0) / 2
            boxes = np.concatenate((boxes[:, :2] - half, boxes[:, :2] + half), axis=1)
        return boxes

    def clip(self, boxes: Floats) -> Floats:
        """Far outside the picture is as good as anywhere outside; it keeps a wild number from overflowing."""
        found: Floats = boxes.clip(-self._reach, self._reach)
        return found


def _anchors(spec: BoxesDecoder, image: InputSpec) -> NDArray[Any] | None:
    """(A, 4) cx, cy, w, h in input pixels; None where the boxes are decoded."""
    levels = []
    for level in spec.anchors:
        rows, columns = -(-image.height // level.stride), -(-image.width // level.stride)
        y, x = np.divmod(np.arange(rows * columns), columns)
        middle = (np.stack((x, y), axis=1) + 0.5) * level.stride
        sizes = np.array(level.sizes)
        centers = np.repeat(middle, len(sizes), axis=0)
        levels.append(np.concatenate((centers, np.tile(sizes, (len(middle), 1))), axis=1))
    return np.concatenate(levels).astype(np.float32) if levels else None
