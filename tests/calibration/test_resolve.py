"""What a recipe leaves open is read from the model: layouts, what stands behind the classes, the last activation."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from edged.engines import decoder_spec as spec
from edged_calibration.recipe.resolve import resolve

RNG = np.random.default_rng(0)


def graph(*kinds: str, producer: str = "") -> onnx.ModelProto:
    """A chain of nodes from x to p."""
    names = ["x", *(f"t{n}" for n in range(len(kinds) - 1)), "p"]
    nodes = [helper.make_node(kind, [names[n]], [names[n + 1]], name=kind) for n, kind in enumerate(kinds)]
    found = helper.make_model(helper.make_graph(nodes, "g", [], []))
    found.producer_name = producer
    return found


def rows(classes: int, *, objectness: bool = False, count: int = 40) -> NDArray[Any]:
    """[2, count, 4 + C]: centres and sizes in pixels, then probabilities; an object now and then."""
    boxes = RNG.uniform(5, 100, (2, count, 4))
    chances = RNG.uniform(0, 0.1, (2, count, classes))
    chances[:, ::7, 0] = 0.9
    if not objectness:
        return np.concatenate([boxes, chances], axis=2).astype(np.float32)
    sure = np.where(chances.max(axis=2, keepdims=True) > 0.5, 0.95, 0.02)
    return np.concatenate([boxes, sure, chances], axis=2).astype(np.float32)


def yolo(values: NDArray[Any], classes: int | None, model: onnx.ModelProto | None = None, **more: Any) -> Any:
    asked = spec.YoloDecoder("p", **more.pop("asked", {}))
    return resolve(asked, model or graph("Concat"), {"p": values, **more}, classes)


@pytest.mark.parametrize("classes", [1, 3, 80])
@pytest.mark.parametrize("named", [True, False])
def test_columns_and_rows(classes: int, named: bool) -> None:
    values = rows(classes, count=120)
    count = classes if named else None
    assert yolo(values.transpose(0, 2, 1), count).layout == "columns"
    found = yolo(values, count)
    assert found.layout == "rows"
    if named:
        assert not found.objectness and found.extra == 0


@pytest.mark.parametrize("classes", [1, 3, 80])
def test_objectness_is_distinguished_from_a_class_without_a_label(classes: int) -> None:
    assert yolo(rows(classes, objectness=True), classes).objectness
    more_classes = rows(classes + 1)
    more_classes[:, 3::7, 5] = 0.9  # each class alone
    assert not yolo(more_classes, classes).objectness


def test_masks_need_their_prototypes() -> None:
    values = np.concatenate([rows(3), RNG.normal(0, 1, (2, 40, 32)).astype(np.float32)], axis=2)
    found = yolo(values.transpose(0, 2, 1), 3, protos=np.zeros((2, 32, 40, 40), np.float32))
    assert (found.prototypes, found.mask_channels, found.layout, found.objectness) == ("protos", 32, "columns", False)
    fifth = np.concatenate([rows(3, objectness=True), values[..., 7:]], axis=2)
    found = yolo(fifth, 3, protos=np.zeros((2, 32, 40, 40), np.float32))
    assert found.mask_channels == 32 and found.objectness


@pytest.mark.parametrize("points, values", [(17, 3), (5, 2), (4, 3)])
def test_key_points_lie_outside_of_probabilities(points: int, values: int) -> None:
    behind = RNG.uniform(0, 100, (2, 120, points * values)).astype(np.float32)
    found = yolo(np.concatenate([rows(1, count=120), behind], axis=2).transpose(0, 2, 1), 1)
    assert (found.keypoints * found.keypoint_values, found.extra) == (points * values, points * values)
    assert yolo(rows(4).transpose(0, 2, 1), 1).extra == 0  # three more classes, not one point


def test_an_angle_lies_outside_of_probabilities() -> None:
    angle = RNG.uniform(-0.7, 2.3, (2, 40, 1)).astype(np.float32)
    assert yolo(np.concatenate([rows(3), angle], axis=2).transpose(0, 2, 1), 3).oriented
    assert not yolo(rows(4).transpose(0, 2, 1), 3).oriented


def test_shares_of_the_sides_are_distinguished_from_pixels() -> None:
    """As Ultralytics exports RT-DETR: 300 queries, centre and size as shares, class probabilities; no NMS is meant."""
    queries = rows(3, count=300)
    assert not yolo(queries, 3).unit and yolo(queries, 3).iou_threshold == 0.7
    queries[..., :4] /= 128
    found = yolo(queries, 3)
    assert (found.layout, found.unit, found.iou_threshold, found.objectness) == ("rows", True, 1.0, False)
    assert yolo(queries, 3, asked={"iou_threshold": 0.5}).iou_threshold == 0.5


def ranked(extra: int = 0, order: str = "box_score_class") -> NDArray[Any]:
    count = 30
    scores = np.sort(RNG.uniform(0, 1, (2, count)))[:, ::-1, None]
    kinds = RNG.integers(0, 3, (2, count, 1))
    boxes = RNG.uniform(0, 100, (2, count, 4))
    behind = RNG.uniform(-5, 100, (2, count, extra))
    if order == "class_score_box":
        return np.concatenate([kinds, scores, boxes], axis=2)
    if order == "batch_box_class_score":
        return np.concatenate([kinds * 0, boxes, kinds, scores], axis=2)
    return np.concatenate([boxes, scores, kinds, behind], axis=2)


def test_rows_that_are_ranked_already() -> None:
    assert yolo(ranked(), 3).layout == "end_to_end"
    assert yolo(ranked(), 2).layout == "end_to_end"  # six values are also four and two classes: the values decide
    assert yolo(ranked(51), 3).keypoints == 17
    assert yolo(ranked(32), 3, protos=np.zeros((2, 32, 4, 4), np.float32)).mask_channels == 32
    assert yolo(ranked(1), 3, asked={"oriented": True}).order == "box_score_class"
    assert yolo(ranked(order="batch_box_class_score"), 3).order == "batch_box_class_score"
    paddle = graph("Concat", producer="PaddlePaddle")
    assert yolo(ranked(order="class_score_box"), 3, paddle).order == "class_score_box"


@pytest.mark.parametrize(
    ("kinds", "left"),
    [
        (("Softmax",), "none"),
        (("Sigmoid", "Reshape"), "none"),
        (("Softmax", "Cast", "Identity"), "none"),
        (("Relu",), "softmax"),
        (("LogSoftmax",), "softmax"),
    ],
)
def test_an_activation_in_the_graph_is_not_applied_again(kinds: tuple[str, ...], left: str) -> None:
    logits = RNG.normal(0, 1, (3, 4)).astype(np.float32)
    found = resolve(spec.ClassifyDecoder("p"), graph(*kinds), {"p": logits}, 4)
    assert isinstance(found, spec.ClassifyDecoder) and found.activation == left
    kept = resolve(spec.ClassifyDecoder("p", activation="sigmoid"), graph(*kinds), {"p": logits}, 4)
    assert isinstance(kept, spec.ClassifyDecoder) and kept.activation == "sigmoid"


def test_probabilities_are_known_by_their_sum_where_the_graph_hides_their_softmax() -> None:
    chances = RNG.dirichlet(np.ones(4), 3).astype(np.float32)
    found = resolve(spec.ClassifyDecoder("p"), graph("Div"), {"p": chances}, 4)
    assert isinstance(found, spec.ClassifyDecoder) and found.activation == "none"


@pytest.mark.parametrize("columns", [False, True])
def test_scores_and_boxes(columns: bool) -> None:
    low = RNG.uniform(0, 0.5, (2, 50, 2))
    corners = np.concatenate([low, low + 0.2], axis=2)
    logits = RNG.normal(0, 2, (2, 50, 4))
    logits[..., 0] += 4

    def found(scores: NDArray[Any], boxes: NDArray[Any], classes: int | None) -> spec.BoxesDecoder:
        turn = (0, 2, 1) if columns else (0, 1, 2)
        result = resolve(
            spec.BoxesDecoder("s", "b"),
            graph("Add"),
            {"s": scores.transpose(turn), "b": boxes.transpose(turn)},
            classes,
        )
        assert isinstance(result, spec.BoxesDecoder) and result.columns == columns
        return result

    first = found(logits, corners, 3)
    assert (first.background, first.activation, first.unit, first.box) == ("first", "softmax", True, "xyxy")
    second = found(logits, np.concatenate([low + 0.3, low * 0.2], axis=2), 4)
    assert (second.background, second.activation, second.box) == ("none", "sigmoid", "cxcywh")
    third = found(RNG.uniform(0, 1, (2, 50, 3)), corners * 300, 3)
    assert (third.activation, third.unit) == ("none", False)
