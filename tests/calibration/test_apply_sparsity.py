"""2:4: the mask against brute force, and pruning that costs less than dropping the smallest."""

from __future__ import annotations

import sys
import time
from itertools import combinations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import numpy_helper

from edged.errors import UsageError
from edged_calibration.graph.index import Graph, copy_of, session
from edged_calibration.int8.write import quantize_weights
from edged_calibration.options import SparsifyOptions
from edged_calibration.sparsity.apply import (
    Method,
    found_sparsity,
    input_axis,
    is_2_4,
    mask_2_4,
    prune,
    prune_matrix,
    sparse_layers,
    sparsify,
)
from edged_calibration.sparsity.obs import _root_of_inverse

FLOATS = st.floats(-1e3, 1e3, width=32)


@pytest.mark.parametrize(("shape", "axis"), [((6, 8, 3, 3), 1), ((5, 12), 1), ((12, 5), 0), ((4, 4, 1, 1), 1)])
def test_mask_keeps_the_pair_with_the_largest_sum(shape: tuple[int, ...], axis: int) -> None:
    weights = np.random.default_rng(0).standard_normal(shape)
    kept = np.moveaxis(np.where(mask_2_4(weights, axis), np.abs(weights), 0), axis, -1).reshape(-1, 4)
    groups = np.moveaxis(np.abs(weights), axis, -1).reshape(-1, 4)
    for group, chosen in zip(groups, kept, strict=True):
        assert np.count_nonzero(chosen) == 2
        assert chosen.sum() == max(group[list(pair)].sum() for pair in combinations(range(4), 2))


def test_of_equal_weights_the_first_are_kept() -> None:
    assert mask_2_4(np.array([[1.0, -1.0, 1.0, 1.0], [0, 0, 0, 0], [1, 2, 2, 1]]), 1).tolist() == [
        [True, True, False, False],
        [True, True, False, False],
        [False, True, True, False],
    ]


def test_check_sees_one_weight_too_many() -> None:
    weights = np.random.default_rng(0).standard_normal((8, 16, 3, 3))
    weights *= mask_2_4(weights, 1)
    assert is_2_4(weights, 1)
    weights[3, 4:8, 1, 2] = (1, 1, 1, 0)
    assert not is_2_4(weights, 1)
    assert not is_2_4(np.zeros((4, 6)), 1)
    with pytest.raises(ValueError, match="multiple of 4"):
        mask_2_4(np.zeros((4, 6)), 1)


def test_axis_is_that_of_the_inputs(network: onnx.ModelProto, perceptron: onnx.ModelProto) -> None:
    axes: dict[str, int | None] = {}
    for model in (network, perceptron):
        graph = Graph(model)
        axes |= {node.name: input_axis(node, graph.array(node.input[1])) for node in graph.weighted()}
    assert axes == {"first": 1, "second": 1, "down": 1, "last": 1, "gemm": 1, "matmul": 0}
    grouped = onnx.helper.make_node("Conv", ["x", "w"], ["y"], group=8)
    assert input_axis(grouped, np.zeros((8, 4, 3, 3))) is None


def _error(model: onnx.ModelProto, other: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> float:
    first, second = session(model), session(other)
    return float(np.mean([(first.run(None, f)[0] - second.run(None, f)[0]) ** 2 for f in feeds]))


@pytest.mark.parametrize("layers", [("first", "down"), ("down",), ("last", "second")])
def test_pruned_layers_are_sparse_and_beat_magnitude(
    network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]], layers: tuple[str, ...]
) -> None:
    pruned = prune(network, feeds, layers, rows=4096)
    assert {name for name, sparse in sparse_layers(pruned).items() if sparse} == {f"{name}.weight" for name in layers}
    simple = copy_of(network)
    graph = Graph(simple)
    for name in layers:
        weights = graph.array(f"{name}.weight")
        masked = (weights * mask_2_4(weights, 1)).astype(np.float32)
        graph.constants[f"{name}.weight"].CopyFrom(numpy_helper.from_array(masked, f"{name}.weight"))
    assert _error(network, pruned, feeds) < 0.8 * _error(network, simple, feeds)


def test_matrix_products_are_pruned_along_their_inputs(
    perceptron: onnx.ModelProto, vectors: list[dict[str, np.ndarray]]
) -> None:
    pruned = prune(perceptron, vectors, ("gemm", "matmul"))
    assert sparse_layers(pruned) == {"gemm.weight": True, "matmul.weight": True}
    assert sparse_layers(perceptron) == {"gemm.weight": False, "matmul.weight": False}


def test_pruning_is_deterministic_and_leaves_its_argument(
    network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]
) -> None:
    before = network.SerializeToString()
    first, again = (prune(network, feeds, ("down",), rows=1024, seed=5) for _ in range(2))
    assert first.SerializeToString() == again.SerializeToString()
    assert network.SerializeToString() == before


