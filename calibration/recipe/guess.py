"""What an exported model is for, guessed from its outputs: which decoder reads it, and why.

In: the outputs of some pictures by name, the size of the input, metadata. Out: a decoder with its reason, or None. By
what exporters write down first (Ultralytics: task, names), then by names and shapes. Pure.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx

from edged.engines.decoder_spec import (
    BoxesDecoder,
    CenterDecoder,
    CenterFaceDecoder,
    ClassifyDecoder,
    Decoder,
    DetectionsDecoder,
    DflDecoder,
    EmbedDecoder,
    ScrfdDecoder,
    SemanticDecoder,
    YoloDecoder,
    YoloxDecoder,
    YunetDecoder,
)
from edged_calibration.recipe.resolve import Probe

STRIDES: Final = (8, 16, 32)
_EMBEDDING_NAMES: Final = ("embed", "feat", "vector", "descriptor")
_MOST_BINS: Final = 33


@dataclass(frozen=True)
class ExportedModel:
    """What a guess is made from: outputs by name, [pictures, ...], the input's size, what the exporter wrote down."""

    probe: Probe
    width: int
    height: int
    metadata: Mapping[str, str]

    def cells(self, strides: tuple[int, ...]) -> int:
        """Of the feature maps of these strides together."""
        return sum(-(-self.width // stride) * -(-self.height // stride) for stride in strides)

    def of_rank(self, rank: int) -> dict[str, Any]:
        return {name: value for name, value in self.probe.items() if value.ndim == rank}


Found = tuple[Decoder, str]


def metadata_of(model: onnx.ModelProto) -> dict[str, str]:
    """What the exporter wrote beside the graph."""
    return {entry.key: entry.value for entry in model.metadata_props}


def labels_of(metadata: Mapping[str, str]) -> list[str]:
    """The names of the classes, in order, as Ultralytics writes them: {0: 'person', ...} or a list; [] without."""
    try:
        names = ast.literal_eval(metadata.get("names", ""))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names)]
    return [str(name) for name in names] if isinstance(names, list | tuple) else []


def guess(exported: ExportedModel) -> Found | None:
    """The first guess that fits; None if nothing does."""
    for rule in _RULES:
        found = rule(exported)
        if found is not None:
            return found
    return None


def _ultralytics(exported: ExportedModel) -> Found | None:
    task = exported.metadata.get("task", "")
    rows = sorted(exported.of_rank(3), key=lambda name: -exported.probe[name].size)
    flat = list(exported.of_rank(2))
    if task == "classify" and flat:
        return ClassifyDecoder(flat[0]), "its metadata says classify"
    if task not in ("detect", "segment", "pose", "obb") or not rows:
        return None
    more: dict[str, Any] = {}
    if task == "pose":
        try:
            count, values = ast.literal_eval(exported.metadata.get("kpt_shape", "[17, 3]"))
            more = {"keypoints": int(count), "keypoint_values": 2 if int(values) == 2 else 3}
        except (ValueError, SyntaxError, TypeError):
            more = {"keypoints": 17}
    if task == "obb":
        more = {"oriented": True}
    return YoloDecoder(rows[0], **more), f"its metadata says {task}"


def _yunet(exported: ExportedModel) -> Found | None:
    groups = {key: _by_stride(exported, key) for key in ("cls", "obj", "bbox", "kps")}
    if not all(groups.values()) or len({len(names) for names in groups.values()}) > 1:
        return None
    scores, objectness, boxes, points = (list(found.values()) for found in groups.values())
    decoder = YunetDecoder(scores, objectness, boxes, points, tuple(groups["cls"]))
    return decoder, "outputs cls, obj, bbox and kps for each stride: YuNet"


def _by_stride(exported: ExportedModel, prefix: str) -> dict[int, str]:
    found = {}
    for name in exported.of_rank(3):
        head, _, tail = name.rpartition("_")
        if head == prefix and tail.isdecimal():
            found[int(tail)] = name
    return dict(sorted(found.items()))


def _scrfd(exported: ExportedModel) -> Found | None:
    groups: dict[int, list[str]] = {1: [], 4: [], 10: []}
    for name, value in exported.of_rank(3).items():
        if value.shape[2] not in groups:
            return None
        groups[value.shape[2]].append(name)
    for names in groups.values():
        names.sort(key=lambda name: -exported.probe[name].shape[1])
    scores, boxes, points = groups.values()
    if len(scores) < 2 or len(scores) != len(boxes) or len(points) not in (0, len(scores)):
        return None
    strides = (8, 16, 32, 64, 128)[: len(scores)]
    anchors, rest = divmod(exported.probe[scores[0]].shape[1], exported.cells((8,)))
    if rest or any(
        exported.probe[n].shape[1] != anchors * exported.cells((s,)) for n, s in zip(scores, strides, strict=True)
    ):
        return None
    return ScrfdDecoder(scores, boxes, points, strides, anchors), "scores, boxes and points for each stride: SCRFD"


