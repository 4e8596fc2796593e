"""Mean average precision of a detector, by pycocotools; and what it would have been on other draws of the pictures.

The matches between objects and detections are pycocotools' own. Precision over them is summed up here once more, with a
weight for every picture: a bootstrap needs hundreds of sums over the same matches, which take milliseconds this way.
"""

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

from edged.vision.results import Detections, taken
from edged.vision.similarity import similarity

_RECALLS = np.linspace(0, 1, 101)  # where precision is read off, as COCO does
_IOUS = 10  # thresholds from 0.50 to 0.95
MAX_DETECTIONS = 300
"""Of a picture: above it the answers of a model would not all be compared."""


@dataclass(frozen=True)
class Boxes:
    """The objects in one picture: corners [n, 4] (x0, y0, x1, y1) in pixels, class ids [n], scores [n] 0..1.

    The scores of a truth are not read. `seen`: the same objects with their masks, key points or oriented boxes, by
    which they are compared where both sides have them; None where only boxes are known.
    """

    corners: NDArray[Any]
    classes: NDArray[Any]
    scores: NDArray[Any]
    seen: Detections | None = None


@dataclass(frozen=True)
class ClassMatches:
    """Of one class: the detections of all pictures, best first, and the objects. `hit` is [10, detections]: whether it
    found an object, at each IoU; `picture` [detections]; `objects` [pictures]: how many there were."""

    hit: NDArray[np.bool_]
    picture: NDArray[np.int64]
    objects: NDArray[np.int64]


def matches(truth: Sequence[Boxes], found: Sequence[Boxes], classes: int) -> list[ClassMatches]:
    """What pycocotools matches, for every class. Raises ValueError without objects."""
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
    evaluations = _evaluate(annotations, results, truth, found, classes) if results else []
    matched = []
    for class_id in range(classes):
        objects = np.array([int((boxes.classes == class_id).sum()) for boxes in truth], np.int64)
        own = [entry for entry in evaluations if entry is not None and entry["category_id"] == class_id]
        matched.append(_class_matches(own, objects))
    return matched


def precision(matched: Sequence[ClassMatches], weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Average precision [10] at each IoU, mean over the classes that have objects; `weights` [pictures]."""
    sums = [_class_precision(entry, weights) for entry in matched]
    known = [entry for entry in sums if entry is not None]
    return np.mean(known, axis=0) if known else np.zeros(_IOUS)


class _Evaluation(COCOeval):  # type: ignore[misc]
    """pycocotools' matching, by the similarity of masks, key points or oriented boxes."""

    def __init__(self, reference: COCO, results: COCO, truth: Sequence[Boxes], found: Sequence[Boxes]) -> None:
        super().__init__(reference, results, "bbox")
        self._truth, self._found = truth, found

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802, N803 (pycocotools' names)
        """[detections, best first, objects] of one class in one picture."""
        first, second = self._truth[imgId].seen, self._found[imgId].seen
        if first is None or second is None:
            return super().computeIoU(imgId, catId)
        objects, detections = self._gts[imgId, catId], self._dts[imgId, catId]
        if not objects or not detections:
            return []
        order = np.argsort([-entry["score"] for entry in detections], kind="mergesort")[: self.params.maxDets[-1]]
        chosen = [detections[at]["at"] for at in order]
        return similarity(taken(first, [entry["at"] for entry in objects]), taken(second, chosen)).T


def _evaluate(
    annotations: list[dict[str, Any]], results: list[Any], truth: Sequence[Boxes], found: Sequence[Boxes], classes: int
) -> list[Any]:
    pictures = len(truth)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports on stdout
        reference = COCO()
        reference.dataset = {
            "info": {},
            "images": [{"id": number} for number in range(pictures)],
            "annotations": annotations,
            "categories": [{"id": class_id} for class_id in range(classes)],
        }
        reference.createIndex()
        evaluation = _Evaluation(reference, reference.loadRes(results), truth, found)
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.evaluate()
    return list(evaluation.evalImgs)


def _class_matches(evaluations: list[Any], objects: NDArray[np.int64]) -> ClassMatches:
    if not evaluations:
        return ClassMatches(np.zeros((_IOUS, 0), np.bool_), np.zeros(0, np.int64), objects)
    scores = np.concatenate([entry["dtScores"][:MAX_DETECTIONS] for entry in evaluations])
    pictures = [[entry["image_id"]] * len(entry["dtScores"][:MAX_DETECTIONS]) for entry in evaluations]
    order = np.argsort(-scores, kind="mergesort")
    hit = np.concatenate([np.asarray(entry["dtMatches"])[:, :MAX_DETECTIONS] > 0 for entry in evaluations], axis=1)
    return ClassMatches(hit[:, order], np.concatenate(pictures).astype(np.int64)[order], objects)


def _class_precision(entry: ClassMatches, weights: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    weights = np.ones(len(entry.objects)) if weights is None else weights
    objects = float(weights @ entry.objects)
    if not objects:
        return None
    each = weights[entry.picture]
    right = np.cumsum(entry.hit * each, axis=1)
    seen = np.cumsum(each)
    share = right / np.maximum(seen, 1e-12)
    envelope = np.maximum.accumulate(share[:, ::-1], axis=1)[:, ::-1]
    averages = np.zeros(_IOUS)
    for index in range(_IOUS):
        at = np.searchsorted(right[index] / objects, _RECALLS - 1e-12, side="left")
        reached = at[at < envelope.shape[1]]
        averages[index] = envelope[index, reached].sum() / len(_RECALLS)
    return averages


def _entries(number: int, boxes: Boxes) -> list[dict[str, Any]]:
    entries = []
    rows = zip(boxes.corners.tolist(), boxes.classes.tolist(), strict=True)
    for at, ((x0, y0, x1, y1), class_id) in enumerate(rows):
        size = (x1 - x0, y1 - y0)
        box = [x0, y0, *size]
        entry = {"image_id": number, "category_id": class_id, "bbox": box, "area": size[0] * size[1], "at": at}
        entries.append(entry)
    return entries
