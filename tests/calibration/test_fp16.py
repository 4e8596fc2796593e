"""FP16 files: half the size, the same answers, the same outside."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edged_calibration.fp16 import halve, halve_checked
from edged_calibration.graph.index import Graph, Tap, copy_of, session
from edged_calibration.int8.activation_max import largest_magnitudes
from edged_calibration.int8.calibrate import ranges
from edged_calibration.int8.verify import verify_qdq
from edged_calibration.int8.write import calibrate, quantize
from edged_calibration.sparsity.apply import prune, sparse_layers


def largest_error(model: onnx.ModelProto, other: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> float:
    """Relative to the largest output."""
    wanted, found = (np.concatenate([session(m).run(None, f)[0] for f in feeds]) for m in (model, other))
    assert found.dtype == wanted.dtype == np.float32
    return float(np.abs(wanted - found).max() / np.abs(wanted).max())


def test_answers_and_ends_stay_the_same(network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> None:
    result = halve(network)
    assert largest_error(network, result, feeds) < 4e-3
    assert result.graph.input == network.graph.input and result.graph.output == network.graph.output
    assert len(result.SerializeToString()) < 0.65 * len(network.SerializeToString())


def test_arithmetic_is_half_but_for_the_scales_of_a_resize(network: onnx.ModelProto) -> None:
    halved = halve(network)
    kinds = {tensor.name: tensor.data_type for tensor in halved.graph.initializer}
    assert kinds.pop("scales") == TensorProto.FLOAT
    assert set(kinds.values()) == {TensorProto.FLOAT16}
    inferred = onnx.shape_inference.infer_shapes(halved, strict_mode=True).graph.value_info
    assert {value.type.tensor_type.elem_type for value in inferred} == {TensorProto.FLOAT16}


@pytest.mark.parametrize("keep", [("first",), ("down", "last"), ("add", "second"), ("concat",)])
def test_named_nodes_stay_float(
    network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]], keep: tuple[str, ...]
) -> None:
    result = halve(network, keep_float=keep)
    constants = {tensor.name for tensor in result.graph.initializer}
    weighted = {node.name for node in Graph(network).weighted()}
    assert {f"{name}.weight" for name in keep if name in weighted} <= constants
    assert largest_error(network, result, feeds) < 4e-3


def test_zeros_of_a_sparse_model_survive(network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> None:
    halved = halve(prune(network, feeds, ("down",), rows=1024))
    assert [name for name, sparse in sparse_layers(halved).items() if sparse] == ["down.weight_half"]


def test_what_half_precision_cannot_hold_is_refused_by_name(network: onnx.ModelProto) -> None:
    model = copy_of(network)
    huge = onnx.numpy_helper.from_array(np.full(32, 1e6, np.float32), "down.bias")
    Graph(model).constants["down.bias"].CopyFrom(huge)
    with pytest.raises(ValueError, match=r"down\.bias"):
        halve(model)


def test_what_overflows_on_data_stays_float(network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> None:
    model = copy_of(network)
    weights = Graph(model).array("down.weight")
    Graph(model).constants["down.weight"].CopyFrom(onnx.numpy_helper.from_array(weights * 1e5, "down.weight"))
    halved, report = halve_checked(model, feeds)
    kept = {entry.node: entry for entry in report.kept}
    assert {"down", "concat", "last", "up"} <= kept.keys() and "first" not in kept  # who writes and who reads it
    assert kept["down"].largest is not None and kept["down"].largest > 65504 and "values up to" in kept["down"].reason
    assert report.sqnr_db["out"] > 40
    assert largest_error(model, halved, feeds) < 4e-3


def test_weights_that_do_not_fit_keep_their_node_float(
    network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]
) -> None:
    model = copy_of(network)
    huge = onnx.numpy_helper.from_array(np.full(32, 1e6, np.float32), "down.bias")
    Graph(model).constants["down.bias"].CopyFrom(huge)
    _, report = halve_checked(model, feeds)
    assert "down" in {entry.node for entry in report.kept}


def test_nothing_is_kept_where_nothing_overflows(network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> None:
    seen: list[tuple[int, int]] = []
    _, report = halve_checked(network, feeds, keep_float=["first"], progress=lambda *step: seen.append(step))
    assert [(entry.node, entry.reason) for entry in report.kept] == [("first", "the recipe says so")]
    assert report.sqnr_db["out"] > 50 and seen[-1] == (8, 8)


def test_the_largest_magnitudes_are_those_of_the_tensors(
    network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]
) -> None:
    found = largest_magnitudes(network, feeds)
    for name in ("pixels", "c", "i"):
        expected = max(float(np.abs(Tap(network, [name])(feed)[name]).max()) for feed in feeds)
        assert found[name] == pytest.approx(expected)
    assert found["down.weight"] == pytest.approx(float(np.abs(Graph(network).array("down.weight")).max()))


def test_a_quantised_graph_is_fp16_around_its_int8(
    network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]
) -> None:
    quantised = quantize(network, ranges(calibrate(network, feeds)), "trt")
    halved = halve(quantised)
    kinds = {tensor.data_type for tensor in halved.graph.initializer if tensor.name != "scales"}
    assert kinds == {TensorProto.FLOAT16, TensorProto.INT8}
    assert verify_qdq(halved) == [] and halved.opset_import[0].version == 19
    wanted, found = (session(m, exact=True).run(None, feeds[0])[0] for m in (quantised, halved))
    assert 10 * np.log10((wanted**2).mean() / ((wanted - found) ** 2).mean()) > 30
    graph = Graph(halved)
    for name, scale in ((n, graph.array(n)) for n in graph.constants if n.endswith("scale_half")):
        np.testing.assert_array_equal(scale.astype(np.float32), Graph(quantised).array(name.removesuffix("_half")))
