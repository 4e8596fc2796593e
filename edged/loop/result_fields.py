"""What a decoder gave, as the fields of a `result` message. Pure; runs on the engine loop's thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edged.bus import schema
from edged.vision.results import Classes, ClassMap, Detections, Mask, Predictions, plain


def result_fields(predictions: Predictions, labels: Sequence[str]) -> dict[str, Any]:
    """The one field of a result that fits the predictions."""
    match predictions:
        case Detections():
            return {"detections": _detections(predictions, labels)}
        case Classes():
            return {
                "classes": [
                    schema.ClassScore(labels[class_id], class_id, score)
                    for class_id, score in zip(predictions.class_ids.tolist(), predictions.scores.tolist(), strict=True)
                ]
            }
        case ClassMap():
            rows, columns = predictions.class_ids.shape
            return {"class_map": schema.ClassMap(columns, rows, _runs(predictions.class_ids.ravel()))}
        case _:
            return {"embedding": predictions.vector.tolist()}


def _detections(detections: Detections, labels: Sequence[str]) -> list[schema.Detection]:
    found = zip(detections.class_ids.tolist(), detections.scores.tolist(), detections.boxes.tolist(), strict=True)
    if plain(detections):
        return [
            schema.Detection(labels[class_id], class_id, score, (box[0], box[1], box[2], box[3]))
            for class_id, score, box in found
        ]
    more: list[dict[str, Any]] = [{} for _ in detections.scores]
    for index, fields in enumerate(more):
        if detections.masks is not None:
            fields["mask"] = _mask(detections.masks[index])
        if detections.keypoints is not None:
            fields["keypoints"] = [tuple(point) for point in detections.keypoints[index].tolist()]
        if detections.corners is not None:
            fields["corners"] = tuple(tuple(corner) for corner in detections.corners[index].tolist())
    return [
        schema.Detection(labels[class_id], class_id, score, (box[0], box[1], box[2], box[3]), **fields)
        for (class_id, score, box), fields in zip(found, more, strict=True)
    ]


def _mask(mask: Mask) -> schema.Mask:
    rows, columns = mask.cells.shape
    flat = np.concatenate(([False], mask.cells.ravel(), [False]))
    turns = np.flatnonzero(flat[1:] != flat[:-1])
    runs = np.diff(np.concatenate(([0], turns, [rows * columns]))) if turns.size else np.array([rows * columns])
    return schema.Mask(mask.x, mask.y, mask.cell_width, mask.cell_height, columns, rows, runs.tolist())


def _runs(values: np.ndarray[Any, np.dtype[np.int64]]) -> list[int]:
    """Class id and how many cells, in turns."""
    starts = np.concatenate(([0], np.flatnonzero(values[1:] != values[:-1]) + 1))
    lengths = np.diff(np.concatenate((starts, [len(values)])))
    return np.stack((values[starts], lengths), axis=1).ravel().tolist()  # type: ignore[no-any-return]
