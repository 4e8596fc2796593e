"""Centre heat maps: a local maximum is an object. Pure arithmetic on the engine loop's thread.

A decoder owns scratch memory and serves one thread.
"""

from __future__ import annotations

import math

import numpy as np

from edged.engines.decoder_spec import CenterDecoder, CenterFaceDecoder
from edged.engines.engine import Outputs
from edged.engines.manifest import InputSpec
from edged.vision.finite import finite
from edged.vision.letterbox import Letterbox
from edged.vision.nms import select
from edged.vision.points import with_keypoints
from edged.vision.results import NOTHING, Detections

_SHIFTS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]


class CenterPeaks:
    """A cell that is above the threshold and the maximum of its class among its 3x3 neighbours is an object; equal
    neighbours are all peaks, and NMS keeps the first."""

    def __init__(self, spec: CenterDecoder, image: InputSpec, classes: int) -> None:
        self._spec = spec
        self._rows, self._columns = image.height // spec.stride, image.width // spec.stride
        self._threshold = _logit(spec.score_threshold)
        # a border of minus infinity: a cell at the edge has neighbours that never win
        self._padded = np.full((classes, self._rows + 2, self._columns + 2), -np.inf, np.float32)
        self._flat = self._padded.reshape(-1)
        self._shifts = np.array([dy * (self._columns + 2) + dx for dy, dx in _SHIFTS])

    def __call__(self, outputs: Outputs, index: int, letterbox: Letterbox) -> Detections:
        logits = finite(outputs[self._spec.scores][index], self._spec.scores)
        distances = finite(outputs[self._spec.boxes][index], self._spec.boxes)
        candidates = np.flatnonzero(logits >= self._threshold)
        if not candidates.size:
            return NOTHING
        class_ids, cells = np.divmod(candidates, self._rows * self._columns)
        y, x = np.divmod(cells, self._columns)
        self._padded[:, 1:-1, 1:-1] = logits
        at = (class_ids * (self._rows + 2) + y + 1) * (self._columns + 2) + x + 1
        scores = self._flat[at]
        peaks = np.flatnonzero(scores >= self._flat[at[:, None] + self._shifts].max(axis=1))
        peaks = peaks[np.argsort(-scores[peaks], kind="stable")]
        y, x = y[peaks], x[peaks]
        # an object reaches no further than across the whole picture; it also keeps a wild distance from overflowing
        reach = distances[:, y, x].astype(np.float32).clip(0, self._rows + self._columns)
        boxes = np.stack((x + 0.5 - reach[0], y + 0.5 - reach[1], x + 0.5 + reach[2], y + 0.5 + reach[3]), axis=1)
        boxes = (boxes * self._spec.stride).astype(np.float32)
        scores = 0.5 + 0.5 * np.tanh(0.5 * scores[peaks])  # the sigmoid, without its overflow
        return select(boxes, scores, class_ids[peaks], self._spec, letterbox).detections


class CenterFaces:
    """CenterFace: every cell above the threshold is a candidate, and NMS keeps the best of each face."""

    def __init__(self, spec: CenterFaceDecoder, image: InputSpec, classes: int) -> None:
        self._spec = spec
        self._reach = math.log(4.0 * max(image.width, image.height))

    def __call__(self, outputs: Outputs, index: int, letterbox: Letterbox) -> Detections:
        spec, stride = self._spec, self._spec.stride
        names = (spec.heatmap, spec.scale, spec.offset, spec.keypoints)
        heat, scale, offset, points = (finite(outputs[name][index], name) for name in names)
        y, x = np.nonzero(heat[0] >= spec.score_threshold)
        if not y.size:
            return NOTHING
        order = np.argsort(-heat[0, y, x], kind="stable")
        y, x = y[order], x[order]
        height, width = np.exp(scale[:, y, x].astype(np.float32).clip(-20, self._reach)) * stride
        left = (x + offset[1, y, x] + 0.5) * stride - width / 2
        top = (y + offset[0, y, x] + 0.5) * stride - height / 2
        boxes = np.stack((left, top, left + width, top + height), axis=1).astype(np.float32)
        scores = heat[0, y, x].astype(np.float32).clip(0, 1)
        selected = select(boxes, scores, np.zeros(len(y), np.int64), spec, letterbox)
        kept = selected.kept
        relative = points[:, y[kept], x[kept]].T.reshape(-1, 5, 2).astype(np.float32)
        size = np.stack((width, height), axis=1)[kept, None]
        found = boxes[kept, None, :2] + relative[..., ::-1] * size
        return with_keypoints(selected.detections, found, None, letterbox)


def _logit(probability: float) -> float:
    if probability <= 0:
        return -math.inf
    return math.inf if probability >= 1 else math.log(probability / (1 - probability))
