"""Import of models that come quantised: the same numbers, our form, and the rules they break."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edged.errors import UsageError
from edged_calibration.graph.index import Graph, copy_of, session, stored_weights
from edged_calibration.int8.calibrate import ranges
from edged_calibration.int8.import_qat import import_qat, is_quantised, unquantised
from edged_calibration.int8.verify import verify_qdq
from edged_calibration.int8.write import Target, calibrate, quantize
from edged_calibration.sparsity.apply import prune, sparse_layers


@pytest.fixture(scope="module")
def trained(network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> onnx.ModelProto:
    """As a training framework exports it: float weights behind a Q and a DQ of their own."""
    pruned = prune(network, feeds, ("down",), rows=1024)
    model = quantize(pruned, ranges(calibrate(pruned, feeds)), "trt")
    graph, floats = Graph(model), Graph(pruned)
    for node in graph.nodes:
        if node.op_type == "DequantizeLinear" and node.input[0] in graph.constants:
            name = node.input[0].removesuffix("_q")
            model.graph.initializer.append(numpy_helper.from_array(floats.array(name), name))
            quantiser = helper.make_node("QuantizeLinear", [name, *node.input[1:]], [f"{name}_made"], axis=0)
            node.input[0] = f"{name}_made"
            model.graph.node.insert(0, quantiser)
    return copy_of(model)


def run(model: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> np.ndarray:
    return np.asarray(session(model, exact=True).run(None, feeds[0])[0])


def test_weights_are_stored_as_int8_and_nothing_else_changes(
    trained: onnx.ModelProto, network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]
) -> None:
    assert is_quantised(trained) and not is_quantised(network)
    imported, problems = import_qat(trained)
    assert problems == []
    np.testing.assert_allclose(run(imported, feeds), run(trained, feeds), atol=1e-5)
    graph = Graph(imported)
    kinds = {np.asarray(stored_weights(graph, node)).dtype for node in graph.nodes if node.op_type == "Conv"}
    assert kinds == {np.dtype(np.int8)}
    assert sum(node.op_type == "QuantizeLinear" for node in graph.nodes) == 6  # of activations alone
    assert [sparse for sparse in sparse_layers(imported).values()].count(True) == 1
    assert [sparse for sparse in sparse_layers(trained).values()].count(True) == 1


def test_unsigned_around_128_becomes_signed(trained: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> None:
    model = copy_of(trained)
    for tensor in model.graph.initializer:
        if tensor.name == "e_zero":
            tensor.CopyFrom(numpy_helper.from_array(np.array(128, np.uint8), "e_zero"))
    assert any(problem.rule == "int8" for problem in verify_qdq(model))
    imported, problems = import_qat(model)
    assert problems == []
    np.testing.assert_allclose(run(imported, feeds), run(trained, feeds), atol=1e-5)


def test_what_cannot_be_repaired_exactly_is_reported(trained: onnx.ModelProto) -> None:
    model = copy_of(trained)
    for tensor in model.graph.initializer:
        if tensor.name == "e_zero":
            tensor.CopyFrom(numpy_helper.from_array(np.array(7, np.int8), "e_zero"))
    _, problems = import_qat(model)
    assert {problem.rule for problem in problems} == {"symmetric"}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[2] == "e_zero":
            del node.input[2:]
    _, problems = import_qat(model)
    assert {problem.rule for problem in problems} == {"int8"}  # the standard says uint8


def test_int8_operators_are_refused() -> None:
    node = helper.make_node("ConvInteger", ["x", "w"], ["y"], name="first")
    graph = helper.make_graph([node], "integers", [], [])
    model = helper.make_model(graph)
    assert is_quantised(model)
    with pytest.raises(UsageError, match="ConvInteger 'first'"):
        import_qat(model)


@pytest.mark.parametrize("target", ["trt", "x86", "arm"])
def test_every_runtime_s_file_comes_from_the_trained_scales(
    trained: onnx.ModelProto, feeds: list[dict[str, np.ndarray]], target: Target
) -> None:
    imported, _ = import_qat(trained)
    floats, known = unquantised(imported)
    assert not is_quantised(floats) and {"pixels", "b", "e"} <= known.keys()
    onnx.checker.check_model(floats, full_check=True)
    rest = ranges(calibrate(floats, feeds))
    emitted = quantize(floats, {**rest, **known}, target)
    assert verify_qdq(emitted, target) == []
    wanted, found = run(imported, feeds), run(emitted, feeds)
    if target == "trt":
        np.testing.assert_array_equal(found, wanted)  # to the bit: the scales are the trained ones
    else:
        assert 10 * np.log10((wanted**2).mean() / ((wanted - found) ** 2).mean()) > 25


def test_an_output_behind_a_pair_keeps_its_name(
    perceptron: onnx.ModelProto, vectors: list[dict[str, np.ndarray]]
) -> None:
    model = quantize(perceptron, ranges(calibrate(perceptron, vectors)), "arm")
    assert Graph(model).producers["out"].op_type == "DequantizeLinear"
    floats, known = unquantised(model)
    assert Graph(floats).producers["out"].op_type == "MatMul" and "out" in known
    wanted = run(perceptron, vectors)
    assert np.abs(run(floats, vectors) - wanted).max() < 0.02 * np.abs(wanted).max()
