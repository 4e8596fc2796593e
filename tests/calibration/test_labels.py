"""Labels in three forms; one that does not fit is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edged.errors import UsageError
from edged_calibration.evaluate.average_precision import Boxes
from edged_calibration.recipe.labels import from_coco, from_csv, from_folders

LABELS = ["cat", "dog"]
NAMES = ["a.png", "sub/b.png"]


def coco(path: Path, **changes: object) -> Path:
    data = {
        "images": [{"id": 7, "file_name": "a.png"}, {"id": 9, "file_name": "b.png"}],
        "categories": [{"id": 3, "name": "dog"}, {"id": 1, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 10, 20]},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 5, 5], "iscrowd": 1},
        ],
    } | changes
    file = path / "coco.json"
    file.write_text(json.dumps(data))
    return file


def test_coco_boxes_become_corners_and_classes_by_name(tmp_path: Path) -> None:
    found = from_coco(coco(tmp_path), NAMES, LABELS)
    first, second = found["a.png"], found["sub/b.png"]
    assert isinstance(first, Boxes) and isinstance(second, Boxes)
    assert first.corners.tolist() == [[1, 2, 11, 22]] and first.classes.tolist() == [1]
    assert second.corners.shape == (0, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": [{"id": 3, "name": "horse"}]}, "category 'horse'"),
        ({"images": [{"id": 7, "file_name": "a.png"}]}, "nothing of 1 of 2 pictures, sub/b.png"),
        ({"annotations": [{"id": 5, "image_id": 70, "category_id": 3, "bbox": [0, 0, 1, 1]}]}, "annotation 5"),
        ({"annotations": [{"id": 5, "image_id": 7, "category_id": 3, "bbox": [0, 0, 0, 1]}]}, "empty box"),
        ({"annotations": [{"id": 5, "image_id": 7, "category_id": 3, "bbox": [0, 0, 1]}]}, "annotation 5"),
        ({"annotations": 3}, "not a COCO file"),
        ({"images": None}, "not a COCO file"),
    ],
)
def test_coco_that_does_not_fit_is_reported(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        from_coco(coco(tmp_path, **changes), NAMES, LABELS)


def test_csv_takes_names_and_numbers(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("file,label\na.png,dog\nsub/b.png,0\n")
    assert from_csv(file, NAMES, LABELS) == {"a.png": 1, "sub/b.png": 0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png,horse\n", "line 1: 'horse' is not one of the 2 classes"),
        ("a.png,2\n", "'2' is not one"),
        ("a.png\n", "line 1 has 1 fields"),
        ("a.png,dog\n", r"nothing of 1 of 2 pictures, sub/b\.png"),
    ],
)
def test_csv_that_does_not_fit_is_reported(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        from_csv(file, NAMES, LABELS)


def test_folders_are_classes() -> None:
    assert from_folders(["x/cat/1.png", "dog/2.png"], LABELS) == {"x/cat/1.png": 0, "dog/2.png": 1}
    with pytest.raises(UsageError, match="folder 'horse'"):
        from_folders(["horse/1.png"], LABELS)


def test_a_file_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        from_coco(tmp_path / "none.json", NAMES, LABELS)
    with pytest.raises(UsageError, match="cannot be read"):
        from_csv(tmp_path / "none.csv", NAMES, LABELS)
