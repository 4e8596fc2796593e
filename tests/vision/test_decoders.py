"""Every family of decoders against a second one, written here with plain loops over single numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edged.engines import decoder_spec as spec
from edged.engines.decoder_shapes import class_count, fits, tensor_shapes
from edged.engines.decoder_spec import Decoder
from edged.engines.manifest import InputSpec
from edged.errors import EdgedError
from edged.vision.decoder import decoder_for
from edged.vision.letterbox import fit
from edged.vision.results import Classes, ClassMap, Detections, Embedding

WIDTH, HEIGHT, CLASSES = 64, 48, 3
IMAGE = InputSpec("image", WIDTH, HEIGHT)
BOX = fit(128, 72, WIDTH, HEIGHT)  # half size, 6 rows of padding above and below
Corners = tuple[float, float, float, float]
Plain = tuple[int, float, Corners]
Random = np.random.Generator


def decode(output: Decoder, tensors: dict[str, NDArray[Any]], classes: int = CLASSES) -> Any:
    """Frame 1 of a batch whose frame 0 is something else; the shapes are those that the decoder declares."""
    for name, expected in tensor_shapes(output, WIDTH, HEIGHT, classes).items():
        assert fits(tensors[name].shape, expected), (name, tensors[name].shape, expected)
    batch = {name: np.stack([np.zeros_like(value), value]).astype(np.float32) for name, value in tensors.items()}
    return decoder_for(output, IMAGE, classes)(batch, 1, BOX)


def iou(a: Corners, b: Corners) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0.0) * max(height, 0.0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def finish(candidates: list[Plain], overlap: float) -> list[tuple[Plain, int]]:
    """Greedy NMS, then source pixels; with the place of each among the candidates."""
    kept: list[tuple[Plain, int]] = []
    for at in sorted(range(len(candidates)), key=lambda at: -candidates[at][1]):
        kind, score, box = candidates[at]
        if overlap >= 1 or not any(other[0] == kind and iou(other[2], box) > overlap for other, _ in kept):
            kept.append(((kind, score, box), at))
    found = []
    for (kind, score, box), at in kept:
        x0, y0, x1, y1 = source(box[0], box[1]) + source(box[2], box[3])
        clipped = (min(max(x0, 0), 128), min(max(y0, 0), 72), min(max(x1, 0), 128), min(max(y1, 0), 72))
        if clipped[2] > clipped[0] and clipped[3] > clipped[1]:
            found.append(((kind, score, clipped), at))
    return found


def source(x: float, y: float) -> tuple[float, float]:
    return (x - BOX.left) / BOX.scale_x, (y - BOX.top) / BOX.scale_y


def same(got: Detections, want: list[tuple[Plain, int]]) -> None:
    assert got.class_ids.tolist() == [kind for (kind, _, _), _ in want]
    assert got.scores.tolist() == pytest.approx([score for (_, score, _), _ in want], abs=1e-5)
    for box, ((_, _, right), _) in zip(got.boxes.tolist(), want, strict=True):
        assert box == pytest.approx(right, abs=2e-2)
    assert want, "a test without objects shows nothing"


def centered(cx: float, cy: float, w: float, h: float) -> Corners:
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


def some_boxes(rng: Random, count: int) -> NDArray[Any]:
    return np.stack(
        [
            rng.uniform(5, 60, count),
            rng.uniform(8, 40, count),
            rng.uniform(4, 20, (2, count)).T[:, 0],
            rng.uniform(4, 20, count),
        ],
        axis=1,
    )


@pytest.mark.parametrize("layout", ["columns", "rows"])
@pytest.mark.parametrize("objectness", [False, True])
@pytest.mark.parametrize("unit", [False, True])
def test_yolo(layout: Any, objectness: bool, unit: bool) -> None:
    rng = np.random.default_rng(1)
    rows = np.concatenate([some_boxes(rng, 40), rng.uniform(0, 1, (40, objectness + CLASSES))], axis=1)
    if unit:
        rows[:, :4] /= (WIDTH, HEIGHT, WIDTH, HEIGHT)
    output = spec.YoloDecoder("p", layout, objectness, unit=unit, score_threshold=0.4, iou_threshold=0.3)
    candidates: list[Plain] = []
    for row in rows.tolist():
        scale = (WIDTH, HEIGHT, WIDTH, HEIGHT) if unit else (1, 1, 1, 1)
        chances = row[4 + objectness :]
        score = max(chances) * (row[4] if objectness else 1)
        if score >= 0.4:
            box = centered(*(value * by for value, by in zip(row[:4], scale, strict=True)))
            candidates.append((chances.index(max(chances)), score, box))
    same(decode(output, {"p": rows if layout == "rows" else rows.T}), finish(candidates, 0.3))


@pytest.mark.parametrize("order", [None, "box_score_class", "class_score_box", "batch_box_class_score"])
def test_yolo_end_to_end(order: Any) -> None:
    rng = np.random.default_rng(2)
    rows = []
    candidates: list[Plain] = []
    for cx, cy, w, h in some_boxes(rng, 12).tolist():
        box, score, kind = centered(cx, cy, w, h), float(rng.uniform(0, 1)), int(rng.integers(0, CLASSES))
        if order == "class_score_box":
            rows.append([kind, score, *box])
        elif order == "batch_box_class_score":
            rows.append([0, *box, kind, score])
        else:
            rows.append([*box, score, kind])
        if score >= 0.25:
            candidates.append((kind, score, box))
    rows.append([-1.0] * len(rows[0]))  # padding
    same(decode(spec.YoloDecoder("p", "end_to_end", order=order), {"p": np.array(rows)}), finish(candidates, 1.0))


def test_yolo_masks_cover_the_cells_that_the_prototypes_say() -> None:
    rng = np.random.default_rng(3)
    prototypes = rng.normal(0, 1, (8, HEIGHT // 4, WIDTH // 4))
    rows = np.concatenate([some_boxes(rng, 6), rng.uniform(0.3, 1, (6, CLASSES)), rng.normal(0, 1, (6, 8))], axis=1)
    output = spec.YoloDecoder("p", "rows", prototypes="m", mask_channels=8, iou_threshold=1.0)
    got = decode(output, {"p": rows, "m": prototypes})
    order = np.argsort(-rows[:, 4:7].max(axis=1), kind="stable")
    assert got.masks is not None and len(got.masks) == len(got.scores) == 6
    for mask, at in zip(got.masks, order, strict=True):
        x0, y0, x1, y1 = centered(*rows[at, :4])
        covered = set()
        for r in range(HEIGHT // 4):
            for c in range(WIDTH // 4):
                x, y = (c + 0.5) * 4, (r + 0.5) * 4
                value = sum(float(rows[at, 7 + k] * prototypes[k, r, c]) for k in range(8))
                if x0 <= x <= x1 and y0 <= y <= y1 and 6 <= y <= 42 and value > 0:
                    covered.add((r, c))
        found = set()
        for r, c in np.argwhere(mask.cells).tolist():  # the middle of the cell, back in the input
            x = (mask.x + (c + 0.5) * mask.cell_width) * BOX.scale_x + BOX.left
            y = (mask.y + (r + 0.5) * mask.cell_height) * BOX.scale_y + BOX.top
            found.add((round(y / 4 - 0.5), round(x / 4 - 0.5)))
        assert found == covered


@pytest.mark.parametrize("values", [2, 3])
def test_yolo_key_points(values: Any) -> None:
    rng = np.random.default_rng(4)
    points = rng.uniform(0, 1, (10, 5, values)) * ((60, 40, 1)[:values])
    rows = np.concatenate([some_boxes(rng, 10), rng.uniform(0, 1, (10, 1)), points.reshape(10, -1)], axis=1)
    output = spec.YoloDecoder("p", "columns", keypoints=5, keypoint_values=values, score_threshold=0.3)
    want = finish([(0, row[4], centered(*row[:4])) for row in rows.tolist() if row[4] >= 0.3], 0.7)
    got = decode(output, {"p": rows.T}, classes=1)
    same(got, want)
    chosen = [at for at in range(10) if rows[at, 4] >= 0.3]
    for found, (_, at) in zip(got.keypoints.tolist(), want, strict=True):
        for (x, y, sure), point in zip(found, points[chosen[at]].tolist(), strict=True):
            assert (x, y) == pytest.approx(source(point[0], point[1]), abs=1e-2)
            assert sure == pytest.approx(point[2] if values == 3 else 1.0)


@pytest.mark.parametrize("layout", ["columns", "end_to_end"])
def test_oriented_boxes_have_corners_that_a_rotation_gives(layout: Any) -> None:
    cx, cy, w, h, angle = 30.0, 24.0, 20.0, 8.0, 0.6
    if layout == "columns":
        twice = [[cx, cy, w, h, 0.1, 0.9, 0.2, angle], [cx + 1, cy, w, h, 0.1, 0.8, 0.2, angle]]
        tensor = np.array(twice).T
    else:
        tensor = np.array([[cx, cy, w, h, 0.9, 1, angle]])
    got = decode(spec.YoloDecoder("p", layout, oriented=True), {"p": tensor})
    assert got.class_ids.tolist() == [1] and got.scores.tolist() == pytest.approx([0.9])
    want = []
    for x, y in ((-w / 2, -h / 2), (w / 2, -h / 2), (w / 2, h / 2), (-w / 2, h / 2)):
        turned = (x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle))
        want.append(source(cx + turned[0], cy + turned[1]))
    assert got.corners[0].tolist() == [pytest.approx(corner, abs=1e-3) for corner in want]
    xs, ys = zip(*want, strict=True)
    assert got.boxes[0].tolist() == pytest.approx((min(xs), min(ys), max(xs), max(ys)), abs=1e-2)


@pytest.mark.parametrize("background", ["none", "first", "last"])
@pytest.mark.parametrize("box", ["xyxy", "cxcywh", "yxyx"])
@pytest.mark.parametrize("activation", ["none", "sigmoid", "softmax"])
def test_scores_and_boxes(background: Any, box: Any, activation: Any) -> None:
    rng = np.random.default_rng(5)
    count = CLASSES + (background != "none")
    logits, boxes = rng.normal(0, 2, (30, count)), some_boxes(rng, 30)
    if activation == "none":
        logits = rng.uniform(0, 1, (30, count))
    candidates: list[Plain] = []
    given = []
    for row, (cx, cy, w, h) in zip(logits.tolist(), boxes.tolist(), strict=True):
        if activation == "sigmoid":
            row = [1 / (1 + math.exp(-value)) for value in row]
        if activation == "softmax":
            row = [math.exp(value) / sum(map(math.exp, row)) for value in row]
        row = row[1:] if background == "first" else row[:CLASSES]
        x0, y0, x1, y1 = centered(cx, cy, w, h)
        if max(row) >= 0.5:
            candidates.append((row.index(max(row)), max(row), (x0, y0, x1, y1)))
        one = {"xyxy": (x0, y0, x1, y1), "cxcywh": (cx, cy, w, h), "yxyx": (y0, x0, y1, x1)}[box]
        sides = (HEIGHT, WIDTH) * 2 if box == "yxyx" else (WIDTH, HEIGHT) * 2
        given.append([value / side for value, side in zip(one, sides, strict=True)])
    output = spec.BoxesDecoder("s", "b", box, True, False, activation, background, score_threshold=0.5)
    same(decode(output, {"s": logits, "b": np.array(given)}), finish(candidates, 0.5))
    columns = spec.BoxesDecoder("s", "b", box, True, True, activation, background, score_threshold=0.5)
    same(decode(columns, {"s": logits.T, "b": np.array(given).T}), finish(candidates, 0.5))


def test_anchors_of_ssd() -> None:
    rng = np.random.default_rng(6)
    levels = [spec.AnchorLevel(16, [(12.0, 12.0), (20.0, 10.0)]), spec.AnchorLevel(32, [(30.0, 30.0)])]
    anchors = []
    for level in levels:
        for y in range(-(-HEIGHT // level.stride)):
            for x in range(-(-WIDTH // level.stride)):
                for w, h in level.sizes:
                    anchors.append(((x + 0.5) * level.stride, (y + 0.5) * level.stride, w, h))
    scores, offsets = rng.uniform(0, 1, (len(anchors), CLASSES)), rng.normal(0, 1, (len(anchors), 4))
    candidates: list[Plain] = []
    for (ax, ay, aw, ah), chances, (dx, dy, dw, dh) in zip(anchors, scores.tolist(), offsets.tolist(), strict=True):
        if max(chances) >= 0.6:
            box = centered(ax + dx * 0.1 * aw, ay + dy * 0.1 * ah, aw * math.exp(dw * 0.2), ah * math.exp(dh * 0.2))
            candidates.append((chances.index(max(chances)), max(chances), box))
    output = spec.BoxesDecoder("s", "b", anchors=levels, activation="none", score_threshold=0.6)
    same(decode(output, {"s": scores, "b": offsets}), finish(candidates, 0.5))


def test_detections_of_the_graphs_own_nms() -> None:
    rng = np.random.default_rng(7)
    boxes = [centered(*row) for row in some_boxes(rng, 9).tolist()]
    scores, kinds = rng.uniform(0, 1, 9), rng.integers(1, CLASSES + 1, 9)
    kinds[3], scores[4] = -1, -1.0  # padding
    want: list[Plain] = [
        (int(k) - 1, float(s), b) for b, s, k in zip(boxes, scores, kinds, strict=True) if s >= 0.3 and k >= 1
    ]
    output = spec.DetectionsDecoder("b", "s", "c", first_class=1)
    same(decode(output, {"b": np.array(boxes), "s": scores, "c": kinds}), finish(want, 1.0))


def cells(strides: tuple[int, ...], anchors: int = 1) -> list[tuple[int, int, int]]:
    """(column, row, stride) of each candidate, level after level."""
    found = []
    for stride in strides:
        for y in range(-(-HEIGHT // stride)):
            for x in range(-(-WIDTH // stride)):
                found += [(x, y, stride)] * anchors
    return found


def test_yolox() -> None:
    rng = np.random.default_rng(8)
    grid = cells((8, 16, 32))
    rows = np.concatenate([rng.normal(0, 0.7, (len(grid), 4)), rng.uniform(0, 1, (len(grid), 1 + CLASSES))], axis=1)
    candidates: list[Plain] = []
    for (x, y, stride), (dx, dy, dw, dh, sure, *chances) in zip(grid, rows.tolist(), strict=True):
        if sure * max(chances) >= 0.5:
            box = centered((x + dx) * stride, (y + dy) * stride, math.exp(dw) * stride, math.exp(dh) * stride)
            candidates.append((chances.index(max(chances)), sure * max(chances), box))
    same(decode(spec.YoloxDecoder("p", score_threshold=0.5), {"p": rows}), finish(candidates, 0.45))


def expected_distance(logits: list[float]) -> float:
    weights = [math.exp(value) for value in logits]
    return sum(k * weight for k, weight in enumerate(weights)) / sum(weights)


@pytest.mark.parametrize("form", ["levels", "one tensor", "maps"])
def test_distributions_of_distances(form: str) -> None:
    rng = np.random.default_rng(9)
    strides, bins = (8, 16), 4
    grid, center = cells(strides), 0.0 if form == "one tensor" else 0.5
    scores, sides = rng.normal(0, 2, (len(grid), CLASSES)), rng.normal(0, 2, (len(grid), 4 * bins))
    first = (HEIGHT // 8) * (WIDTH // 8)
    tensors: dict[str, NDArray[Any]]
    if form == "levels":
        output = spec.DflDecoder(["s0", "s1"], ["b0", "b1"], strides, bins, activation="sigmoid")
        tensors = {"s0": scores[:first], "s1": scores[first:], "b0": sides[:first], "b1": sides[first:]}
    elif form == "one tensor":
        output = spec.DflDecoder(["p"], ["p"], strides, bins, center=0.0, activation="sigmoid")
        tensors = {"p": np.concatenate([scores, sides], axis=1)}
    else:
        output = spec.DflDecoder(["m0", "m1"], ["m0", "m1"], strides, bins, "maps", True, 0.5, "sigmoid")
        both = np.concatenate([sides, scores], axis=1)
        tensors = {
            f"m{k}": part.T.reshape(-1, HEIGHT // stride, WIDTH // stride)
            for k, (part, stride) in enumerate(zip((both[:first], both[first:]), strides, strict=True))
        }
    candidates: list[Plain] = []
    for (x, y, stride), logits, values in zip(grid, scores.tolist(), sides.tolist(), strict=True):
        score = 1 / (1 + math.exp(-max(logits)))
        if score >= 0.8:
            far = [expected_distance(values[k * bins : (k + 1) * bins]) for k in range(4)]
            cx, cy = x + center, y + center
            box = ((cx - far[0]) * stride, (cy - far[1]) * stride, (cx + far[2]) * stride, (cy + far[3]) * stride)
            candidates.append((logits.index(max(logits)), score, box))
    import msgspec

    same(decode(msgspec.structs.replace(output, score_threshold=0.8), tensors), finish(candidates, 0.6))


def test_scrfd() -> None:
    rng = np.random.default_rng(10)
    grid = cells((8, 16, 32), 2)
    sizes = [len(cells((stride,), 2)) for stride in (8, 16, 32)]
    scores, far = rng.uniform(0, 1, (len(grid), 1)), rng.uniform(0.3, 2, (len(grid), 4))
    points = rng.normal(0, 1, (len(grid), 10))
    split = [np.split(value, np.cumsum(sizes)[:-1]) for value in (scores, far, points)]
    tensors = {f"{key}{k}": part for key, parts in zip("sbk", split, strict=True) for k, part in enumerate(parts)}
    names = [[f"{key}{k}" for k in range(3)] for key in "sbk"]
    candidates: list[Plain] = []
    places = []
    for (x, y, s), (score,), (left, top, right, bottom), offsets in zip(
        grid, scores.tolist(), far.tolist(), points.tolist(), strict=True
    ):
        if score >= 0.8:
            candidates.append((0, score, ((x - left) * s, (y - top) * s, (x + right) * s, (y + bottom) * s)))
            pairs = zip(offsets[::2], offsets[1::2], strict=True)
            places.append([source((x + dx) * s, (y + dy) * s) for dx, dy in pairs])
    want = finish(candidates, 0.4)
    got = decode(spec.ScrfdDecoder(names[0], names[1], names[2], score_threshold=0.8), tensors, classes=1)
    same(got, want)
    for found, (_, at) in zip(got.keypoints.tolist(), want, strict=True):
        assert [tuple(point[:2]) for point in found] == [pytest.approx(place, abs=1e-2) for place in places[at]]


def test_yunet() -> None:
    rng = np.random.default_rng(11)
    grid, sizes = cells((8, 16, 32)), [len(cells((stride,))) for stride in (8, 16, 32)]
    values = {"c": rng.uniform(0, 1, (len(grid), 1)), "o": rng.uniform(0, 1, (len(grid), 1)),
              "b": rng.normal(0, 0.6, (len(grid), 4)), "k": rng.normal(0, 1, (len(grid), 10))}  # fmt: skip
    tensors = {
        f"{key}{k}": part
        for key, value in values.items()
        for k, part in enumerate(np.split(value, np.cumsum(sizes)[:-1]))
    }
    candidates: list[Plain] = []
    places = []
    for at, (x, y, s) in enumerate(grid):
        score = math.sqrt(values["c"][at, 0] * values["o"][at, 0])
        if score >= 0.75:
            dx, dy, dw, dh = values["b"][at].tolist()
            candidates.append((0, score, centered((x + dx) * s, (y + dy) * s, math.exp(dw) * s, math.exp(dh) * s)))
            pairs = values["k"][at].reshape(5, 2).tolist()
            places.append([source((x + px) * s, (y + py) * s) for px, py in pairs])
    names = {key: [f"{key}{k}" for k in range(3)] for key in "cobk"}
    output = spec.YunetDecoder(names["c"], names["o"], names["b"], names["k"], score_threshold=0.75)
    want = finish(candidates, 0.3)
    got = decode(output, tensors, classes=1)
    same(got, want)
    for found, (_, at) in zip(got.keypoints.tolist(), want, strict=True):
        assert [tuple(point[:2]) for point in found] == [pytest.approx(place, abs=1e-2) for place in places[at]]


def test_centerface() -> None:
    rng = np.random.default_rng(12)
    rows, columns = HEIGHT // 4, WIDTH // 4
    heat, scale = rng.uniform(0, 1, (1, rows, columns)), rng.normal(1, 0.4, (2, rows, columns))
    offset, points = rng.uniform(0, 1, (2, rows, columns)), rng.uniform(0, 1, (10, rows, columns))
    candidates: list[Plain] = []
    places = []
    for y in range(rows):
        for x in range(columns):
            if heat[0, y, x] >= 0.9:
                h, w = math.exp(scale[0, y, x]) * 4, math.exp(scale[1, y, x]) * 4
                left, top = (x + offset[1, y, x] + 0.5) * 4 - w / 2, (y + offset[0, y, x] + 0.5) * 4 - h / 2
                candidates.append((0, float(heat[0, y, x]), (left, top, left + w, top + h)))
                places.append(
                    [source(left + points[2 * k + 1, y, x] * w, top + points[2 * k, y, x] * h) for k in range(5)]
                )
    want = finish(candidates, 0.3)
    output = spec.CenterFaceDecoder("h", "s", "o", "k", score_threshold=0.9)
    got = decode(output, {"h": heat, "s": scale, "o": offset, "k": points}, classes=1)
    same(got, want)
    for found, (_, at) in zip(got.keypoints.tolist(), want, strict=True):
        assert [tuple(point[:2]) for point in found] == [pytest.approx(place, abs=1e-2) for place in places[at]]


@pytest.mark.parametrize("activation", ["none", "sigmoid", "softmax", None])
def test_classes_by_their_activation(activation: Any) -> None:
    logits = np.array([0.1, 0.7, 0.2])
    got = decode(spec.ClassifyDecoder("l", 2, activation), {"l": logits})
    assert isinstance(got, Classes) and got.class_ids.tolist() == [1, 2]
    total = sum(math.exp(value) for value in logits)
    by = {"none": lambda v: v, "sigmoid": lambda v: 1 / (1 + math.exp(-v))}
    value: Callable[[float], float] = by.get(activation, lambda v: math.exp(v) / total)
    assert got.scores.tolist() == pytest.approx([value(0.7), value(0.2)], abs=1e-6)


def test_a_class_for_each_cell_of_the_picture_and_none_of_the_padding() -> None:
    scores = np.random.default_rng(13).normal(0, 1, (CLASSES, HEIGHT // 2, WIDTH // 2))
    got = decode(spec.SemanticDecoder("s"), {"s": scores})
    assert isinstance(got, ClassMap) and got.class_ids.shape == (18, 32)
    assert got.class_ids.tolist() == scores.argmax(axis=0)[3:21].tolist()
    whole = decode(spec.SemanticDecoder("s", True), {"s": scores.argmax(axis=0)})
    assert whole.class_ids.tolist() == got.class_ids.tolist()


def test_a_vector_has_length_one_if_that_is_declared() -> None:
    vector = np.array([3.0, 4.0])
    got = decode(spec.EmbedDecoder("v"), {"v": vector})
    assert isinstance(got, Embedding) and got.vector.tolist() == pytest.approx([0.6, 0.8])
    assert decode(spec.EmbedDecoder("v", False), {"v": vector}).vector.tolist() == [3.0, 4.0]
    assert decode(spec.EmbedDecoder("v"), {"v": vector * 0}).vector.tolist() == [0.0, 0.0]


OUTPUTS: list[Decoder] = [
    spec.YoloDecoder("p", "columns"), spec.YoloDecoder("p", "rows", True, prototypes="m", mask_channels=8),
    spec.YoloDecoder("p", "columns", keypoints=5), spec.YoloDecoder("p", "columns", oriented=True),
    spec.YoloDecoder("p", "end_to_end"), spec.BoxesDecoder("s", "b"), spec.DetectionsDecoder("b", "s", "c"),
    spec.YoloxDecoder("p"), spec.DflDecoder(["p"], ["p"], (8, 16)), spec.DflDecoder(["s"], ["b"], (8,)),
    spec.ScrfdDecoder(["a", "b", "c"], ["d", "e", "f"], ["g", "h", "i"]), spec.CenterDecoder("s", "b", 8),
    spec.YunetDecoder(["a"], ["b"], ["c"], ["d"], (8,)), spec.CenterFaceDecoder("h", "s", "o", "k"),
    spec.ClassifyDecoder("l"), spec.SemanticDecoder("s"), spec.EmbedDecoder("v"),
]  # fmt: skip


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: type(output).__name__)
def test_a_number_that_is_none_is_refused_and_extreme_ones_are_not(output: Decoder) -> None:
    shapes = tensor_shapes(output, WIDTH, HEIGHT, CLASSES)
    for bad in (math.nan, math.inf, 3e38, -3e38, 0.0):
        tensors = {
            name: np.full([side if side > 0 else 9 for side in shape], min(bad, 1.0), np.float32)
            for name, shape in shapes.items()
        }
        first = tensors[next(iter(shapes))]
        first.flat[first.size // 2 :] = bad
        if math.isfinite(bad):
            try:
                decode(output, tensors)
            except EdgedError as error:  # no probability
                assert bad == 3e38 and "probability" in error.message
        else:
            with pytest.raises(EdgedError, match="not finite"):
                decode(output, tensors)


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: type(output).__name__)
def test_the_shapes_tell_how_many_classes_there_are(output: Decoder) -> None:
    shapes = tensor_shapes(output, WIDTH, HEIGHT, CLASSES)
    faces = isinstance(output, spec.ScrfdDecoder | spec.YunetDecoder | spec.CenterFaceDecoder)
    open_ended = (
        isinstance(output, spec.DetectionsDecoder | spec.EmbedDecoder) or getattr(output, "layout", "") == "end_to_end"
    )
    assert class_count(output, shapes) == (None if open_ended else 1 if faces else CLASSES)
