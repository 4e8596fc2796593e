"""The plain form computes the same with fewer nodes."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edged_calibration.graph.index import session
from edged_calibration.graph.simplify import simplified


def exported() -> onnx.ModelProto:
    """A convolution without bias and a batch norm, with the Constant, Identity and Dropout nodes of some exporters."""
    rng = np.random.default_rng(0)

    def tensor(name: str, value: np.ndarray) -> onnx.TensorProto:
        return numpy_helper.from_array(value.astype(np.float32), name)

    weights = tensor("w", rng.standard_normal((8, 3, 3, 3)))
    norms = [tensor("gamma", rng.uniform(0.5, 2, 8)), tensor("beta", rng.standard_normal(8)),
             tensor("mean", rng.standard_normal(8)), tensor("var", rng.uniform(0.1, 2, 8))]  # fmt: skip
    nodes = [
        helper.make_node("Constant", [], ["w0"], value=weights),
        helper.make_node("Identity", ["w0"], ["w1"]),
        helper.make_node("Conv", ["x", "w1"], ["a"], name="conv"),
        helper.make_node("BatchNormalization", ["a", "gamma", "beta", "mean", "var"], ["b"], epsilon=1e-3),
        helper.make_node("Dropout", ["b"], ["c"]),
        helper.make_node("Identity", ["c"], ["d"]),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("Identity", ["e"], ["out"]),
    ]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8]),
        helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 8, 6, 6]),
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], norms)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_the_same_function_in_fewer_nodes() -> None:
    model = exported()
    plain = simplified(model)
    onnx.checker.check_model(plain, full_check=True)
    assert [node.op_type for node in plain.graph.node] == ["Conv", "Relu", "Identity"]
    x = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
    assert np.allclose(session(plain).run(None, {"x": x})[0], session(model).run(None, {"x": x})[0], atol=1e-4)
    assert len(model.graph.node) == 8, "the original is left alone"


def test_a_convolution_read_twice_keeps_its_batch_norm() -> None:
    model = exported()
    model.graph.node.append(helper.make_node("Relu", ["a"], ["second"]))
    model.graph.output.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, ["N", 8, 6, 6]))
    assert "BatchNormalization" in [node.op_type for node in simplified(model).graph.node]


def test_every_convolution_has_a_bias() -> None:
    model = exported()
    del model.graph.node[3:]
    model.graph.output[0].name = "a"
    plain = simplified(model)
    (conv,) = plain.graph.node
    assert len(conv.input) == 3
