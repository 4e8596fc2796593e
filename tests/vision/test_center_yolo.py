from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edged.engines.decoder_spec import CenterDecoder, YoloDecoder
from edged.engines.manifest import InputSpec
from edged.errors import EdgedError
from edged.vision.decoders.center import CenterPeaks
from edged.vision.decoders.yolo import YoloBoxes
from edged.vision.letterbox import fit
from edged.vision.nms import nms
from edged.vision.results import Detections

WIDTH, HEIGHT, STRIDE, CLASSES = 64, 48, 8, 5
ROWS, COLUMNS = HEIGHT // STRIDE, WIDTH // STRIDE
IMAGE = InputSpec("image", WIDTH, HEIGHT)
BOX = fit(128, 72, WIDTH, HEIGHT)  # half size, 6 rows of padding above and below
Found = list[tuple[int, float, tuple[float, ...]]]


def center_spec(**changes: Any) -> CenterDecoder:
    return CenterDecoder(**{"scores": "s", "boxes": "b", "stride": STRIDE, **changes})


def found(detections: Detections) -> Found:
    rows = zip(detections.class_ids, detections.scores, detections.boxes, strict=True)
    return [(int(c), float(s), tuple(float(v) for v in b)) for c, s, b in rows]


def same(got: Found, want: Found) -> None:
    assert [c for c, _, _ in got] == [c for c, _, _ in want]
    for (_, a, box), (_, b, other) in zip(got, want, strict=True):
        assert a == pytest.approx(b, abs=1e-6)
        assert box == pytest.approx(other, abs=1e-3)


def slow_iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


def slow_finish(candidates: Found, iou: float, limit: int) -> Found:
    """Greedy NMS, one pair at a time, then back to the source picture."""
    kept: Found = []
    for c, s, box in sorted(candidates, key=lambda item: -item[1]):
        if len(kept) < limit and not any(k == c and slow_iou(box, other) > iou for k, _, other in kept):
            kept.append((c, s, box))
    result: Found = []
    for c, s, (x0, y0, x1, y1) in kept:
        x0, x1 = (min(max((x - BOX.left) / BOX.scale_x, 0), 128) for x in (x0, x1))
        y0, y1 = (min(max((y - BOX.top) / BOX.scale_y, 0), 72) for y in (y0, y1))
        if x1 > x0 and y1 > y0:
            result.append((c, s, (x0, y0, x1, y1)))
    return result


