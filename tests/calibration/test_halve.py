"""FP16 files: half the size, the same answers, the same outside."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from calibration.calibrators import ranges
from calibration.graph import Graph, copy_of, session
from calibration.halve import halve
from calibration.quantize import calibrate, quantize
from calibration.sparsify import prune, sparse_layers


def largest_error(model: onnx.ModelProto, other: onnx.ModelProto, feeds: list) -> float:
    """Relative to the largest output."""
    wanted, found = (np.concatenate([session(m).run(None, f)[0] for f in feeds]) for m in (model, other))
    assert found.dtype == wanted.dtype == np.float32
    return float(np.abs(wanted - found).max() / np.abs(wanted).max())


def test_answers_and_ends_stay_the_same(network: onnx.ModelProto, feeds: list):
    result = halve(network)
    assert largest_error(network, result, feeds) < 4e-3
    assert result.graph.input == network.graph.input and result.graph.output == network.graph.output
    assert len(result.SerializeToString()) < 0.65 * len(network.SerializeToString())


def test_arithmetic_is_half_but_for_the_scales_of_a_resize(network: onnx.ModelProto):
    halved = halve(network)
    kinds = {tensor.name: tensor.data_type for tensor in halved.graph.initializer}
    assert kinds.pop("scales") == TensorProto.FLOAT
    assert set(kinds.values()) == {TensorProto.FLOAT16}
    inferred = onnx.shape_inference.infer_shapes(halved, strict_mode=True).graph.value_info
    assert {value.type.tensor_type.elem_type for value in inferred} == {TensorProto.FLOAT16}


@pytest.mark.parametrize("keep", [("first",), ("down", "last"), ("add", "second"), ("concat",)])
def test_named_nodes_stay_float(network: onnx.ModelProto, feeds: list, keep: tuple[str, ...]):
    result = halve(network, keep_float=keep)
    constants = {tensor.name for tensor in result.graph.initializer}
    weighted = {node.name for node in Graph(network).weighted()}
    assert {f"{name}.weight" for name in keep if name in weighted} <= constants
    assert largest_error(network, result, feeds) < 4e-3


def test_zeros_of_a_sparse_model_survive(network: onnx.ModelProto, feeds: list):
    halved = halve(prune(network, feeds, ("down",), rows=1024))
    assert [name for name, sparse in sparse_layers(halved).items() if sparse] == ["down.weight_half"]


def test_what_half_precision_cannot_hold_is_refused_by_name(network: onnx.ModelProto):
    model = copy_of(network)
    huge = onnx.numpy_helper.from_array(np.full(32, 1e6, np.float32), "down.bias")
    Graph(model).constants["down.bias"].CopyFrom(huge)
    with pytest.raises(ValueError, match=r"down\.bias"):
        halve(model)


def test_quantised_models_are_refused(network: onnx.ModelProto, feeds: list):
    with pytest.raises(ValueError, match="float model"):
        halve(quantize(network, ranges(calibrate(network, feeds)), "trt"))
