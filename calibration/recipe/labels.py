"""What is in the pictures, as people wrote it down: COCO JSON, a CSV of file and label, or one folder a class.

In: a file and the names of the pictures. Out: the truth of every picture; a label that does not fit is refused by name.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from edged.errors import UsageError
from edged_calibration.evaluate.average_precision import Boxes

Truth = Boxes | int
"""The objects in a picture, in its own pixels, or its class."""


def from_folders(names: Sequence[str], labels: Sequence[str]) -> dict[str, Truth]:
    """The class of each picture is the name of the folder it lies in."""
    known = {label: index for index, label in enumerate(labels)}
    found: dict[str, Truth] = {}
    for name in names:
        folder = PurePosixPath(name).parent.name
        if folder not in known:
            raise UsageError(
                f"{name} lies in the folder {folder!r}, which is not one of the {len(labels)} classes",
                "name the folders after the recipe's labels, or add the label",
            )
        found[name] = known[folder]
    return found


def from_csv(path: Path, names: Sequence[str], labels: Sequence[str]) -> dict[str, Truth]:
    """Rows of file,label; the label by name or by number."""
    known = {label: index for index, label in enumerate(labels)}
    rows: dict[str, Truth] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, row in enumerate(csv.reader(file), start=1):
                if not row or (number == 1 and row[0].lower() in ("file", "name", "path", "image")):
                    continue
                if len(row) != 2:
                    raise UsageError(f"{path}: line {number} has {len(row)} fields", "write file,label on each line")
                text = row[1].strip()
                class_id = known.get(text, int(text) if text.isdecimal() else -1)
                if not 0 <= class_id < len(labels):
                    raise UsageError(
                        f"{path}: line {number}: {text!r} is not one of the {len(labels)} classes",
                        f"the classes are {_some(labels)}",
                    )
                rows[row[0].strip()] = class_id
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read: {_why(error)}", "write file,label on each line") from error
    return _for_names(path, names, rows)


def from_coco(path: Path, names: Sequence[str], labels: Sequence[str]) -> dict[str, Truth]:
    """Boxes of the COCO format; categories are the recipe's labels by name. Crowds are left out."""
    try:
        data = json.loads(path.read_bytes())
        images = {entry["id"]: str(entry["file_name"]) for entry in data["images"]}
        categories = {entry["id"]: str(entry["name"]) for entry in data["categories"]}
        annotations = [entry for entry in data["annotations"] if not entry.get("iscrowd")]
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", "give the COCO file of the pictures") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"{path} is not a COCO file of boxes: {_why(error)}",
            "it holds images, annotations and categories, as the COCO detection format has them",
        ) from error
    known = {label: index for index, label in enumerate(labels)}
    strange = sorted(set(categories.values()) - set(known))
    if strange:
        raise UsageError(
            f"{path}: the category {strange[0]!r} is not one of the {len(labels)} classes",
            f"the recipe's labels are {_some(labels)}",
        )
    boxes: dict[str, list[tuple[list[float], int]]] = {name: [] for name in images.values()}
    for entry in annotations:
        try:
            x, y, width, height = (float(value) for value in entry["bbox"])
            name, class_id = images[entry["image_id"]], known[categories[entry["category_id"]]]
        except (KeyError, TypeError, ValueError) as error:
            where = entry.get("id") if isinstance(entry, dict) else entry
            raise UsageError(f"{path}: annotation {where} does not fit: {_why(error)}", "fix the file") from error
        if not (np.isfinite([x, y, width, height]).all() and width > 0 and height > 0):
            raise UsageError(f"{path}: annotation {entry.get('id')} has an empty box", "repair or remove it")
        boxes[name].append(([x, y, x + width, y + height], class_id))
    return _for_names(path, names, {name: _boxes(found) for name, found in boxes.items()})


def _boxes(found: list[tuple[list[float], int]]) -> Boxes:
    corners = np.array([box for box, _ in found], np.float32).reshape(-1, 4)
    classes = np.array([class_id for _, class_id in found], np.int64)
    return Boxes(corners, classes, np.ones(len(found), np.float32))


def _for_names(path: Path, names: Sequence[str], rows: dict[str, Truth]) -> dict[str, Truth]:
    """The truth of every picture, by its path in the folder or by its bare name."""
    by_name = {PurePosixPath(name).name: truth for name, truth in rows.items()}
    missing = [name for name in names if name not in rows and PurePosixPath(name).name not in by_name]
    if missing:
        raise UsageError(
            f"{path} says nothing of {len(missing)} of {len(names)} pictures, {missing[0]} among them",
            "give the labels of this very folder, or take the pictures out",
        )
    return {name: rows[name] if name in rows else by_name[PurePosixPath(name).name] for name in names}


def _some(labels: Sequence[str]) -> str:
    return ", ".join(labels[:8]) + (" ..." if len(labels) > 8 else "")


def _why(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing"
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)[:200]
