"""Small ONNX models and whole bundles of them, made on the spot: real files for a real ONNX Runtime."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH, HEIGHT, STRIDE, CLASSES = 64, 32, 8, 3
LABELS = ["disc", "washer", "nut"]


def _model(
    nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: dict[str, np.ndarray[Any, Any]] | None = None
) -> bytes:
    initializers = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(nodes, "small", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _info(name: str, kind: int, shape: list[Any] | None) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


@dataclass(frozen=True)
class Tensors:
    """Names, type and layout of a model's input and scores."""

    batch: int | str = "N"
    input_name: str = "image"
    scores_name: str = "scores"
    input_type: int = TensorProto.UINT8
    nchw: bool = False


def center_model(
    bias: float = 0.0,
    *,
    classes: int = CLASSES,
    width: int = WIDTH,
    height: int = HEIGHT,
    tensors: Tensors = Tensors(),
    spoil: str | None = None,
    turns: int = 0,
    scale: float = 1.0,
) -> bytes:
    """A centre detector. Class c of a cell scores the cell's mean of channel c % 3 (0..255) times `scale` + `bias`;
    boxes reach one cell to each side. `turns` of an idle loop (about 5 us each) make it as slow as you like.

    `spoil`: "gather" fails at run time once the first pixel's blue is above 200, "hang" then never ends; "nan" gives
    NaN always.
    """
    input_name, scores_name, batch = tensors.input_name, tensors.scores_name, tensors.batch
    weights = np.zeros((classes, 3, 1, 1), np.float32)
    weights[np.arange(classes), np.arange(classes) % 3] = scale
    constants = {
        "w": weights,
        "b": np.full(classes, bias, np.float32),
        "bw": np.zeros((4, 3, 1, 1), np.float32),
        "bb": np.ones(4, np.float32),
    }
    pool: dict[str, Any] = {"kernel_shape": [STRIDE, STRIDE], "strides": [STRIDE, STRIDE]}
    nodes = [
        helper.make_node("Transpose", [input_name], ["nchw"], perm=[0, 1, 2, 3] if tensors.nchw else [0, 3, 1, 2]),
        helper.make_node("Cast", ["nchw"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("AveragePool", ["float"], ["cells"], **pool),
        helper.make_node("Conv", ["cells", "bw", "bb"], ["boxes"]),
    ]
    raw = scores_name if spoil is None else "raw"
    nodes.append(helper.make_node("Conv", ["cells", "w", "b"], [raw]))
    if spoil == "nan":
        constants["minus"] = np.array(-1.0, np.float32)
        nodes.append(helper.make_node("Sqrt", ["minus"], ["broken"]))
        nodes.append(helper.make_node("Add", [raw, "broken"], [scores_name]))
    if spoil == "gather":
        constants |= {
            "table": np.zeros(201, np.float32),
            "starts": np.zeros(4, np.int64),
            "ends": np.ones(4, np.int64),
            "one": np.array([1], np.int64),
        }
        nodes += [
            helper.make_node("Slice", [input_name, "starts", "ends"], ["corner"]),
            helper.make_node("Reshape", ["corner", "one"], ["first"]),
            helper.make_node("Cast", ["first"], ["index"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "index"], ["nothing"]),
            helper.make_node("Add", [raw, "nothing"], [scores_name]),
        ]
    if spoil == "hang":
        constants |= {
            "starts": np.zeros(4, np.int64),
            "ends": np.ones(4, np.int64),
            "one": np.array([1], np.int64),
            "limit": np.array([200], np.int64),
            "for_ever": np.array([1 << 60], np.int64),
            "yes": np.array(True),
        }
        nodes += [
            helper.make_node("Slice", [input_name, "starts", "ends"], ["corner"]),
            helper.make_node("Reshape", ["corner", "one"], ["first"]),
            helper.make_node("Cast", ["first"], ["value"], to=TensorProto.INT64),
            helper.make_node("Greater", ["value", "limit"], ["bright"]),
            helper.make_node("Where", ["bright", "for_ever", "one"], ["turns"]),
            helper.make_node("Loop", ["turns", "yes", raw], [scores_name], body=_idle_loop()),
        ]
    if turns:
        constants |= {"turns": np.array([turns], np.int64), "yes": np.array(True)}
        nodes[-1].output[0] = "quick"
        nodes.append(helper.make_node("Loop", ["turns", "yes", "quick"], [scores_name], body=_idle_loop()))
    cells = [height // STRIDE, width // STRIDE]
    return _model(
        nodes,
        [
            _info(
                input_name, tensors.input_type, [batch, 3, height, width] if tensors.nchw else [batch, height, width, 3]
            )
        ],
        [
            _info(scores_name, TensorProto.FLOAT, [batch, classes, *cells]),
            _info("boxes", TensorProto.FLOAT, [batch, 4, *cells]),
        ],
        constants,
    )


def heavy_model(megabytes: int, bias: float = 0.0, turns: int = 0) -> bytes:
    """A centre detector with weights of that size, of which a frame reads a row: as large as you like, and quick."""
    model = onnx.load_from_string(center_model(bias, turns=turns))
    rows = megabytes * 1_000_000 // 4096
    rng = np.random.default_rng(megabytes)
    table = rng.standard_normal((rows, 1024), np.float32)
    constants = {"table": table, "nought": np.zeros(1, np.float32)}
    model.graph.initializer.extend([numpy_helper.from_array(value, name) for name, value in constants.items()])
    cells = next(node for node in model.graph.node if node.op_type == "AveragePool").input[0]
    scores = next(node for node in model.graph.node if node.output[0] == "scores")
    scores.output[0] = "light"
    model.graph.node.extend(
        [
            helper.make_node("ReduceMax", [cells], ["brightest"], keepdims=0),
            helper.make_node("Cast", ["brightest"], ["row"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "row"], ["weights"]),
            helper.make_node("ReduceSum", ["weights"], ["sum"], keepdims=0),
            helper.make_node("Mul", ["sum", "nought"], ["nothing"]),
            helper.make_node("Add", ["light", "nothing"], ["scores"]),
        ]
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _idle_loop() -> Any:
    """A loop body that does nothing."""
    inputs = [
        _info("turn", TensorProto.INT64, []),
        _info("go_on", TensorProto.BOOL, []),
        _info("kept", TensorProto.FLOAT, None),
    ]
    nodes = [
        helper.make_node("Identity", ["go_on"], ["go_on_again"]),
        helper.make_node("Identity", ["kept"], ["kept_again"]),
    ]
    outputs = [_info("go_on_again", TensorProto.BOOL, []), _info("kept_again", TensorProto.FLOAT, None)]
    return helper.make_graph(nodes, "idle", inputs, outputs)


def lying_model() -> bytes:
    """Gives outputs of another shape than the manifest says, and nobody can know before it runs: 2 + the brightest
    pixel's value along every axis."""
    constants = {
        "axes": np.array([1, 2, 3], np.int64),
        "starts": np.zeros(3, np.int64),
        "two": np.full(3, 2, np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["float"], ["brightest"], keepdims=0),
        helper.make_node("Cast", ["brightest"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Add", ["two", "whole"], ["ends"]),
        helper.make_node("Slice", ["float", "starts", "ends", "axes"], ["scores"]),
        helper.make_node("Identity", ["scores"], ["boxes"]),
    ]
    anything = [_info(name, TensorProto.FLOAT, ["N", "a", "b", "c"]) for name in ("scores", "boxes")]
    return _model(nodes, [_info("image", TensorProto.UINT8, ["N", HEIGHT, WIDTH, 3])], anything, constants)


def model_with_external_weights(location: str) -> bytes:
    """A centre detector whose first weights lie in another file."""
    model = onnx.load_from_string(center_model())
    weights = model.graph.initializer[0]
    length = len(weights.raw_data)
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
        entry = weights.external_data.add()
        entry.key, entry.value = key, value
    return bytes(model.SerializeToString())


def classify_model() -> bytes:
    """logits [N, 3]: the means of blue, green and red."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["logits"], axes=[1, 2], keepdims=0),
    ]
    return _model(
        nodes,
        [_info("image", TensorProto.UINT8, ["N", HEIGHT, WIDTH, 3])],
        [_info("logits", TensorProto.FLOAT, ["N", 3])],
    )


def file_entry(path: str, content: bytes, accuracy: float = 0.8, **changes: Any) -> dict[str, Any]:
    entry = {
        "runtime": "onnxruntime",
        "path": path,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "accuracy": {"map50": accuracy},
        "images": 100,
        "arch": "any",
    }
    return entry | changes


def manifest_for(models: dict[str, bytes], **changes: Any) -> dict[str, Any]:
    """A valid manifest of centre detectors, as JSON would hold it; `changes` replace top-level keys."""
    variants = [
        {
            "name": name,
            "precision": "fp32",
            "sparse": False,
            "files": [file_entry(f"{name}.onnx", content, accuracy=0.9 - 0.1 * index)],
        }
        for index, (name, content) in enumerate(models.items())
    ]
    manifest: dict[str, Any] = {
        "version": 1,
        "name": "small",
        "task": "detect",
        "labels": LABELS,
        "input": {"name": "image", "width": WIDTH, "height": HEIGHT},
        "output": {"decoder": "center", "scores": "scores", "boxes": "boxes", "stride": STRIDE},
        "metric": "map50",
        "reference": next(iter(models)),
        "variants": variants,
        "max_batch": 4,
    }
    return manifest | changes


def write_bundle(directory: Path, models: dict[str, bytes], manifest: dict[str, Any] | None = None) -> Path:
    """The bundle on disk: one ONNX file per model, named after its variant."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in models.items():
        (directory / f"{name}.onnx").write_bytes(content)
    text = json.dumps(manifest if manifest is not None else manifest_for(models))
    (directory / "manifest.json").write_text(text)
    return directory
