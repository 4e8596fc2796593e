"""INT8: placement per target, grids that represent zero, and outputs close to the float model's."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edged_calibration.graph.index import Graph, session
from edged_calibration.int8.calibrate import METHODS, Method, Range, ranges
from edged_calibration.int8.write import Target, calibrate, grid, quantize, quantize_weights
from edged_calibration.sparsity.apply import is_2_4, prune

TARGETS: tuple[Target, ...] = ("trt", "x86", "arm")


def signal_to_noise_db(model: onnx.ModelProto, other: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> float:
    """Of the other model's output against the model's."""
    first, second = session(model, exact=True), session(other, exact=True)
    wanted = np.concatenate([first.run(None, feed)[0] for feed in feeds])
    found = np.concatenate([second.run(None, feed)[0] for feed in feeds])
    return float(10 * np.log10((wanted**2).mean() / ((wanted - found) ** 2).mean()))


def test_grids_hold_zero_and_the_whole_range() -> None:
    for low, high in [(0, 4), (-1, 3), (-2.5, 0), (0.5, 2)]:
        for target in TARGETS:
            chosen = grid(Range(low, high), target)
            lowest, highest = (-128, 127) if chosen.zero_point.dtype == np.int8 else (0, 255)
            assert lowest <= chosen.zero_point <= highest
            slack = float(chosen.scale)
            assert (lowest - int(chosen.zero_point)) * float(chosen.scale) <= min(low, 0) + slack
            assert (highest - int(chosen.zero_point)) * float(chosen.scale) >= max(high, 0) - slack
    assert grid(Range(-1, 3), "trt").zero_point == 0
    assert grid(Range(0, 3), "x86").zero_point == 0  # after a ReLU no level is wasted, and the ReLU is the clipping
    assert grid(Range(0, 3), "arm").zero_point == -128
    assert grid(Range(0, 0), "x86").scale > 0


def test_normalised_bytes_have_their_own_grid() -> None:
    pixels = Range(-1, 127 / 128)
    assert grid(pixels, "x86").scale == np.float32(1 / 128)
    assert grid(pixels, "x86").zero_point == 128
    assert grid(pixels, "trt").scale == np.float32(1 / 128)


def test_weights_keep_zeros_and_err_by_half_a_step() -> None:
    weights = np.random.default_rng(0).standard_normal((6, 8, 3, 3)).astype(np.float32)
    weights[:, ::2] = 0
    weights[2] = 0  # a dead channel
    for target in TARGETS:
        values, scales = quantize_weights(weights, 0, target)
        assert values.dtype == np.int8 and values.min() >= -127
        assert not values[weights == 0].any()
        steps = scales.reshape(-1, 1, 1, 1)
        assert (np.abs(values * steps - weights) <= 0.5001 * steps).all()
    assert (quantize_weights(weights, 0, "trt")[0] == quantize_weights(weights, 0, "arm")[0]).all()


def saturating_products(pixels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[n, k] uint8 by [m, k] int8 as x86 without VNNI computes it: sums of two neighbouring products in 16 bits."""
    products = pixels[:, None].astype(np.int64) * weights.astype(np.int64)
    pairs = products.reshape(*products.shape[:2], -1, 2).sum(axis=3)
    return np.clip(pairs, -(2**15), 2**15 - 1).sum(axis=2)


@pytest.mark.parametrize("signs", [(1, 1), (-1, -1), (1, -1), (0, 1)])
def test_weights_for_x86_cannot_saturate_whatever_the_pixels_and_the_order(signs: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    weights = (rng.uniform(0.5, 1, (16, 32)) * rng.choice(signs, (16, 32)) + 1e-9).astype(np.float32)
    weights[3, 5:] = 0  # few inputs
    weights[4, 7] *= 100  # one that stands out
    pixels = rng.choice(np.array([0, 254, 255], np.uint8), (64, 32))
    pixels[0] = 255
    values, _ = quantize_weights(weights, 0, "x86")
    for _ in range(20):
        order = rng.permutation(32)
        exact = pixels[:, order].astype(np.int64) @ values[:, order].T.astype(np.int64)
        assert (saturating_products(pixels[:, order], values[:, order]) == exact).all()
    if signs != (1, -1):
        full, _ = quantize_weights(weights, 0, "arm")
        assert (saturating_products(pixels, full) != pixels.astype(np.int64) @ full.T.astype(np.int64)).any()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", TARGETS)
def test_outputs_stay_close_to_float(
    network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]], target: Target, method: Method
) -> None:
    quantised = quantize(network, ranges(calibrate(network, feeds), method), target)
    assert signal_to_noise_db(network, quantised, feeds) > 27  # half a step of 8 bits at each of five tensors


@pytest.mark.parametrize("target", TARGETS)
def test_matrix_products_stay_close_to_float(
    perceptron: onnx.ModelProto, vectors: list[dict[str, np.ndarray]], target: Target
) -> None:
    quantised = quantize(perceptron, ranges(calibrate(perceptron, vectors)), target)
    assert signal_to_noise_db(perceptron, quantised, vectors) > 30


def _quantised_inputs(model: onnx.ModelProto) -> dict[str, list[bool]]:
    """Node name -> for each input, whether it comes out of a DequantizeLinear."""
    made = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return {node.name: [name in made for name in node.input] for node in model.graph.node}


