"""From an exported file to objects: `import`, `all`, a real engine, the decoder. What is true is known without them.

The model sees squares of a pure colour on grey: a convolution that leaves what is brighter in its own channel than in
the others, pooled to cells. Its head is written in the shapes of public exports.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edged.config import EngineConfig
from edged.engines.bundle import load_bundle
from edged.engines.pool import Pool
from edged.frames.frame import PixelFormat
from edged.vision.decoder import make_decoder
from edged.vision.letterbox import Letterboxer
from edged.vision.results import Detections
from edged_calibration.cli import main

SIDE, CELL = 64, 8
CELLS = SIDE // CELL
NAMES = ["red", "green", "blue"]


def exported(path: Path, form: str) -> Path:
    """A detector of squares; `form`: columns, rows, objectness, end_to_end, obb."""
    constants: dict[str, NDArray[Any]] = {}
    nodes = []

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))

    purest = np.zeros((3, 3, 1, 1), np.float32)
    purest[:, :, 0, 0] = 2 * np.eye(3) - 1
    constants["w"] = purest
    node("Conv", ["x", "w"], "pure")
    node("Relu", ["pure"], "own")
    node("AveragePool", ["own"], "cells", kernel_shape=[CELL, CELL], strides=[CELL, CELL])
    constants |= {"gain": np.array(20, np.float32), "least": np.array(-16, np.float32)}
    node("Mul", ["cells", "gain"], "raised")
    node("Add", ["raised", "least"], "logits")
    node("Sigmoid", ["logits"], "heat")
    batch = 1 if form == "end_to_end" else 0
    constants["flat"] = np.array([batch, 3, CELLS * CELLS])
    node("Reshape", ["heat", "flat"], "scores")
    rows, columns = np.divmod(np.arange(CELLS * CELLS), CELLS)
    boxes = np.stack([(columns + 0.5) * CELL, (rows + 0.5) * CELL, 0 * rows + 16.0, 0 * rows + 12.0]).astype(np.float32)
    if form == "end_to_end":
        boxes = np.stack([boxes[0] - 8, boxes[1] - 6, boxes[0] + 8, boxes[1] + 6])
    node("ReduceMax", ["scores"], "best", axes=[1], keepdims=1)
    constants |= {"zero": np.array(0, np.float32), "grid": boxes[None]}
    node("Mul", ["best", "zero"], "nothing")
    node("Add", ["nothing", "grid"], "boxes")
    shape: list[Any] = ["N", 7, CELLS * CELLS]
    if form == "end_to_end":
        node("ArgMax", ["scores"], "kind", axis=1, keepdims=1)
        node("Cast", ["kind"], "kinds", to=TensorProto.FLOAT)
        node("Concat", ["boxes", "best", "kinds"], "all", axis=1)
        constants |= {"count": np.array([30]), "wide": np.array([1, 30, 6])}
        nodes.append(helper.make_node("TopK", ["best", "count"], ["top", "order"], name="top", axis=2))
        node("Transpose", ["all"], "by_row", perm=[0, 2, 1])
        node("Transpose", ["order"], "as_column", perm=[0, 2, 1])
        node("Expand", ["as_column", "wide"], "index")
        node("GatherElements", ["by_row", "index"], "output0", axis=1)
        shape = [1, 30, 6]
    else:
        parts = ["boxes", "scores"]
        if form == "objectness":
            parts = ["boxes", "best", "scores"]
        if form == "obb":
            constants["angle"] = np.array(-0.5, np.float32)
            node("Add", ["nothing", "angle"], "angles")
            parts.append("angles")
        turned = form in ("rows", "objectness")
        node("Concat", parts, "joined" if turned else "output0", axis=1)
        shape[1] += form in ("objectness", "obb")
        if turned:
            node("Transpose", ["joined"], "output0", perm=[0, 2, 1])
            shape = [shape[0], shape[2], shape[1]]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "squares",
        [info("x", TensorProto.FLOAT, [1 if batch else "N", 3, SIDE, SIDE])],
        [info("output0", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, {"names": str(dict(enumerate(NAMES))), **({"task": "obb"} if form == "obb" else {})})
    onnx.save(model, path)
    return path


def scene(rng: np.random.Generator) -> tuple[NDArray[np.uint8], list[tuple[int, tuple[int, int]]]]:
    """A grey picture of 128 x 128 with a square of each colour, each filling a cell of the model, well apart."""
    coarse = rng.uniform(60, 190, (4, 4)).astype(np.float32)
    grey = cv2.resize(coarse, (128, 128), interpolation=cv2.INTER_LINEAR)
    picture = np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)
    places = [(2, 2), (2, 5), (5, 2), (5, 5)]
    chosen = []
    for kind, at in enumerate(rng.permutation(4)[:3].tolist()):
        row, column = places[at]
        colour = np.zeros(3, np.uint8)
        colour[2 - kind] = 255
        picture[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16] = colour
        chosen.append((kind, (row, column)))
    return picture, chosen


@pytest.mark.parametrize("form", ["columns", "rows", "objectness", "end_to_end", "obb"])
def test_squares_are_found_where_they_are(tmp_path: Path, form: str) -> None:
    rng = np.random.default_rng(1)
    for folder, count in (("calibration", 16), ("validation", 20)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            cv2.imwrite(str(tmp_path / folder / f"{number}.png"), scene(rng)[0])
    recipe = tmp_path / "squares.toml"
    frames = ["--frames", str(tmp_path / "calibration"), "--validation", str(tmp_path / "validation")]
    assert main(["import", str(exported(tmp_path / "squares.onnx", form)), "--to", str(recipe), *frames]) == 0
    text = recipe.read_text().split('\n[[variant]]\nname = "int8"')[0]  # FP16 alone: the decoder is what is tried here
    recipe.write_text(text)
    assert main(["all", str(recipe), "--out", str(tmp_path / "bundle"), "--work", str(tmp_path / "work")]) == 0
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.manifest.max_batch == (1 if form == "end_to_end" else 8)
    picture, true = scene(np.random.default_rng(2))
    with Pool.open(bundle, EngineConfig(device="cpu", max_batch=1)) as pool:
        boxer = Letterboxer(bundle.manifest.input, [pool.input_buffer(0)])
        box = boxer.geometry(128, 128)
        boxer.fill(box, picture, PixelFormat.BGR24, 0, 0)
        pool.submit(0, 1)
        got = make_decoder(bundle.manifest)(pool.collect(0), 0, box)
    assert isinstance(got, Detections)
    found = sorted(zip(got.class_ids.tolist(), got.boxes.tolist(), strict=True))
    assert [kind for kind, _ in found] == [kind for kind, _ in true]
    for (_, (x0, y0, x1, y1)), (_, (row, column)) in zip(found, true, strict=True):
        assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx((column * 16 + 8, row * 16 + 8), abs=0.1)
        if form != "obb":
            assert (x1 - x0, y1 - y0) == pytest.approx((32, 24), abs=0.1)
    if form == "obb":
        assert got.corners is not None
        edge = got.corners[0, 1] - got.corners[0, 0]
        assert np.arctan2(edge[1], edge[0]) == pytest.approx(-0.5, abs=0.01)
        assert np.linalg.norm(edge) == pytest.approx(32, abs=0.1)
