"""Detections out of tensors: centre heat maps and YOLO heads, as the manifest declares them.

In: the outputs of a batch and the index of a frame in it. Out: its objects in pixels of the source frame. Candidates
first: what is below the threshold, nearly everything, costs one comparison. Pure arithmetic on the engine loop's
thread; a decoder owns scratch memory and serves one thread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edged.engines.engine import Outputs
from edged.engines.manifest import CenterDecoder, InputSpec, YoloDecoder
from edged.errors import EdgedError
from edged.vision.finite import finite
from edged.vision.letterbox import Letterbox

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

_BLOCK = 64  # candidates that NMS compares with each other at once: 64 x 64 fits the cache
_PROBABILITY_SLACK = 0.01  # rounding of INT8 and FP16 engines; more than that is no probability
_SHIFTS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects of a frame, best first: boxes float32 (N, 4) x0, y0, x1, y1 in source pixels, scores float32 (N,)
    0..1, class_ids int64 (N,)."""

    boxes: Floats
    scores: Floats
    class_ids: Indices


NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
"""No object: the result of looking, not of failing."""


class CenterPeaks:
    """The centre heat map: a cell that is above the threshold and the maximum of its class among its 3x3 neighbours is
    an object; equal neighbours are all peaks, and NMS keeps the first."""

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
        return _select(boxes, scores, class_ids[peaks], self._spec, letterbox)


class YoloBoxes:
    """One tensor (4 + C, A): each of the A predictions counts as its best class."""

    def __init__(self, spec: YoloDecoder, image: InputSpec, classes: int) -> None:
        self._spec = spec
        self._reach = float(4 * max(image.width, image.height))

    def __call__(self, outputs: Outputs, index: int, letterbox: Letterbox) -> Detections:
        name = self._spec.predictions
        predictions = finite(outputs[name][index], name)
        probabilities = predictions[4:]
        scores = probabilities.max(axis=0)
        candidates = np.flatnonzero(scores >= self._spec.score_threshold)
        if not candidates.size:
            return NOTHING
        candidates = candidates[np.argsort(-scores[candidates], kind="stable")]
        scores = scores[candidates].astype(np.float32)
        if scores[0] > 1 + _PROBABILITY_SLACK:
            raise EdgedError(
                f"output {name} holds {scores[0]:.4g} where a class probability of 0..1 is expected",
                "export the model with the sigmoid inside the graph",
            )
        class_ids = probabilities[:, candidates].argmax(axis=0)
        # far outside the picture is as good as anywhere outside; it keeps a wild number from overflowing
        x, y, width, height = predictions[:4, candidates].astype(np.float32).clip(-self._reach, self._reach)
        half_width, half_height = np.maximum(width, 0) / 2, np.maximum(height, 0) / 2
        boxes = np.stack((x - half_width, y - half_height, x + half_width, y + half_height), axis=1)
        return _select(boxes, np.minimum(scores, 1), class_ids, self._spec, letterbox)


def _select(
    boxes: Floats, scores: Floats, class_ids: Indices, spec: CenterDecoder | YoloDecoder, letterbox: Letterbox
) -> Detections:
    """From candidates in input pixels, best first, to the detections: NMS, source pixels, nothing out of sight."""
    kept = nms(boxes, class_ids, spec.iou_threshold, spec.max_detections)
    boxes = letterbox.unmap(boxes[kept])
    visible = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    if not visible.all():  # it lies in the padding
        kept, boxes = kept[visible], boxes[visible]
    return Detections(boxes, scores[kept], class_ids[kept])


def nms(boxes: Floats, class_ids: Indices, iou_threshold: float, limit: int) -> Indices:
    """Class-aware greedy non-maximum suppression: which of the boxes, given best first, to keep, at most `limit`.

    Block by block, so that the memory it takes is bounded whatever a model claims to see.
    """
    kept = np.zeros(0, np.int64)
    for start in range(0, len(boxes), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(boxes)))
        if kept.size:
            hit = _overlap(boxes, class_ids, block, kept, iou_threshold).any(axis=1)
            block = block[~hit]
        if block.size > 1:
            # row i, column j: i suppresses j, should i itself be kept
            hits = np.triu(_overlap(boxes, class_ids, block, block, iou_threshold), 1)
            if hits.any():
                keep = np.ones(block.size, bool)
                for i in range(block.size):
                    if keep[i]:
                        keep &= ~hits[i]
                block = block[keep]
        kept = np.concatenate((kept, block))
        if kept.size >= limit:
            break
    return kept[:limit]


def _overlap(boxes: Floats, class_ids: Indices, a: Indices, b: Indices, iou_threshold: float) -> NDArray[np.bool_]:
    """(len(a), len(b)): whether they are of one class and their intersection over union is above the threshold."""
    first, second = boxes[a], boxes[b]
    sides = np.minimum(first[:, None, 2:], second[:, 2:]) - np.maximum(first[:, None, :2], second[:, :2])
    np.maximum(sides, 0, out=sides)
    common = sides[..., 0] * sides[..., 1]
    union = _area(first)[:, None] + _area(second) - common
    overlap: NDArray[np.bool_] = common > iou_threshold * union
    overlap &= class_ids[a][:, None] == class_ids[b]
    return overlap


def _area(boxes: Floats) -> Floats:
    area: Floats = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return area


def _logit(probability: float) -> float:
    if probability <= 0:
        return -math.inf
    return math.inf if probability >= 1 else math.log(probability / (1 - probability))
