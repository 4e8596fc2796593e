"""YOLO heads: one tensor of candidates whose boxes are decoded in the graph; with masks, key points or an angle.

In: the outputs of a batch and the index of a frame in it. Out: its objects in pixels of the source frame. Candidates
first: what is below the threshold, nearly everything, costs one comparison. Pure arithmetic, any thread.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edged.engines.decoder_spec import YoloDecoder
from edged.engines.engine import Outputs
from edged.engines.manifest import InputSpec
from edged.errors import EdgedError
from edged.vision.decoders.masks import cut_masks
from edged.vision.finite import finite
from edged.vision.letterbox import Letterbox
from edged.vision.nms import nms, placed
from edged.vision.oriented import corners, oriented_nms
from edged.vision.points import with_keypoints
from edged.vision.results import NOTHING, Detections, Floats, Indices

_PROBABILITY_SLACK = 0.01  # rounding of INT8 and FP16 engines; more than that is no probability
_FAR = 2.0  # above any probability
_ORDERS = {"class_score_box": [2, 3, 4, 5, 1, 0], "batch_box_class_score": [1, 2, 3, 4, 6, 5]}
"""Where x0, y0, x1, y1, score and class id stand in other orders than that."""


class Candidates(NamedTuple):
    """What is above the threshold, best first: `boxes` (n, 4) cx, cy, w, h in input pixels, `extra` (n, E) what stands
    behind the classes."""

    boxes: Floats
    scores: Floats
    class_ids: Indices
    extra: Floats


class YoloBoxes:
    """Each candidate counts as its best class."""

    def __init__(self, spec: YoloDecoder, image: InputSpec, classes: int) -> None:
        self._spec = spec
        self._classes = classes
        self._image = image
        self._reach = float(4 * max(image.width, image.height))
        self._scale = np.array((image.width, image.height) * 2, np.float32) if spec.unit else None

    def __call__(self, outputs: Outputs, index: int, letterbox: Letterbox) -> Detections:
        spec = self._spec
        predictions = finite(outputs[spec.predictions][index], spec.predictions)
        found = self._ranked(predictions.T) if spec.layout == "end_to_end" else self._best(predictions)
        if not len(found.scores):
            return NOTHING
        half = np.maximum(found.boxes[:, 2:], 0)
        half *= 0.5
        boxes = np.empty_like(found.boxes)
        np.subtract(found.boxes[:, :2], half, out=boxes[:, :2])
        np.add(found.boxes[:, :2], half, out=boxes[:, 2:])
        if spec.oriented:
            return self._oriented(found, letterbox)
        selected = placed(boxes, found.scores, found.class_ids, self._kept(boxes, found), letterbox)
        detections = selected.detections
        if not (spec.keypoints or spec.prototypes):
            return detections
        extra = found.extra[selected.kept].astype(np.float32)
        if spec.keypoints:
            points = extra.reshape(-1, spec.keypoints, spec.keypoint_values)
            places = points[..., :2] if self._scale is None else points[..., :2] * self._scale[:2]
            confidence = points[..., 2] if spec.keypoint_values == 3 else None
            detections = with_keypoints(detections, places, confidence, letterbox)
        if spec.prototypes:
            prototypes = finite(outputs[spec.prototypes][index], spec.prototypes)
            masks = cut_masks(prototypes, extra, boxes[selected.kept], self._image, letterbox)
            detections = replace(detections, masks=masks)
        return detections

    def _best(self, predictions: NDArray[Any]) -> Candidates:
        """Candidates of a head without NMS: the best class of each."""
        spec = self._spec
        columns = predictions.T if spec.layout == "rows" else predictions
        first = 4 + bool(spec.objectness)
        probabilities = columns[first : first + self._classes]
        scores = probabilities.max(axis=0)
        if spec.objectness:
            scores = scores.clip(0, _FAR) * columns[4].clip(0, _FAR)  # no product overflows
        chosen = np.flatnonzero(scores >= spec.score_threshold)
        scores = scores[chosen]
        order = np.argsort(-scores, kind="stable")
        scores, found = scores[order], columns[:, chosen[order]]
        self._check(scores)
        last = first + self._classes
        return self._candidates(found[:4].T, scores, found[first:last].argmax(axis=0), found[last:])

    def _ranked(self, columns: NDArray[Any]) -> Candidates:
        """Candidates of a graph that has done the NMS: corners (oriented: centre and size), score, class id."""
        spec = self._spec
        if spec.order in _ORDERS:
            columns = columns[_ORDERS[spec.order]]
        class_ids = np.rint(columns[5])
        chosen = np.flatnonzero((columns[4] >= spec.score_threshold) & (class_ids >= 0) & (class_ids < self._classes))
        chosen = chosen[np.argsort(-columns[4, chosen], kind="stable")][: spec.max_detections]
        self._check(columns[4, chosen[:1]])
        boxes = columns[:4, chosen].T.astype(np.float32)
        if not spec.oriented:
            boxes = np.concatenate(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), axis=1)
        return self._candidates(boxes, columns[4, chosen], class_ids[chosen].astype(np.int64), columns[6:, chosen])

    def _candidates(
        self, boxes: NDArray[Any], scores: NDArray[Any], class_ids: Indices, extra: NDArray[Any]
    ) -> Candidates:
        boxes = boxes.astype(np.float32)
        if self._scale is not None:
            boxes *= self._scale
        # far outside the picture is as good as anywhere outside; it keeps a wild number from overflowing
        np.minimum(np.maximum(boxes, -self._reach, out=boxes), self._reach, out=boxes)
        return Candidates(boxes, np.minimum(scores, 1, dtype=np.float32), class_ids, extra.T)

    def _check(self, best: NDArray[Any]) -> None:
        if len(best) and best[0] > 1 + _PROBABILITY_SLACK:
            raise EdgedError(
                f"output {self._spec.predictions} holds {best[0]:.4g} where a class probability of 0..1 is expected",
                "export the model with the sigmoid inside the graph",
            )

    def _kept(self, boxes: Floats, found: Candidates) -> Indices:
        if self._spec.layout == "end_to_end":
            return np.arange(len(boxes))
        return nms(boxes, found.class_ids, self._spec.iou_threshold, self._spec.max_detections)

    def _oriented(self, found: Candidates, letterbox: Letterbox) -> Detections:
        """Boxes with an angle: `boxes` is what they span in the source frame, upright."""
        spec, angles = self._spec, found.extra[:, -1].astype(np.float32)
        kept = np.arange(len(angles))
        if spec.layout != "end_to_end":
            kept = oriented_nms(found.boxes, angles, found.class_ids, spec.iou_threshold, spec.max_detections)
        around = corners(found.boxes[kept], angles[kept])
        hulls = np.concatenate((around.min(axis=1), around.max(axis=1)), axis=1)
        selected = placed(hulls, found.scores[kept], found.class_ids[kept], np.arange(len(kept)), letterbox)
        return replace(selected.detections, corners=letterbox.unmap_points(around[selected.kept]))
