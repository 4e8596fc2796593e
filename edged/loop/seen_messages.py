"""What a decoder gave, as the fields of a `result` message. Pure; runs on the engine loop's thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edged.bus import schema
from edged.vision.results import Classes, ClassMap, Detections, Mask, Seen, plain


def seen_fields(seen: Seen, labels: Sequence[str]) -> dict[str, Any]:
    """The one field of a result that fits what was seen."""
    match seen:
        case Detections():
            return {"detections": _detections(seen, labels)}
        case Classes():
            return {
                "classes": [
                    schema.ClassScore(labels[class_id], class_id, score)
                    for class_id, score in zip(seen.class_ids.tolist(), seen.scores.tolist(), strict=True)
                ]
            }
        case ClassMap():
            rows, columns = seen.class_ids.shape
            return {"class_map": schema.ClassMap(columns, rows, _runs(seen.class_ids.ravel()))}
        case _:
            return {"embedding": seen.vector.tolist()}


def _detections(seen: Detections, labels: Sequence[str]) -> list[schema.Detection]:
    found = zip(seen.class_ids.tolist(), seen.scores.tolist(), seen.boxes.tolist(), strict=True)
    if plain(seen):
        return [
            schema.Detection(labels[class_id], class_id, score, (box[0], box[1], box[2], box[3]))
            for class_id, score, box in found
        ]
    more: list[dict[str, Any]] = [{} for _ in seen.scores]
    for index, fields in enumerate(more):
        if seen.masks is not None:
            fields["mask"] = _mask(seen.masks[index])
        if seen.keypoints is not None:
            fields["keypoints"] = [tuple(point) for point in seen.keypoints[index].tolist()]
        if seen.corners is not None:
            fields["corners"] = tuple(tuple(corner) for corner in seen.corners[index].tolist())
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
