"""The index over a graph, and reading tensors from inside one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edged.errors import UsageError
from edged_calibration.graph.index import Graph, Tap, attribute, copy_of, drop_unused, matching, output_axis, session


def test_index_knows_producers_consumers_and_constants(network: onnx.ModelProto) -> None:
    graph = Graph(network)
    assert graph.inputs == ["pixels"] and graph.outputs == ["out"]
    assert [node.name for node in graph.weighted()] == ["first", "second", "down", "last"]
    assert graph.producers["d"].name == "add"
    assert graph.sole_consumer("c") is graph.producers["d"]
    assert graph.sole_consumer("b") is None  # read twice
    assert graph.sole_consumer("out") is None  # an output of the graph
    assert graph.array("first.weight").shape == (16, 8, 3, 3)
    assert attribute(graph.producers["f"], "strides", None) == [2, 2]
    assert attribute(graph.producers["f"], "group", 1) == 1


def test_floats_are_distinguished_from_shapes(network: onnx.ModelProto) -> None:
    model = copy_of(network)
    model.graph.node.append(onnx.helper.make_node("Shape", ["a"], ["shape"]))
    graph = Graph(model)
    assert not graph.is_float("shape")
    assert all(graph.is_float(name) for name in ("pixels", "a", "out", "first.weight", "never heard of"))


def test_output_axis_depends_on_the_node(network: onnx.ModelProto, perceptron: onnx.ModelProto) -> None:
    assert [output_axis(node) for node in Graph(network).weighted()] == [0, 0, 0, 0]
    assert [output_axis(node) for node in Graph(perceptron).weighted()] == [0, 1]


def test_copies_have_named_nodes_and_are_copies(network: onnx.ModelProto) -> None:
    copied = copy_of(network)
    names = [node.name for node in copied.graph.node]
    assert len(set(names)) == len(names) and all(names)
    copied.graph.node[0].name = "changed"
    assert network.graph.node[0].name == "first"


def test_what_nobody_reads_is_dropped(network: onnx.ModelProto) -> None:
    model = copy_of(network)
    model.graph.node.append(onnx.helper.make_node("Relu", ["a"], ["unread"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(3, np.float32), "unused"))
    drop_unused(model)
    assert {node.name for node in model.graph.node} == {node.name for node in copy_of(network).graph.node}
    assert "unused" not in {tensor.name for tensor in model.graph.initializer}


def test_tap_reads_inputs_and_inner_tensors(network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> None:
    values = Tap(network, ["pixels", "e", "e"])(feeds[0])
    assert set(values) == {"pixels", "e"}
    assert values["pixels"] is feeds[0]["pixels"]
    assert values["e"].shape == (8, 16, 12, 16) and (values["e"] >= 0).all()
    assert set(Tap(network, ["pixels"])(feeds[0])) == {"pixels"}


def test_nodes_are_named_by_globs_and_a_pattern_of_none_is_refused(network: onnx.ModelProto) -> None:
    assert matching(network, ["f*", "down"]) == ["first", "down"]
    with pytest.raises(UsageError, match="'donw'") as refused:
        matching(network, ["donw"])
    assert "down" in refused.value.hint


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("zero", [np.int8(0), np.int8(-5), np.uint8(128)])
@pytest.mark.parametrize("exact", [False, True])
def test_sessions_quantise_to_the_nearest_in_fp16_as_in_fp32(kind: type, zero: np.generic, exact: bool) -> None:
    """Ties go to the even step, what is too large to the last one, and two readers of a tensor get the same."""
    steps = np.array([-300, -128, -2.5, -1.5, -1.49, -0.75, -0.5, 0, 0.49, 0.51, 1.5, 2.5, 3.99, 126.6, 300])
    scale = kind(0.25)
    types = (onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind)), onnx.helper.np_dtype_to_tensor_dtype(zero.dtype))
    nodes = [onnx.helper.make_node("QuantizeLinear", ["x", "scale", "zero"], [name]) for name in "pq"]
    ends = [
        onnx.helper.make_tensor_value_info(n, t, ["N"]) for n, t in (("x", types[0]), *((n, types[1]) for n in "pq"))
    ]
    constants = [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in (("scale", scale), ("zero", zero))]
    graph = onnx.helper.make_graph(nodes, "steps", ends[:1], ends[1:], constants)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=9)
    before = model.SerializeToString()
    x = (steps * scale).astype(kind)
    limits = np.iinfo(zero.dtype)
    wanted = np.clip(np.rint(x.astype(np.float64) / float(scale)) + int(zero), limits.min, limits.max)
    for found in session(model, exact).run(None, {"x": x}):
        np.testing.assert_array_equal(found, wanted.astype(zero.dtype))
    assert model.SerializeToString() == before