def slow_center(scores: NDArray[Any], boxes: NDArray[Any], spec: CenterDecoder) -> Found:
    candidates: Found = []
    for c in range(CLASSES):
        for y in range(ROWS):
            for x in range(COLUMNS):
                s = float(scores[c, y, x])
                near = scores[c, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                probability = 1 / (1 + math.exp(-s))
                if probability < spec.score_threshold or s < near.max():
                    continue
                left, top, right, bottom = (max(float(boxes[i, y, x]), 0.0) for i in range(4))
                corners = (x + 0.5 - left, y + 0.5 - top, x + 0.5 + right, y + 0.5 + bottom)
                candidates.append((c, probability, tuple(v * STRIDE for v in corners)))
    return slow_finish(candidates, spec.iou_threshold, spec.max_detections)


def test_one_object_by_hand() -> None:
    scores = np.full((1, CLASSES, ROWS, COLUMNS), -10, np.float32)
    boxes = np.ones((1, 4, ROWS, COLUMNS), np.float32)
    scores[0, 2, 3, 4] = 0.0
    boxes[0, :, 3, 4] = 1, 0.5, 2, 1.5
    got = found(CenterPeaks(center_spec(), IMAGE, CLASSES)({"s": scores, "b": boxes}, 0, BOX))
    # the centre (36, 28) in the input; 8, 4, 16, 12 pixels around it; six rows of padding; half the size
    same(got, [(2, 0.5, (56.0, 36.0, 104.0, 68.0))])


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    bias=st.floats(-6, 3),
    threshold=st.floats(0.05, 0.9),
    iou=st.floats(0.1, 0.9),
    limit=st.integers(1, 60),
)
def test_center_peaks_are_those_of_plain_loops(
    seed: int, bias: float, threshold: float, iou: float, limit: int
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(bias, 3, (2, CLASSES, ROWS, COLUMNS)).astype(np.float32)
    boxes = rng.normal(1.5, 1.5, (2, 4, ROWS, COLUMNS)).astype(np.float32)
    spec = center_spec(score_threshold=threshold, iou_threshold=iou, max_detections=limit)
    decode = CenterPeaks(spec, IMAGE, CLASSES)
    for index in (1, 0, 1):  # a decoder keeps nothing from one frame to the next
        same(found(decode({"s": scores, "b": boxes}, index, BOX)), slow_center(scores[index], boxes[index], spec))


def test_objects_at_the_edges_are_found_in_every_class() -> None:
    for c in range(CLASSES):
        for y, x in ((0, 0), (0, COLUMNS - 1), (ROWS - 1, 0), (ROWS - 1, COLUMNS - 1)):
            scores = np.full((1, CLASSES, ROWS, COLUMNS), -20, np.float32)
            scores[0, c, y, x] = 5
            boxes = np.full((1, 4, ROWS, COLUMNS), 2, np.float32)
            decoded = CenterPeaks(center_spec(), IMAGE, CLASSES)({"s": scores, "b": boxes}, 0, BOX)
            assert decoded.class_ids.tolist() == [c]


def test_no_object_is_an_empty_result_of_the_right_shape() -> None:
    scores = np.full((1, CLASSES, ROWS, COLUMNS), -10, np.float32)
    got = CenterPeaks(center_spec(), IMAGE, CLASSES)({"s": scores, "b": np.zeros((1, 4, ROWS, COLUMNS))}, 0, BOX)
    assert (got.boxes.shape, got.boxes.dtype) == ((0, 4), np.float32)
    assert got.scores.shape == got.class_ids.shape == (0,)


def test_types_are_those_promised_also_from_half_precision() -> None:
    scores = np.zeros((1, CLASSES, ROWS, COLUMNS), np.float16)
    boxes = np.ones((1, 4, ROWS, COLUMNS), np.float16)
    got = CenterPeaks(center_spec(), IMAGE, CLASSES)({"s": scores, "b": boxes}, 0, BOX)
    assert (got.boxes.dtype, got.scores.dtype, got.class_ids.dtype) == (np.float32, np.float32, np.int64)
    assert len(got.scores) == 50


def test_an_object_in_the_padding_is_none() -> None:
    scores = np.full((1, CLASSES, ROWS, COLUMNS), -10, np.float32)
    scores[0, 0, 0, 3] = 5  # its centre is at row 4 of the input, the picture begins at row 6
    boxes = np.full((1, 4, ROWS, COLUMNS), 0.2, np.float32)
    assert not found(CenterPeaks(center_spec(), IMAGE, CLASSES)({"s": scores, "b": boxes}, 0, BOX))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("output", ["s", "b"])
def test_a_number_that_is_none_is_never_published(bad: float, output: str) -> None:
    outputs = {
        "s": np.full((2, CLASSES, ROWS, COLUMNS), -9, np.float32),
        "b": np.ones((2, 4, ROWS, COLUMNS), np.float32),
    }
    outputs[output][1, 2, 3, 4] = bad
    decode = CenterPeaks(center_spec(), IMAGE, CLASSES)
    decode(outputs, 0, BOX)
    with pytest.raises(EdgedError, match=f"output {output} holds values that are not finite"):
        decode(outputs, 1, BOX)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=9, max_size=9),
    st.sampled_from([0.0, 0.3, 1.0]),
)
def test_any_finite_numbers_give_boxes_inside_the_picture(values: list[float], threshold: float) -> None:
    """Warnings are errors: nothing may overflow on the way either."""
    scores = np.resize(np.array(values, np.float32), (1, CLASSES, ROWS, COLUMNS))
    boxes = np.resize(np.array(values[::-1], np.float32), (1, 4, ROWS, COLUMNS))
    got = CenterPeaks(center_spec(score_threshold=threshold), IMAGE, CLASSES)({"s": scores, "b": boxes}, 0, BOX)
    check_sane(got)
    predictions = np.resize(np.array(values, np.float32), (1, 9, 40))
    predictions[:, 4:] = np.abs(np.tanh(predictions[:, 4:]))
    check_sane(YoloBoxes(YoloDecoder("p", score_threshold=threshold), IMAGE, CLASSES)({"p": predictions}, 0, BOX))


