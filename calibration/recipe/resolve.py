"""What a recipe leaves out of its decoder, read from the model: layout, what stands behind the classes, the activation.

In: the decoder as the recipe has it, the outputs of some pictures, the number of labels if there are any. Out: the
decoder as the manifest will have it. Decided by shapes first; where these allow two readings, by the values: class
probabilities lie between 0 and 1, coordinates and angles do not. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray

from edged.engines.decoder_spec import (
    Activation,
    BoxesDecoder,
    ClassifyDecoder,
    Decoder,
    DetectionsDecoder,
    SemanticDecoder,
    YoloDecoder,
)
from edged_calibration.graph.index import Graph

Probe = Mapping[str, NDArray[Any]]
"""Outputs by name, [pictures, ...]."""

_SLACK: Final = 0.01
_MOST_RANKED: Final = 1000  # rows that a graph with its own NMS gives
_SURE: Final = 0.5
_UNIT: Final = 2.0  # coordinates up to that are shares of the input's sides
_SAME_SHAPE: Final = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Transpose", "DequantizeLinear"}


def resolve(output: Decoder, model: onnx.ModelProto, probe: Probe, classes: int | None) -> Decoder:
    """The decoder with every field decided. What cannot be decided stays as it is, and is refused by its shape."""
    match output:
        case YoloDecoder() if output.predictions in probe and probe[output.predictions].ndim == 3:
            return _yolo(output, model, probe, classes)
        case BoxesDecoder() if output.scores in probe and output.boxes in probe:
            return _boxes(output, probe[output.scores], probe[output.boxes], classes)
        case DetectionsDecoder() if output.unit is None and output.boxes in probe:
            boxes = probe[output.boxes]
            return msgspec.structs.replace(output, unit=bool(np.abs(boxes).max(initial=0.0) <= _UNIT))
        case ClassifyDecoder() if output.activation is None and output.logits in probe:
            return msgspec.structs.replace(output, activation=activation_left(model, output.logits, probe))
        case SemanticDecoder() if output.class_map is None and output.scores in probe:
            values = probe[output.scores]
            return msgspec.structs.replace(
                output, class_map=bool(values.ndim == 3 and (values == np.rint(values)).all())
            )
        case _:
            return output


def activation_left(model: onnx.ModelProto, name: str, probe: Probe) -> Activation:
    """Which activation a reader of class scores has to apply: none where the graph ends in one."""
    graph = Graph(model)
    node = graph.producers.get(name)
    while node is not None and node.op_type in _SAME_SHAPE:
        node = graph.producers.get(node.input[0])
    if node is not None and node.op_type in ("Softmax", "Sigmoid", "HardSigmoid"):
        return "none"
    values = probe[name].reshape(len(probe[name]), -1).astype(np.float64)
    if values.shape[1] > 1 and (values >= 0).all() and np.allclose(values.sum(axis=1), 1, atol=_SLACK):
        return "none"
    return "softmax"


def _yolo(output: YoloDecoder, model: onnx.ModelProto, probe: Probe, classes: int | None) -> YoloDecoder:
    values = probe[output.predictions]
    output = _with_prototypes(output, probe)
    if output.layout == "end_to_end" or (output.layout is None and _is_ranked(values)):
        return _ranked(output, values, model)
    if output.layout is None:
        output = msgspec.structs.replace(output, layout=_layout(output, values, classes))
    rows = values.transpose(0, 2, 1) if output.layout == "columns" else values
    if np.abs(rows[..., :4]).max(initial=0) <= _UNIT and rows.shape[1] > 1:
        output = msgspec.structs.replace(output, unit=True)
        if rows.shape[1] <= _MOST_RANKED and output.iou_threshold == YoloDecoder("").iou_threshold:
            output = msgspec.structs.replace(output, iou_threshold=1.0)  # a transformer's queries: no NMS is meant
    return _behind(output, rows, model, classes)


def _with_prototypes(output: YoloDecoder, probe: Probe) -> YoloDecoder:
    """With the output of mask prototypes, if there is one: the only other one of [N, M, h, w]."""
    name = output.prototypes
    maps = [other for other, value in probe.items() if value.ndim == 4 and other != output.predictions]
    if not name and len(maps) == 1 and 8 <= probe[maps[0]].shape[1] <= 256 and not output.keypoints:
        name = maps[0]
    if name not in probe:
        return output
    return msgspec.structs.replace(output, prototypes=name, mask_channels=probe[name].shape[1])


def _is_ranked(values: NDArray[Any]) -> bool:
    """Whether rows are objects of a graph's own NMS: few, with a whole class id, the best first."""
    if values.shape[2] < 6 or values.shape[1] > _MOST_RANKED:
        return False
    for score, class_id in ((4, 5), (1, 0), (6, 5)):
        if max(score, class_id) >= values.shape[2]:
            continue
        scores, class_ids = values[..., score], values[..., class_id]
        whole = (class_ids == np.rint(class_ids)).all() and class_ids.min(initial=0) >= -1
        if whole and (np.diff(scores, axis=1) <= 1e-6).all() and scores.max(initial=0) <= 1 + _SLACK:
            return True
    return False


