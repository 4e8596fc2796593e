"""A layer of a pruned model is given weights that bring its output back to that of the dense layer."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from edged_calibration.graph.index import session
from edged_calibration.sparsity.apply import prune
from edged_calibration.sparsity.moments import dense_target, moments_of


def gemm() -> onnx.NodeProto:
    return helper.make_node("Gemm", ["x", "w"], ["y"], name="gemm", transB=1)


def test_equal_inputs_leave_the_weights_as_they_are() -> None:
    rng = np.random.default_rng(0)
    x, weights = rng.standard_normal((512, 8)).astype(np.float32), rng.standard_normal((4, 8)).astype(np.float32)
    found = moments_of(gemm(), weights.shape, [x], [x], 4096, rng)
    assert np.allclose(found.second, x.T @ x / len(x), atol=0.2) and not found.cross.any()
    assert np.allclose(dense_target(weights, found.second, found.cross), weights)


def test_a_linear_error_of_the_inputs_is_made_up_for() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((8192, 8)).astype(np.float32)
    spoilt = (x @ (np.eye(8) + 0.2 * rng.standard_normal((8, 8))) + 0.3).astype(np.float32)
    weights = rng.standard_normal((4, 8)).astype(np.float32)
    found = moments_of(gemm(), weights.shape, [x[:4096], x[4096:]], [spoilt[:4096], spoilt[4096:]], 8192, rng)
    target = dense_target(weights, found.centred, found.centred_cross)
    bias = weights @ found.dense_mean - target @ found.mean

    def error(found: np.ndarray) -> float:
        return float(np.square(found - x @ weights.T).mean())

    assert error(spoilt @ target.T + bias) < 0.02 * error(spoilt @ weights.T)


def test_pruning_several_layers_hurts_the_answers_less_than_layer_by_layer(
    network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]
) -> None:
    """Against pruning each layer for its own inputs, whatever the layers before it have become."""
    layers = ("first", "second", "down", "last")
    one_by_one = network
    for name in layers:  # each on the dense model's inputs of a model that is pruned so far
        one_by_one = prune(one_by_one, feeds, (name,), rows=2048)
    together = prune(network, feeds, layers, rows=2048)
    wanted = session(network).run(None, feeds[0])[0]

    def error(model: onnx.ModelProto) -> float:
        return float(np.square(session(model).run(None, feeds[0])[0] - wanted).mean())

    assert error(together) < 0.95 * error(one_by_one)