def test_tensorrt_gets_symmetric_inputs_and_a_quantised_skip_branch(
    network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]
) -> None:
    quantised = quantize(network, ranges(calibrate(network, feeds)), "trt")
    graph = Graph(quantised)
    for node in graph.nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = graph.array(node.input[2])
            assert zero.dtype == np.int8 and not zero.any()
    inputs = _quantised_inputs(quantised)
    assert all(inputs[name] == [True, True, False] for name in ("first", "second", "down", "last"))
    assert inputs["add"] == [False, True]  # `c` comes straight from a convolution and is fused with it
    assert all(inputs["concat"]) and inputs["up"][0]  # bytes are joined, not floats
    assert graph.array("e_scale") == graph.array("h_scale") == graph.array("i_scale")
    assert graph.producers["out"].name == "last"


@pytest.mark.parametrize(("target", "kind"), [("x86", TensorProto.UINT8), ("arm", TensorProto.INT8)])
def test_processors_get_a_pair_on_every_tensor(
    network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]], target: Target, kind: int
) -> None:
    quantised = quantize(network, ranges(calibrate(network, feeds)), target)
    graph = Graph(quantised)
    inputs = _quantised_inputs(quantised)
    assert all(inputs[name] == [True, True, True] for name in ("first", "second", "down"))
    assert inputs["last"] == [True, False, False]  # its answers are not rounded to 8 bits
    assert inputs["add"] == [True, True] and inputs["concat"] == [True, True] and inputs["up"][0]
    assert graph.producers["out"].name == "last"
    zeros = {node.input[2] for node in graph.nodes if node.op_type == "QuantizeLinear"}
    assert {graph.constants[name].data_type for name in zeros} == {kind}
    for node in (node for node in graph.nodes if node.op_type == "Conv" and node.name != "last"):
        weights = graph.producers[node.input[1]]
        assert not graph.array(weights.input[2]).any()
    resized = graph.producers[graph.producers["h_q"].input[0]]
    assert graph.array("h_scale") == graph.array("g_scale") and resized.op_type == "Resize"


@pytest.mark.parametrize("target", TARGETS)
def test_sparse_weights_stay_sparse(
    network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]], target: Target
) -> None:
    pruned = prune(network, feeds, ("down",), rows=1024)
    quantised = Graph(quantize(pruned, ranges(calibrate(pruned, feeds)), target))
    weights = quantised.array("down.weight_q")
    assert weights.dtype == np.int8 and is_2_4(weights, 1)
    assert not weights[Graph(pruned).array("down.weight") == 0].any()


@pytest.mark.parametrize("target", TARGETS)
def test_named_nodes_stay_float(network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]], target: Target) -> None:
    quantised = quantize(network, ranges(calibrate(network, feeds)), target, keep_float=("last", "down"))
    graph = Graph(quantised)
    assert {"last.weight", "down.weight"} <= set(graph.constants)
    assert "first.weight" not in graph.constants
    assert signal_to_noise_db(network, quantised, feeds) > 27


def test_the_float_model_is_left_alone_and_a_missing_range_is_named(
    network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]
) -> None:
    before = network.SerializeToString()
    known = ranges(calibrate(network, feeds))
    quantize(network, known, "x86")
    assert network.SerializeToString() == before
    with pytest.raises(KeyError, match="pixels"):
        quantize(network, {name: found for name, found in known.items() if name != "pixels"}, "trt")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the uint8 graph is the one for x86")
def test_onnxruntime_fuses_every_int8_node_of_the_x86_graph(
    network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]], tmp_path: Path
) -> None:
    quantised = quantize(network, ranges(calibrate(network, feeds)), "x86")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    onnxruntime.InferenceSession(quantised.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert kinds.count("QLinearConv") == 3 and kinds.count("Conv") == 1  # the last gives the answers, in float
    assert not {"FusedConv", "Relu", "Add", "Concat"} & set(kinds)


@pytest.mark.parametrize("target", TARGETS)
def test_shapes_and_shared_biases_survive(target: Target) -> None:
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.standard_normal((8, 8, 1, 1)).astype(np.float32), n) for n in ("w0", "w1")]
    bias = numpy_helper.from_array(rng.standard_normal(8).astype(np.float32), "bias")
    rest = numpy_helper.from_array(np.array([-1], np.int64), "rest")
    nodes = [
        helper.make_node("Conv", ["pixels", "w0", "bias"], ["a"], name="c0"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w1", "bias"], ["c"], name="c1"),
        helper.make_node("Shape", ["c"], ["shape"], start=0, end=2),
        helper.make_node("Concat", ["shape", "rest"], ["flat"], axis=0),
        helper.make_node("Reshape", ["c", "flat"], ["out"]),
    ]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 8, 4, 4])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 8, 16])
    graph = helper.make_graph(nodes, "shapes", [pixels], [out], [*weights, bias, rest])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    feeds = [{"pixels": rng.standard_normal((16, 8, 4, 4)).astype(np.float32)}]
    quantised = quantize(model, ranges(calibrate(model, feeds)), target)
    assert signal_to_noise_db(model, quantised, feeds) > 30
    fused = session(quantised).run(None, feeds[0])[0]
    assert np.abs(fused - session(model).run(None, feeds[0])[0]).max() < 0.5


def test_biases_are_stored_on_the_grid_of_their_products(
    network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]
) -> None:
    graph = Graph(quantize(network, ranges(calibrate(network, feeds)), "x86"))
    stored = graph.array("down.bias_q").astype(np.float64) * graph.array("down.bias_scale")
    step = graph.array("down.bias_scale")
    assert graph.array("down.bias_q").dtype == np.int32
    assert (np.abs(stored - Graph(network).array("down.bias")) <= 0.5001 * step).all()
    assert np.allclose(step, graph.array("e_scale") * graph.array("down.weight_scale"))
    assert numpy_helper.to_array(graph.constants["down.weight_scale"]).shape == (32,)
