"""The verifier: nothing to say of what `quantize` makes, and a sentence for every rule that is broken on purpose."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edged_calibration import fp16, verify
from edged_calibration.fp16 import halve
from edged_calibration.graph.index import Graph, copy_of
from edged_calibration.int8.calibrate import ranges
from edged_calibration.int8.verify import verify_qdq
from edged_calibration.int8.write import Target, calibrate, quantize


def good(model: onnx.ModelProto, feeds: list[dict[str, np.ndarray]], target: Target = "trt") -> onnx.ModelProto:
    """The quantised graph that every violation is seeded into."""
    return quantize(model, ranges(calibrate(model, feeds)), target)


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def constant(model: onnx.ModelProto, name: str, value: np.ndarray) -> str:
    """Set, or add, a constant."""
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(value, name))
            return name
    model.graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def pair(model: onnx.ModelProto, tensor: str, *readers: tuple[str, int], scale: float = 0.1) -> None:
    """Let the readers (node, position) get the tensor through a new pair."""
    key = f"seeded_{tensor}"
    grid = [constant(model, f"{key}_scale", np.array(scale, np.float32))]
    grid.append(constant(model, f"{key}_zero", np.array(0, np.int8)))
    made = [
        helper.make_node("QuantizeLinear", [tensor, *grid], [f"{key}_q"], name=f"{key}_Q"),
        helper.make_node("DequantizeLinear", [f"{key}_q", *grid], [f"{key}_dq"], name=f"{key}_DQ"),
    ]
    for name, position in readers:
        node(model, name).input[position] = f"{key}_dq"
    behind = next(at for at, other in enumerate(model.graph.node, 1) if tensor in other.output)
    for at, new in enumerate(made, behind):
        model.graph.node.insert(at, new)


@pytest.mark.parametrize("target", ["trt", "x86", "arm"])
def test_what_quantize_makes_is_clean(
    network: onnx.ModelProto,
    perceptron: onnx.ModelProto,
    feeds: list[dict[str, np.ndarray]],
    vectors: list[dict[str, np.ndarray]],
    target: Target,
) -> None:
    assert verify_qdq(good(network, feeds, target), target) == []
    assert verify_qdq(good(perceptron, vectors, target), target) == []
    assert verify_qdq(network, target) == []  # no pair, no rule


def test_weights_that_saturate_without_vnni_are_found(
    network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]
) -> None:
    targets: tuple[Target, ...] = ("x86", "arm")
    for target in targets:
        model = good(network, feeds, target)
        values = Graph(model).array("down.weight_q").copy()
        values.reshape(32, -1)[5, :2] = -100, -29
        constant(model, "down.weight_q", values)
        found = [problem for problem in verify_qdq(model, target) if problem.rule == "saturation"]
        assert [problem.node for problem in found] == (["down"] if target == "x86" else [])


def test_the_processors_files_are_not_for_tensorrt(
    network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]
) -> None:
    x86 = {problem.rule for problem in verify_qdq(good(network, feeds, "x86"), "trt")}
    assert {"int8", "float bias", "residual"} <= x86
    assert "symmetric" in {problem.rule for problem in verify_qdq(good(network, feeds, "arm"), "trt")}


def zero_point(model: onnx.ModelProto) -> None:
    constant(model, "e_zero", np.array(3, np.int8))


def unsigned(model: onnx.ModelProto) -> None:
    constant(model, "e_zero", np.array(0, np.uint8))


def zero_scale(model: onnx.ModelProto) -> None:
    constant(model, "e_scale", np.array(0, np.float32))


def computed_scale(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Abs", ["e_scale"], ["computed"]))
    for name in ("e_Quantize", "e_Dequantize"):
        node(model, name).input[1] = "computed"


def activation_per_channel(model: onnx.ModelProto) -> None:
    constant(model, "e_scale", np.full(16, 0.1, np.float32))
    constant(model, "e_zero", np.zeros(16, np.int8))


def weights_per_tensor(model: onnx.ModelProto) -> None:
    constant(model, "down.weight_scale", np.array(0.1, np.float32))
    constant(model, "down.weight_zero", np.array(0, np.int8))


def weights_on_the_wrong_axis(model: onnx.ModelProto) -> None:
    constant(model, "second.weight_scale", np.full(16, 0.1, np.float32))
    for item in node(model, "second.weight_Dequantize").attribute:
        item.i = 1


def asymmetric_weights(model: onnx.ModelProto) -> None:
    constant(model, "down.weight_zero", np.ones(32, np.int8))


def float_input(model: onnx.ModelProto) -> None:
    node(model, "down").input[0] = "e"


def float_weights(model: onnx.ModelProto) -> None:
    node(model, "down").input[1] = constant(model, "floats", np.ones((32, 16, 3, 3), np.float32))


def quantised_bias(model: onnx.ModelProto) -> None:
    inputs = [
        constant(model, "bias_q", np.ones(32, np.int32)),
        constant(model, "bias_scale", np.ones(32, np.float32)),
        constant(model, "bias_zero", np.zeros(32, np.int32)),
    ]
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", inputs, ["bias_dq"], name="bias_DQ", axis=0))
    node(model, "down").input[2] = "bias_dq"


def lone_quantiser(model: onnx.ModelProto) -> None:
    node(model, "e_Dequantize").input[0] = "e_other"
    grid = ["e_scale", "e_zero"]
    at = list(model.graph.node).index(node(model, "e_Dequantize"))
    model.graph.node.insert(at, helper.make_node("QuantizeLinear", ["e", *grid], ["e_other"], name="other"))


def bytes_moved_between_a_pair(model: onnx.ModelProto) -> None:
    at = list(model.graph.node).index(node(model, "e_Dequantize"))
    model.graph.node.insert(at, helper.make_node("Identity", ["e_q"], ["e_moved"], name="moved"))
    node(model, "e_Dequantize").input[0] = "e_moved"


def different_scales_in_a_pair(model: onnx.ModelProto) -> None:
    node(model, "e_Dequantize").input[1] = constant(model, "other_scale", np.array(0.3, np.float32))


def pair_before_the_relu(model: onnx.ModelProto) -> None:
    relu = next(n for n in model.graph.node if n.op_type == "Relu" and n.input[0] == "f")
    relu.name = "relu"
    pair(model, "f", ("relu", 0))


def both_branches(model: onnx.ModelProto) -> None:
    pair(model, "c", ("add", 0))


def neither_branch(model: onnx.ModelProto) -> None:
    node(model, "add").input[1] = "b"


def joins_of_different_scales(model: onnx.ModelProto) -> None:
    pair(model, "h", ("concat", 1), scale=0.7)


def half_quantised_join(model: onnx.ModelProto) -> None:
    node(model, "concat").input[1] = "h"


def old_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 12


def half_scales(model: onnx.ModelProto) -> None:
    constant(model, "e_scale", np.array(0.1, np.float16))


SEEDED: list[tuple[Callable[[onnx.ModelProto], None], str, str]] = [
    (zero_point, "symmetric", "e_Quantize"),
    (unsigned, "int8", "e_Quantize"),
    (zero_scale, "valid scale", "e_Quantize"),
    (computed_scale, "constant scale", "e_Quantize"),
    (activation_per_channel, "per-tensor activations", "e_Quantize"),
    (weights_per_tensor, "per-channel weights", "down"),
    (weights_on_the_wrong_axis, "per-channel weights", "second"),
    (asymmetric_weights, "symmetric", "down.weight_Dequantize"),
    (float_input, "both inputs", "down"),
    (float_weights, "both inputs", "down"),
    (quantised_bias, "float bias", "bias_DQ"),
    (lone_quantiser, "pairs", "e_Quantize"),
    (bytes_moved_between_a_pair, "pairs", "e_Quantize"),
    (different_scales_in_a_pair, "pairs", "e_Dequantize"),
    (pair_before_the_relu, "fusion", "seeded_f_Q"),
    (both_branches, "residual", "add"),
    (neither_branch, "residual", "add"),
    (joins_of_different_scales, "concatenation", "concat"),
    (half_quantised_join, "concatenation", "concat"),
    (old_opset, "opset", ""),
    (half_scales, "opset", ""),
]


# Halving raises the opset, and drops what nobody reads.
IN_HALVES = [seed for seed in SEEDED if seed[1] != "opset" and seed[0] is not lone_quantiser]


def test_what_is_halved_around_int8_is_clean_and_of_a_new_enough_opset(
    network: onnx.ModelProto,
    perceptron: onnx.ModelProto,
    feeds: list[dict[str, np.ndarray]],
    vectors: list[dict[str, np.ndarray]],
) -> None:
    for model, inputs in ((network, feeds), (perceptron, vectors)):
        halved = halve(good(model, inputs))
        assert verify_qdq(halved) == []
        halved.opset_import[0].version = 18
        assert [problem.text for problem in verify_qdq(halved)] == [
            "the model is of opset 18; 19 is needed because its scales are FP16"
        ]


@pytest.mark.parametrize(("spoil", "rule", "where"), IN_HALVES, ids=[seed[0].__name__ for seed in IN_HALVES])
def test_each_violation_is_found_where_fp16_is_around_int8(
    network: onnx.ModelProto,
    feeds: list[dict[str, np.ndarray]],
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[onnx.ModelProto], None],
    rule: str,
    where: str,
) -> None:
    model = copy_of(good(network, feeds))
    spoil(model)
    monkeypatch.setattr(fp16, "_checked", lambda model: model)  # some of them are no valid ONNX any more
    halved = halve(model)
    scales = {node.input[1] for node in halved.graph.node if node.op_type == "QuantizeLinear"}
    kinds = {tensor.data_type for tensor in halved.graph.initializer if tensor.name in scales}
    assert kinds == {TensorProto.FLOAT16}
    assert (rule, where) in {(problem.rule, problem.node) for problem in verify_qdq(halved)}


@pytest.mark.parametrize(("spoil", "rule", "where"), SEEDED, ids=[seed[0].__name__ for seed in SEEDED])
def test_each_violation_is_found_and_named(
    network: onnx.ModelProto,
    feeds: list[dict[str, np.ndarray]],
    spoil: Callable[[onnx.ModelProto], None],
    rule: str,
    where: str,
) -> None:
    model = copy_of(good(network, feeds))
    spoil(model)
    found = verify_qdq(model)
    assert (rule, where) in {(problem.rule, problem.node) for problem in found}
    assert all(problem.text for problem in found)


def test_the_int8_kernel_of_a_pair_is_a_dequantised_constant(
    network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]
) -> None:
    graph = Graph(good(network, feeds))
    assert all(graph.producers[n.input[1]].op_type == "DequantizeLinear" for n in graph.nodes if n.op_type == "Conv")


def test_a_layer_in_float_may_read_int8_on_processors(
    network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]
) -> None:
    """The layer before it is computed in INT8 only if all its readers get that."""
    known = ranges(calibrate(network, feeds))
    targets: tuple[Target, ...] = ("trt", "x86", "arm")
    for target in targets:
        assert verify_qdq(quantize(network, known, target, keep_float=["down", "last"]), target) == []
    model = good(network, feeds)
    node(model, "down").input[1] = constant(model, "floats", np.ones((32, 16, 3, 3), np.float32))
    assert "both inputs" in {problem.rule for problem in verify_qdq(model, "trt")}


def test_the_door_for_other_programs_is_the_same() -> None:
    assert verify.verify_qdq is verify_qdq
