"""What a decoder gave, on the wire: every kind of result, and back again as a reader would unpack it."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from edged.bus import schema
from edged.loop.result_fields import result_fields
from edged.vision.results import Classes, ClassMap, Detections, Embedding, Mask

LABELS = ["cat", "dog"]
ONE = Detections(np.array([[1, 2, 3, 4]], np.float32), np.array([0.5], np.float32), np.array([1]))


def wire(value: Any) -> Any:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value))


def test_boxes_alone_have_nothing_else_on_the_wire() -> None:
    assert wire(result_fields(ONE, LABELS)) == {
        "detections": [{"label": "dog", "class_id": 1, "score": 0.5, "box": [1, 2, 3, 4]}]
    }


def test_masks_key_points_and_corners_come_with_their_object() -> None:
    cells = np.array([[0, 1, 1], [1, 0, 0]], bool)
    points = np.array([[[5, 6, 0.25]]], np.float32)
    around = np.arange(8, dtype=np.float32).reshape(1, 4, 2)
    seen = Detections(ONE.boxes, ONE.scores, ONE.class_ids, (Mask(cells, 8.0, 4.0, 2.0, 2.0),), points, around)
    (found,) = wire(result_fields(seen, LABELS))["detections"]
    assert found["keypoints"] == [[5, 6, 0.25]] and found["corners"] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    mask = found["mask"]
    assert (mask["x"], mask["y"], mask["columns"], mask["rows"]) == (8, 4, 3, 2)
    assert unpacked(mask) == cells.tolist()
    assert msgspec.convert(found, schema.Detection).label == "dog"


def unpacked(mask: dict[str, Any]) -> list[list[bool]]:
    """The cells by the documented rule: runs in turns outside and inside."""
    flat: list[bool] = []
    for turn, length in enumerate(mask["runs"]):
        flat += [bool(turn % 2)] * length
    return [flat[row * mask["columns"] : (row + 1) * mask["columns"]] for row in range(mask["rows"])]


def test_masks_that_begin_inside_or_are_empty_or_full_unpack_too() -> None:
    for cells in ([[1, 1], [0, 1]], [[0, 0], [0, 0]], [[1, 1], [1, 1]], [[1, 0], [1, 0]]):
        array = np.array(cells, bool)
        seen = Detections(ONE.boxes, ONE.scores, ONE.class_ids, (Mask(array, 0, 0, 1, 1),))
        mask = wire(result_fields(seen, LABELS))["detections"][0]["mask"]
        assert unpacked(mask) == array.tolist() and sum(mask["runs"]) == 4


def test_classes_class_maps_and_vectors() -> None:
    classes = Classes(np.array([1]), np.array([0.5], np.float32))
    assert wire(result_fields(classes, LABELS)) == {"classes": [{"label": "dog", "class_id": 1, "score": 0.5}]}
    cells = ClassMap(np.array([[0, 0, 1], [1, 1, 0]]))
    assert wire(result_fields(cells, LABELS)) == {"class_map": {"columns": 3, "rows": 2, "runs": [0, 2, 1, 3, 0, 1]}}
    assert wire(result_fields(Embedding(np.array([1, 0], np.float32)), LABELS)) == {"embedding": [1.0, 0.0]}
