"""Accuracy of a detector on labelled pictures: COCO mean average precision, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


@dataclass(frozen=True)
class Boxes:
    """The objects in one picture: corners [n, 4] (x0, y0, x1, y1) in pixels, class ids [n], scores [n] 0..1.

    The scores of a truth are not read.
    """

    corners: NDArray[Any]
    classes: NDArray[Any]
    scores: NDArray[Any]


@dataclass(frozen=True)
class Accuracy:
    """Mean average precision, 0..1: over IoU 0.50 to 0.95, at 0.50 and at 0.75; and on how many pictures."""

    map50_95: float
    map50: float
    map75: float
    images: int

    def figures(self) -> dict[str, float]:
        """The metrics by name, rounded to 0.01 points."""
        return {name: round(getattr(self, name), 4) for name in ("map50_95", "map50", "map75")}


def mean_average_precision(truth: Sequence[Boxes], found: Sequence[Boxes], classes: int) -> Accuracy:
    """COCO's figures over all object sizes and at most 100 detections a picture. Raises ValueError without objects."""
    if len(truth) != len(found):
        raise ValueError(f"{len(truth)} pictures with truth, {len(found)} with detections")
    annotations = [entry for number, boxes in enumerate(truth) for entry in _entries(number, boxes)]
    if not annotations:
        raise ValueError("no object in the labelled pictures: nothing to measure")
    for identity, entry in enumerate(annotations, start=1):
        entry |= {"id": identity, "iscrowd": 0}
    results = [
        entry | {"score": float(score)}
        for number, boxes in enumerate(found)
        for entry, score in zip(_entries(number, boxes), boxes.scores, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports on stdout
        reference = COCO()
        reference.dataset = {
            "info": {},
            "images": [{"id": number} for number in range(len(truth))],
            "annotations": annotations,
            "categories": [{"id": class_id} for class_id in range(classes)],
        }
        reference.createIndex()
        if not results:
            return Accuracy(0.0, 0.0, 0.0, len(truth))
        evaluation = COCOeval(reference, reference.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # [IoU, recall, class], all sizes, 100 detections
    return Accuracy(_mean(precision), _mean(precision[0]), _mean(precision[5]), len(truth))


def _mean(precision: NDArray[np.float64]) -> float:
    """Over what was measured; classes without an object are -1."""
    return float(precision[precision > -1].mean())


def _entries(number: int, boxes: Boxes) -> list[dict[str, Any]]:
    entries = []
    for (x0, y0, x1, y1), class_id in zip(boxes.corners.tolist(), boxes.classes.tolist(), strict=True):
        size = (x1 - x0, y1 - y0)
        box = [x0, y0, *size]
        entries.append({"image_id": number, "category_id": class_id, "bbox": box, "area": size[0] * size[1]})
    return entries