def test_errors_of_dropped_weights_move_to_dependent_inputs() -> None:
    # Inputs 0 and 1 are the same: whichever goes, the other takes its weight over, at hardly any cost.
    x = np.random.default_rng(0).standard_normal((1000, 4))
    x[:, 1] = x[:, 0]
    x[:, 3] = 0  # and input 3 is never there
    weights = np.array([[1.0, 1.0, 1.0, 5.0]])
    pruned = prune_matrix(weights, x.T @ x / len(x))
    assert np.count_nonzero(pruned) == 2
    assert np.abs(x @ (pruned - weights).T).max() < 0.15


def test_unknown_and_unfit_layers_are_refused(network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> None:
    with pytest.raises(ValueError, match="nonsense"):
        prune(network, feeds, ("nonsense",))


@settings(max_examples=50, deadline=None)
@given(
    arrays(np.float32, st.tuples(st.integers(1, 5), st.sampled_from([4, 8, 12]), st.integers(1, 3)), elements=FLOATS)
)
def test_any_masked_tensor_has_the_pattern_also_as_int8(weights: np.ndarray) -> None:
    masked = weights * mask_2_4(weights, 1)
    assert is_2_4(masked, 1)
    values, _ = quantize_weights(masked, 0, "x86")
    assert is_2_4(values, 1) and not values[masked == 0].any()
    assert is_2_4(masked.astype(np.float16), 1)


@pytest.mark.parametrize("method", ["obs", "wanda", "magnitude"])
def test_the_report_accounts_for_every_layer(
    network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]], method: Method
) -> None:
    options = SparsifyOptions(method=method, layers="all", dense=["sec*"], rows=1024)
    seen: list[tuple[int, int]] = []
    pruned, report = sparsify(network, feeds, options, lambda done, total: seen.append((done, total)))
    states = {layer.node: layer.state for layer in report.layers}
    assert states == {"first": "pruned", "second": "kept dense", "down": "pruned", "last": "pruned"}
    assert sparse_layers(pruned) == {f"{name}.weight": state == "pruned" for name, state in states.items()}
    assert report.pruned == 3 and report.eligible == 4 and 0.5 < report.mac_share < 1
    assert seen == [(1, 3), (2, 3), (3, 3)]
    for layer in report.layers:
        assert (layer.kept is not None) == (layer.state == "pruned")
        assert (layer.error is not None) == (layer.state == "pruned" and method != "magnitude")
        assert layer.error is None or 0 < layer.error < 0.7


def test_a_layer_that_pruning_would_spoil_stays_dense(
    network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]
) -> None:
    _, free = sparsify(network, feeds, SparsifyOptions(layers="all", rows=1024))
    errors = sorted(layer.error for layer in free.layers if layer.error is not None)
    options = SparsifyOptions(layers="all", rows=1024, most_error=(errors[-1] + errors[-2]) / 2)
    pruned, report = sparsify(network, feeds, options)
    spoilt = [layer for layer in report.layers if layer.state == "kept dense"]
    worst = max(free.layers, key=lambda layer: layer.error or 0.0).node
    assert worst in {layer.node for layer in spoilt} and all("change its output" in layer.reason for layer in spoilt)
    assert not sparse_layers(pruned)[f"{spoilt[0].node}.weight"]
    original = Graph(network).array(f"{spoilt[0].node}.weight")
    np.testing.assert_array_equal(Graph(pruned).array(f"{spoilt[0].node}.weight"), original)


def test_a_model_that_came_pruned_is_reported_as_it_is(
    network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]
) -> None:
    report = found_sparsity(prune(network, feeds, ["second", "down"]))
    assert {layer.node: layer.state for layer in report.layers} == {
        "first": "kept dense",
        "second": "pruned",
        "down": "pruned",
        "last": "kept dense",
    }
    assert (report.method, report.pruned, report.eligible) == ("given", 2, 4)
    assert 0 < report.mac_share < 1


def test_small_layers_are_not_worth_it(network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> None:
    pruned, report = sparsify(network, feeds, SparsifyOptions())
    assert {layer.state for layer in report.layers} == {"kept dense"} and "too few" in report.layers[0].reason
    assert not any(sparse_layers(pruned).values())
    with pytest.raises(UsageError, match="nonsense"):
        sparsify(network, feeds, SparsifyOptions(dense=["nonsense"]))


def test_the_root_of_the_inverse_is_one() -> None:
    rows = np.random.default_rng(0).standard_normal((400, 200))
    matrix = rows.T @ rows / 400 + np.eye(200) * 0.1
    upper = _root_of_inverse(matrix)
    assert not np.tril(upper, -1).any()
    np.testing.assert_allclose(upper.T @ upper, np.linalg.inv(matrix), atol=1e-10)


def test_four_million_weights_are_masked_in_a_moment() -> None:
    weights = np.random.default_rng(0).standard_normal((2048, 2048)).astype(np.float32)
    start = time.process_time()
    mask = mask_2_4(weights, 1)
    assert mask.sum() == weights.size // 2
    assert time.process_time() - start < 5  # about 0.1 s on an idle machine


def test_fine_tuning_without_pytorch_says_what_to_install(
    network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "edged_calibration.sparsity.fine_tune", raising=False)
    with pytest.raises(UsageError, match="needs PyTorch") as raised:
        sparsify(network, feeds, SparsifyOptions(layers="all", method="magnitude", fine_tune_steps=5))
    assert "edged[train]" in raised.value.hint
