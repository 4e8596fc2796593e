"""2:4 sparsity: of every four consecutive input channels at least two weights are zero, for each output and position.

That is the pattern Sparse Tensor Cores skip. In: a float ONNX model and calibration batches. Out: the model with some
layers pruned; no training. Quantising weights symmetrically, or halving them, keeps zeros and so keeps the pattern.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from calibration.graph import Feed, Graph, Tap, attribute, copy_of, output_axis

_GROUP, _KEEP = 4, 2
_DAMPING = 0.01  # of the mean diagonal, added to it: keeps the inverse finite where inputs are dependent
_BLOCK = 128  # columns whose updates are gathered before the rest of the row is touched


def _grouped(weights: NDArray[Any], axis: int) -> NDArray[Any]:
    """A view [outer, groups, 4, inner] of the weights with the axis cut into groups of four."""
    outer, channels = int(np.prod(weights.shape[:axis])), weights.shape[axis]
    if channels % _GROUP:
        raise ValueError(f"axis {axis} of {weights.shape} is not a multiple of {_GROUP}")
    return weights.reshape(outer, channels // _GROUP, _GROUP, -1)


def mask_2_4(weights: NDArray[Any], axis: int) -> NDArray[np.bool_]:
    """True for the two largest magnitudes of every four along the axis; of equals the first is kept."""
    magnitude = np.abs(_grouped(weights, axis))
    larger = np.zeros(magnitude.shape, np.int8)  # how many of the four come before this one
    for first in range(_GROUP):
        for second in range(first + 1, _GROUP):
            second_wins = magnitude[:, :, second] > magnitude[:, :, first]
            larger[:, :, first] += second_wins
            larger[:, :, second] += ~second_wins
    return (larger < _KEEP).reshape(weights.shape)


def is_2_4(weights: NDArray[Any], axis: int) -> bool:
    """Whether the pattern holds along the axis."""
    if weights.shape[axis] % _GROUP:
        return False
    return bool((np.count_nonzero(_grouped(weights, axis), axis=2) <= _KEEP).all())


def input_axis(node: onnx.NodeProto, weights: NDArray[Any]) -> int | None:
    """The axis that the pattern runs along; None where the layer cannot have it (grouped, odd channel count)."""
    if attribute(node, "group", 1) != 1 or weights.ndim < 2 or (node.op_type == "MatMul" and weights.ndim != 2):
        return None
    axis = 1 - output_axis(node)
    return axis if weights.shape[axis] % _GROUP == 0 else None


def sparse_layers(model: onnx.ModelProto) -> dict[str, bool]:
    """Weight name -> whether it carries the pattern, for every layer that could. Reads float models."""
    graph = Graph(model)
    found = {}
    for node in graph.weighted():
        weights = graph.array(node.input[1])
        axis = input_axis(node, weights)
        if axis is not None:
            found[node.input[1]] = is_2_4(weights, axis)
    return found


def prune(
    model: onnx.ModelProto, feeds: Sequence[Feed], layers: Collection[str], rows: int = 16384, seed: int = 0
) -> onnx.ModelProto:
    """Prune the named nodes to 2:4 so that their outputs on the feeds change least (optimal brain surgeon).

    Layer by layer in graph order, each with the inputs that the already pruned layers before it give; `rows` input
    rows are drawn in all from the feeds. The bias takes up the mean of the error. Raises ValueError for a node that
    is missing or cannot carry the pattern.
    """
    pruned = copy_of(model)
    rng = np.random.default_rng(seed)
    left = set(layers)
    for node in Graph(pruned).weighted():
        if node.name in left:
            left.remove(node.name)
            _prune_node(pruned, node, feeds, rows, rng)
    if left:
        raise ValueError(f"no such convolution or matrix product: {', '.join(sorted(left))}")
    return pruned


def _prune_node(
    model: onnx.ModelProto, node: onnx.NodeProto, feeds: Sequence[Feed], rows: int, rng: np.random.Generator
) -> None:
    graph = Graph(model)
    weights = graph.array(node.input[1])
    axis = input_axis(node, weights)
    if axis is None:
        raise ValueError(f"{node.name} cannot carry the 2:4 pattern")
    tap = Tap(model, [node.input[0]])
    second_moment: NDArray[np.float64] = np.zeros(())
    mean: NDArray[np.float64] = np.zeros(())
    count = 0
    for feed in feeds:
        inputs = tap(feed)[node.input[0]]
        drawn = _input_rows(node, weights, inputs, rows // len(feeds), rng).astype(np.float64)
        second_moment = second_moment + drawn.T @ drawn
        mean = mean + drawn.sum(axis=0)
        count += len(drawn)
    matrix = _as_matrix(node, weights)
    result = prune_matrix(matrix, second_moment / count)
    if len(node.input) > 2 and node.input[2] in graph.constants:
        bias = graph.array(node.input[2]) + (matrix - result) @ (mean / count)
        _replace(graph, node.input[2], bias)
    _replace(graph, node.input[1], _from_matrix(node, result, weights.shape))


def prune_matrix(weights: NDArray[Any], second_moment: NDArray[np.float64]) -> NDArray[np.float64]:
    """Prune [outputs, inputs] to 2:4 along its rows, given E[x x^T] of the inputs.

    Columns are settled from left to right; the error of each is made up for by those to its right.
    """
    result = weights.astype(np.float64)
    hessian = second_moment.copy()
    diagonal = np.diagonal(hessian)
    dead = diagonal == 0  # an input that is always zero: its weights do not matter
    result[:, dead] = 0
    hessian[dead, dead] = 1
    hessian += np.eye(len(hessian)) * _DAMPING * np.diagonal(hessian).mean()
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).T
    for start in range(0, len(hessian), _BLOCK):
        stop = min(start + _BLOCK, len(hessian))
        errors = np.zeros((len(result), stop - start))
        for group in range(start, stop, _GROUP):
            columns = slice(group, group + _GROUP)
            keep = mask_2_4(result[:, columns] / np.diagonal(upper)[columns], axis=1)
            for offset in range(_GROUP):
                column = group + offset
                error = np.where(keep[:, offset], 0, result[:, column]) / upper[column, column]
                result[:, column] = np.where(keep[:, offset], result[:, column], 0)
                result[:, column + 1 : stop] -= np.outer(error, upper[column, column + 1 : stop])
                errors[:, column - start] = error
        result[:, stop:] -= errors @ upper[start:stop, stop:]
    return result


def _as_matrix(node: onnx.NodeProto, weights: NDArray[Any]) -> NDArray[Any]:
    """Weights as [outputs, inputs], input channels last, so that four neighbours are one group."""
    if node.op_type == "Conv":
        return np.moveaxis(weights, 1, -1).reshape(weights.shape[0], -1)
    return weights if output_axis(node) == 0 else weights.T


def _from_matrix(node: onnx.NodeProto, matrix: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if node.op_type == "Conv":
        return np.moveaxis(matrix.reshape(shape[0], *shape[2:], shape[1]), -1, 1)
    return matrix if output_axis(node) == 0 else matrix.T


def _input_rows(
    node: onnx.NodeProto, weights: NDArray[Any], inputs: NDArray[Any], count: int, rng: np.random.Generator
) -> NDArray[Any]:
    """`count` rows [count, inputs] that the layer multiplies its weights with, in the order of `_as_matrix`."""
    if node.op_type != "Conv":
        flat = inputs.reshape(-1, inputs.shape[-1])
        return flat[rng.integers(0, len(flat), min(count, len(flat)))]
    height, width = weights.shape[2:]
    top, left, bottom, right = attribute(node, "pads", [0, 0, 0, 0])
    stride_y, stride_x = attribute(node, "strides", [1, 1])
    step_y, step_x = attribute(node, "dilations", [1, 1])
    padded = np.pad(inputs, ((0, 0), (0, 0), (top, bottom), (left, right)))
    rows = (padded.shape[2] - step_y * (height - 1) - 1) // stride_y + 1
    columns = (padded.shape[3] - step_x * (width - 1) - 1) // stride_x + 1
    image = rng.integers(0, len(padded), count)
    y, x = rng.integers(0, rows, count) * stride_y, rng.integers(0, columns, count) * stride_x
    taps = [padded[image, :, y + i * step_y, x + j * step_x] for i in range(height) for j in range(width)]
    return np.concatenate(taps, axis=1)


def _replace(graph: Graph, name: str, value: NDArray[Any]) -> None:
    graph.constants[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
