"""Pruning of one layer so that its output changes least: optimal brain surgeon on the second moment of its inputs.

In: a layer's weights as [outputs, inputs] and E[x x^T] of what they are multiplied with. Out: the pruned weights.
Columns are settled from left to right, and the error of each is made up for by those to its right.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edged_calibration.graph.index import attribute, output_axis
from edged_calibration.sparsity.pattern import GROUP, mask_2_4

_DAMPING = 0.01  # of the mean diagonal, added to it: keeps the inverse finite where inputs are dependent
_BLOCK = 128  # columns whose updates are gathered before the rest of the row is touched
_SMALL = 64  # triangular matrices up to this size are inverted as they are


def prune_matrix(weights: NDArray[Any], second_moment: NDArray[Any]) -> NDArray[np.float64]:
    """Prune [outputs, inputs] to 2:4 along its rows, given E[x x^T] of the inputs."""
    result = weights.astype(np.float64)
    hessian = second_moment.astype(np.float64)
    diagonal = np.diagonal(hessian)
    dead = diagonal == 0  # an input that is always zero: its weights do not matter
    result[:, dead] = 0
    hessian[dead, dead] = 1
    np.fill_diagonal(hessian, diagonal + _DAMPING * diagonal.mean())
    upper = _root_of_inverse(hessian)
    scales = np.diagonal(upper)
    for start in range(0, len(hessian), _BLOCK):
        stop = min(start + _BLOCK, len(hessian))
        errors = np.zeros((len(result), stop - start))
        for group in range(start, stop, GROUP):
            columns = slice(group, group + GROUP)
            dropped = ~mask_2_4(result[:, columns] / scales[columns], axis=1)
            four, error = result[:, columns], errors[:, group - start : group - start + GROUP]
            for offset in range(GROUP):
                row = upper[group + offset]
                error[:, offset] = np.where(dropped[:, offset], four[:, offset], 0) / row[group + offset]
                four[:, offset:] -= np.outer(error[:, offset], row[group + offset : group + GROUP])
            four[dropped] = 0
            result[:, group + GROUP : stop] -= error @ upper[columns, group + GROUP : stop]
        result[:, stop:] -= errors @ upper[start:stop, stop:]
    return result


def _root_of_inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The upper triangular U with U^T U the inverse of a positive definite matrix."""
    lower = np.linalg.cholesky(matrix[::-1, ::-1])
    return _upper_inverse(np.ascontiguousarray(lower[::-1, ::-1]))


def _upper_inverse(upper: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of an upper triangular matrix: by halves, so that nearly all work is in products of matrices."""
    size = len(upper)
    if size <= _SMALL:
        return np.triu(np.linalg.inv(upper))
    half = size // 2
    first, last = _upper_inverse(upper[:half, :half]), _upper_inverse(upper[half:, half:])
    result = np.zeros_like(upper)
    result[:half, :half], result[half:, half:] = first, last
    result[:half, half:] = -first @ upper[:half, half:] @ last
    return result


def as_matrix(node: onnx.NodeProto, weights: NDArray[Any]) -> NDArray[Any]:
    """Weights as [outputs, inputs], input channels last, so that four neighbours are one group."""
    if node.op_type == "Conv":
        return np.moveaxis(weights, 1, -1).reshape(weights.shape[0], -1)
    return weights if output_axis(node) == 0 else weights.T


def from_matrix(node: onnx.NodeProto, matrix: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The inverse of `as_matrix`."""
    if node.op_type == "Conv":
        return np.moveaxis(matrix.reshape(shape[0], *shape[2:], shape[1]), -1, 1)
    return matrix if output_axis(node) == 0 else matrix.T


def input_rows(
    node: onnx.NodeProto, shape: tuple[int, ...], inputs: NDArray[Any], count: int, rng: np.random.Generator
) -> NDArray[Any]:
    """`count` rows [count, inputs] that weights of a shape are multiplied with, in the order of `as_matrix`."""
    if node.op_type != "Conv":
        flat = inputs.reshape(-1, inputs.shape[-1])
        return flat[rng.integers(0, len(flat), min(count, len(flat)))]
    height, width = shape[2:]
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
