"""Small models, pictures and recipes on disk, for the tests that run whole steps."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = 6
SIDE = 32


def classifier(seed: int = 0, channels: int = 16) -> onnx.ModelProto:
    """`pixels` [N, 3, 32, 32] RGB -> `logits` [N, 6]: three convolutions, a residual addition, a pool, a Gemm."""
    rng = np.random.default_rng(seed)

    def constant(name: str, *shape: int) -> onnx.TensorProto:
        spread = np.sqrt(2 / np.prod(shape[1:]))
        return numpy_helper.from_array((rng.standard_normal(shape) * spread).astype(np.float32), name)

    constants = [
        constant("stem.weight", channels, 3, 3, 3),
        constant("a.weight", channels, channels, 3, 3),
        constant("b.weight", channels, channels, 3, 3),
        numpy_helper.from_array((rng.standard_normal((CLASSES, channels)) * 3).astype(np.float32), "head.weight"),
        *(numpy_helper.from_array(np.zeros(channels, np.float32), f"{name}.bias") for name in ("stem", "a", "b")),
        numpy_helper.from_array(np.zeros(CLASSES, np.float32), "head.bias"),
    ]
    nodes = [
        helper.make_node(
            "Conv", ["pixels", "stem.weight", "stem.bias"], ["s"], name="stem", strides=[2, 2], pads=[1, 1, 1, 1]
        ),
        helper.make_node("Relu", ["s"], ["t"], name="stem_relu"),
        helper.make_node("Conv", ["t", "a.weight", "a.bias"], ["u"], name="a", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["u"], ["v"], name="a_relu"),
        helper.make_node("Conv", ["v", "b.weight", "b.bias"], ["w"], name="b", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["w", "t"], ["x"], name="add"),
        helper.make_node("Relu", ["x"], ["y"], name="add_relu"),
        helper.make_node("GlobalAveragePool", ["y"], ["z"], name="pool"),
        helper.make_node("Flatten", ["z"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "head.weight", "head.bias"], ["logits"], name="head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def pictures(
    folder: Path, count: int, seed: int = 0, width: int = 48, height: int = 40, brightness: float = 1.0
) -> Path:
    """Coloured blobs on coloured grounds, PNG, all different."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image = np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
        for _ in range(4):
            centre = (int(rng.integers(width)), int(rng.integers(height)))
            colour = tuple(int(value) for value in rng.integers(0, 256, 3))
            cv2.circle(image, centre, int(rng.integers(3, 16)), colour, -1)
        cv2.imwrite(str(folder / f"{number:04d}.png"), (image * brightness).astype(np.uint8))
    return folder


RECIPE = """
name = "small"
model = "model.onnx"
targets = ["x86", "trt"]
[input]
mean = [120.0, 118.0, 110.0]
std = [60.0, 58.0, 59.0]
[output]
decoder = "classify"
logits = "logits"
[calibration]
frames = "calibration"
[validation]
frames = "validation"
[[variant]]
name = "fp16"
precision = "fp16"
[[variant]]
name = "int8"
precision = "int8"
[gate]
fp16_points = 3
int8_points = 12
"""


def recipe(folder: Path, text: str = RECIPE, calibration: int = 70, validation: int = 120) -> Path:
    """A recipe with its model and its pictures; returns the recipe's path."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(classifier(), folder / "model.onnx")
    pictures(folder / "calibration", calibration, seed=1)
    pictures(folder / "validation", validation, seed=2)
    file = folder / "small.toml"
    file.write_text(text)
    return file