def _maps(exported: ExportedModel) -> Found | None:
    maps = exported.of_rank(4)
    sides = {value.shape[2:] for value in maps.values()}
    by_channels: dict[int, list[str]] = {}
    for name, value in maps.items():
        by_channels.setdefault(value.shape[1], []).append(name)
    if len(maps) == 4 and len(sides) == 1 and {k: len(v) for k, v in by_channels.items()} == {1: 1, 2: 2, 10: 1}:
        scale, offset = sorted(by_channels[2], key=lambda name: "off" in name.lower())
        stride = exported.height // sides.pop()[0]
        return CenterFaceDecoder(by_channels[1][0], scale, offset, by_channels[10][0], stride), "four maps: CenterFace"
    if len(maps) == 2 and len(sides) == 1 and len(exported.probe) == 2 and len(by_channels.get(4, [])) == 1:
        (scores,) = (name for name in maps if name != by_channels[4][0])
        return CenterDecoder(scores, by_channels[4][0], exported.height // sides.pop()[0]), "a heat map and distances"
    return None


def _distributions(exported: ExportedModel) -> Found | None:
    """Raw heads with distributions: two tensors a stride, or one a stride with both."""
    maps, rows = exported.of_rank(4), exported.of_rank(3)
    if len(maps) == len(exported.probe) and len(maps) >= 2 and len({value.shape[1] for value in maps.values()}) == 1:
        names = sorted(maps, key=lambda name: -exported.probe[name].shape[2])
        strides = tuple(exported.height // exported.probe[name].shape[2] for name in names)
        if exported.probe[names[0]].shape[1] > 64:
            reason = "one map a stride with 64 values before the classes: the raw head of YOLOv8"
            return DflDecoder(names, names, strides, 16, "maps", True, 0.5, "sigmoid"), reason
    if len(rows) != len(exported.probe) or len(rows) < 4 or len(rows) % 2:
        return None
    widths = sorted({value.shape[2] for value in rows.values()})
    sides = next((w for w in reversed(widths) if w % 4 == 0 and 8 <= w <= 4 * _MOST_BINS), 0)
    boxes = [name for name in rows if rows[name].shape[2] == sides]
    scores = [name for name in rows if name not in boxes]
    if len(widths) != 2 or len(boxes) != len(scores):
        return None
    boxes.sort(key=lambda name: -rows[name].shape[1])
    scores.sort(key=lambda name: -rows[name].shape[1])
    strides = (8, 16, 32, 64)[: len(scores)]
    return DflDecoder(scores, boxes, strides, sides // 4), "scores and distances for each stride: PicoDet"


def _rows_of_a_grid(exported: ExportedModel) -> Found | None:
    """One tensor of raw candidates: YOLOX, NanoDet."""
    if len(exported.probe) != 1 or len(exported.of_rank(3)) != 1:
        return None
    ((name, value),) = exported.probe.items()
    count, width = value.shape[1:]
    first = value[..., :4]
    probable = first.min() >= -0.01 and first.max() <= 1.01
    near = np.abs(first[..., :2]).max() < min(exported.width, exported.height) / 8
    if count == exported.cells(STRIDES) and width > 5 and near and not probable:
        return YoloxDecoder(name), "raw candidates of strides 8, 16 and 32: YOLOX"
    for strides in (STRIDES, (*STRIDES, 64)):
        if count == exported.cells(strides) and width > 32 and first.min() >= -0.01 and first.max() <= 1.01:
            return DflDecoder([name], [name], strides, 8, center=0.0), "class scores before 4 x 8 values: NanoDet-Plus"
    return None


def _pairs(exported: ExportedModel) -> Found | None:
    rows = exported.of_rank(3)
    boxes = [name for name, value in rows.items() if 4 in value.shape[1:]]
    if len(rows) == 2 and len(boxes) == 1 and len(exported.probe) == 2:
        (scores,) = (name for name in rows if name not in boxes)
        detr = exported.probe[scores].shape[1] <= 1000
        reason = "scores and boxes of few candidates: DETR family, no NMS" if detr else "scores and boxes: SSD"
        return BoxesDecoder(scores, boxes[0], iou_threshold=1.0 if detr else 0.5), reason
    flat = exported.of_rank(2)
    if len(rows) == 1 and len(boxes) == 1 and 1 <= len(flat) <= 3:
        count = rows[boxes[0]].shape[1]
        flat = {name: value for name, value in flat.items() if value.shape[1] == count}
        labels = [name for name in flat if any(word in name.lower() for word in ("label", "class"))]
        sure = [name for name in flat if name not in labels]
        if len(sure) == 1 and len(labels) <= 1:
            return DetectionsDecoder(boxes[0], sure[0], labels[0] if labels else ""), "the graph has its own NMS"
    return None


def _single(exported: ExportedModel) -> Found | None:
    if len(exported.probe) > 2:
        return None
    rows = list(exported.of_rank(3))
    if len(rows) == 1 and exported.probe[rows[0]].dtype == np.float32 and max(exported.probe[rows[0]].shape[1:]) >= 16:
        value = exported.probe[rows[0]]
        if min(value.shape[1:]) >= 5 and not (value == np.rint(value)).all():
            return YoloDecoder(rows[0]), "one tensor of candidates: YOLO"
    if len(exported.probe) != 1:
        return None
    ((name, value),) = exported.probe.items()
    if value.ndim == 3 and (value == np.rint(value)).all():
        return SemanticDecoder(name, True), "a whole number for each cell: a class map"
    if value.ndim == 4 and value.shape[1] > 1 and value.shape[2] > 1:
        return SemanticDecoder(name), "scores for each cell: a class map"
    flat = value.reshape(len(value), -1)
    if value.ndim == 2 or (value.ndim == 4 and flat.shape[1] == value.shape[1]):
        unit = np.allclose(np.linalg.norm(flat, axis=1), 1, atol=1e-3) and flat.shape[1] >= 32 and flat.min() < 0
        if unit or any(word in name.lower() for word in _EMBEDDING_NAMES):
            return EmbedDecoder(name), "a vector: an embedding"
        return ClassifyDecoder(name), "one number for each class"
    return None


_RULES: Final[tuple[Callable[[ExportedModel], Found | None], ...]] = (
    _ultralytics, _yunet, _scrfd, _maps, _distributions, _rows_of_a_grid, _pairs, _single,
)  # fmt: skip
