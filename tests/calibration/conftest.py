"""Small float models and feeds for the passes to work on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

Shape = list[int | str | None]


def _constant(rng: np.random.Generator, name: str, *shape: int) -> onnx.TensorProto:
    spread = 1 / np.sqrt(max(math.prod(shape[1:]), 1))
    return numpy_helper.from_array((rng.standard_normal(shape) * spread).astype(np.float32), name)


def _model(
    nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], shape: Shape, output: Shape
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, output)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.fixture(scope="session")
def network() -> onnx.ModelProto:
    """Convolutions, residual addition, resize, concatenation: `pixels` [N, 8, 12, 16] -> `out` [N, 12, 12, 16]."""
    rng = np.random.default_rng(1)
    shapes = {"first": (16, 8, 3, 3), "second": (16, 16, 1, 1), "down": (32, 16, 3, 3), "last": (12, 48, 1, 1)}
    constants = [_constant(rng, f"{name}.weight", *shape) for name, shape in shapes.items()]
    constants += [_constant(rng, f"{name}.bias", shape[0]) for name, shape in shapes.items()]
    constants.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"))

    def conv(name: str, source: str, result: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node("Conv", [source, f"{name}.weight", f"{name}.bias"], [result], name=name, **attributes)

    nodes = [
        conv("first", "pixels", "a", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        conv("second", "b", "c"),
        helper.make_node("Add", ["c", "b"], ["d"], name="add"),
        helper.make_node("Relu", ["d"], ["e"]),
        conv("down", "e", "f", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["f"], ["g"]),
        helper.make_node("Resize", ["g", "", "scales"], ["h"], name="up", mode="nearest"),
        helper.make_node("Concat", ["e", "h"], ["i"], name="concat", axis=1),
        conv("last", "i", "out"),
    ]
    return _model(nodes, constants, ["N", 8, 12, 16], ["N", 12, 12, 16])


@pytest.fixture(scope="session")
def perceptron() -> onnx.ModelProto:
    """A Gemm with transposed weights, a ReLU, a MatMul: `pixels` [N, 24] -> `out` [N, 5]."""
    rng = np.random.default_rng(2)
    constants = [_constant(rng, "gemm.weight", 32, 24), _constant(rng, "gemm.bias", 32)]
    constants.append(numpy_helper.from_array(rng.standard_normal((32, 5)).astype(np.float32), "matmul.weight"))
    nodes = [
        helper.make_node("Gemm", ["pixels", "gemm.weight", "gemm.bias"], ["a"], name="gemm", transB=1),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "matmul.weight"], ["out"], name="matmul"),
    ]
    return _model(nodes, constants, ["N", 24], ["N", 5])


@pytest.fixture(scope="session")
def feeds() -> list[dict[str, np.ndarray]]:
    """Four batches for `network`, smooth so that neighbouring inputs depend on each other."""
    rng = np.random.default_rng(3)
    coarse = rng.standard_normal((4, 8, 8, 6, 8)).astype(np.float32)
    return [{"pixels": batch.repeat(2, axis=2).repeat(2, axis=3)} for batch in coarse]


@pytest.fixture(scope="session")
def vectors() -> list[dict[str, np.ndarray]]:
    """Two batches for `perceptron`."""
    return [{"pixels": x} for x in np.random.default_rng(4).standard_normal((2, 64, 24)).astype(np.float32)]