def _ranked(output: YoloDecoder, values: NDArray[Any], model: onnx.ModelProto) -> YoloDecoder:
    extra = values.shape[2] - 6
    order = output.order
    if order is None:
        paddle = "paddle" in model.producer_name.lower()
        order = "class_score_box" if paddle else "box_score_class"
        if extra == 1 and not output.oriented:
            order = "batch_box_class_score"
    more: dict[str, Any] = {}
    if order == "box_score_class" and not output.prototypes and not output.keypoints and not output.oriented:
        if extra == 1:
            more = {"oriented": True}
        elif extra and extra % 3 == 0:
            more = {"keypoints": extra // 3}
    return msgspec.structs.replace(output, layout="end_to_end", objectness=False, order=order, **more)


def _layout(output: YoloDecoder, values: NDArray[Any], classes: int | None) -> Any:
    """Which axis runs over the values of a candidate: the one that the labels explain, else the shorter one."""
    first, second = values.shape[1:]
    if classes is not None:
        plain = 4 + classes + output.extra
        explained = [first in (plain, plain + 1), second in (plain, plain + 1)]
        if explained[0] != explained[1]:
            return "columns" if explained[0] else "rows"
    return "columns" if first < second else "rows"


def _behind(output: YoloDecoder, rows: NDArray[Any], model: onnx.ModelProto, classes: int | None) -> YoloDecoder:
    """What stands beside the class probabilities; rows [pictures, A, V]."""
    width = rows.shape[2]
    if output.objectness is not None:
        return output
    if classes is None:
        anchored = output.layout == "rows" and width - 5 - output.extra >= 1
        return msgspec.structs.replace(output, objectness=anchored)
    left = width - 4 - classes - output.extra
    behind = rows[..., 4 + classes :]
    beyond = bool(left > 0 and (behind.min() < -_SLACK or behind.max() > 1 + _SLACK))
    more: dict[str, Any] = {"objectness": False}
    if left == 1 and output.layout == "columns" and beyond:
        more["oriented"] = True
    elif left == 1 and _has_objectness(rows[..., : 5 + classes], model, output.layout == "rows"):
        more["objectness"] = True
    elif beyond and not output.extra and left >= 2 and (left % 3 == 0 or left % 2 == 0):
        more |= {"keypoint_values": 3 if left % 3 == 0 else 2, "keypoints": left // (3 if left % 3 == 0 else 2)}
    return msgspec.structs.replace(output, **more)


def _has_objectness(rows: NDArray[Any], model: onnx.ModelProto, likely: bool) -> bool:
    """Whether the fifth value is objectness and not the first of one class more than there are labels.

    Anchors show it (five axes in the graph); else the values: where objectness is high, so is some class, while of two
    class probabilities one is low.
    """
    if any(
        node.op_type == "Transpose" and len(node.attribute[0].ints) == 5 for node in model.graph.node if node.attribute
    ):
        return True
    fifth, others = rows[..., 4], rows[..., 5:].max(axis=-1)
    if min(fifth.min(), others.min()) < -_SLACK or max(fifth.max(), others.max()) > 1 + _SLACK:
        return False
    sure = fifth >= _SURE
    if sure.sum() >= 2:
        return bool((others[sure] >= _SURE).mean() > 0.5)
    if (others >= _SURE).sum() >= 2:
        return False  # a class without an object: it is no objectness
    return likely


def _boxes(output: BoxesDecoder, scores: NDArray[Any], boxes: NDArray[Any], classes: int | None) -> BoxesDecoder:
    if scores.ndim != 3 or boxes.ndim != 3 or 4 not in boxes.shape[1:]:
        return output
    columns = output.columns or (boxes.shape[1] == 4 and boxes.shape[2] != 4)
    if columns:
        scores, boxes = scores.transpose(0, 2, 1), boxes.transpose(0, 2, 1)
    background = output.background
    probable = bool(scores.min() >= -_SLACK and scores.max() <= 1 + _SLACK)
    if background is None:
        one_more = classes is not None and scores.shape[2] == classes + 1
        mean = scores.mean(axis=(0, 1))
        background = ("first" if mean[0] >= mean[-1] else "last") if one_more else "none"
    activation = output.activation
    if activation is None:
        activation = "none" if probable else "sigmoid" if background == "none" else "softmax"
    unit = output.unit
    if unit is None:
        unit = bool(not output.anchors and np.abs(boxes).max(initial=0) <= _UNIT)
    form = output.box
    if form is None:
        ordered = (boxes[..., 2:] >= boxes[..., :2]).all(axis=-1).mean()
        form = "xyxy" if ordered > 0.9 else "cxcywh"
    return msgspec.structs.replace(
        output, columns=columns, background=background, activation=activation, unit=unit, box=form
    )