def check_sane(got: Detections) -> None:
    assert np.isfinite(got.boxes).all() and (got.boxes >= 0).all()
    assert (got.boxes[:, [0, 2]] <= 128).all() and (got.boxes[:, [1, 3]] <= 72).all()
    assert (got.scores >= 0).all() and (got.scores <= 1).all()
    assert (np.diff(got.scores) <= 0).all()


def slow_yolo(predictions: NDArray[Any], spec: YoloDecoder) -> Found:
    candidates: Found = []
    for a in range(predictions.shape[1]):
        x, y, w, h, *probabilities = (float(v) for v in predictions[:, a])
        best = max(probabilities)
        if best >= spec.score_threshold:
            w, h = max(w, 0.0), max(h, 0.0)
            candidates.append((probabilities.index(best), best, (x - w / 2, y - h / 2, x + w / 2, y + h / 2)))
    return slow_finish(candidates, spec.iou_threshold, spec.max_detections)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    anchors=st.integers(1, 300),
    threshold=st.floats(0.3, 0.99),
    iou=st.floats(0.1, 0.9),
    limit=st.integers(1, 80),
)
def test_yolo_boxes_are_those_of_plain_loops(seed: int, anchors: int, threshold: float, iou: float, limit: int) -> None:
    rng = np.random.default_rng(seed)
    predictions = rng.random((2, 4 + CLASSES, anchors), np.float32)
    predictions[:, 0] *= WIDTH
    predictions[:, 1] *= HEIGHT
    predictions[:, 2:4] = predictions[:, 2:4] * 50 - 5
    spec = YoloDecoder("p", score_threshold=threshold, iou_threshold=iou, max_detections=limit)
    decode = YoloBoxes(spec, IMAGE, CLASSES)
    for index in (1, 0):
        same(found(decode({"p": predictions}, index, BOX)), slow_yolo(predictions[index], spec))


def test_yolo_refuses_what_is_no_probability_and_what_is_no_number() -> None:
    decode = YoloBoxes(YoloDecoder("p"), IMAGE, CLASSES)
    predictions = np.zeros((1, 4 + CLASSES, 10), np.float32)
    predictions[0, 6, 3] = 7.5
    with pytest.raises(EdgedError, match=r"output p holds 7\.5 where a class probability"):
        decode({"p": predictions}, 0, BOX)
    predictions[0, 6, 3] = 1.004  # rounding
    predictions[0, :4, 3] = 30, 20, 10, 10
    assert found(decode({"p": predictions}, 0, BOX)) == [(2, 1.0, (50.0, 18.0, 70.0, 38.0))]
    predictions[0, 1, 9] = np.nan
    with pytest.raises(EdgedError, match="output p holds values that are not finite"):
        decode({"p": predictions}, 0, BOX)


def test_nms_works_across_its_blocks() -> None:
    """1000 boxes of one class on ten places: the ten best stay, wherever a block ends; other classes are untouched."""
    places = np.arange(1000) % 10
    boxes = np.stack((places * 20.0, places * 0.0, places * 20.0 + 10, places * 0.0 + 10), 1).astype(np.float32)
    assert nms(boxes, np.zeros(1000, np.int64), 0.5, 100).tolist() == list(range(10))
    assert nms(boxes, np.zeros(1000, np.int64), 0.5, 7).tolist() == list(range(7))
    assert nms(boxes, np.arange(1000), 0.5, 100).tolist() == list(range(100))
    assert nms(boxes[:0], np.zeros(0, np.int64), 0.5, 7).tolist() == []
