"""The 2:4 pattern: of every four consecutive input channels at least two weights are zero, at each output and position.

That is what Sparse Tensor Cores skip. Quantising weights symmetrically, or halving them, keeps zeros and so keeps it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edged_calibration.graph.index import WEIGHTED, Graph, attribute, output_axis, stored_weights, weights_name

GROUP, KEEP = 4, 2
LEAST_OUTPUTS = 4  # of a layer that is worth a Tensor Core; fewer has, say, the mean over the bins in a box head


def _grouped(weights: NDArray[Any], axis: int) -> NDArray[Any]:
    """A view [outer, groups, 4, inner] of the weights with the axis cut into groups of four."""
    outer, channels = int(np.prod(weights.shape[:axis])), weights.shape[axis]
    if channels % GROUP:
        raise ValueError(f"axis {axis} of {weights.shape} is not a multiple of {GROUP}")
    return weights.reshape(outer, channels // GROUP, GROUP, -1)


def mask_2_4(weights: NDArray[Any], axis: int) -> NDArray[np.bool_]:
    """True for the two largest magnitudes of every four along the axis; of equals the first is kept."""
    magnitude = np.abs(_grouped(weights, axis))
    larger = np.zeros(magnitude.shape, np.int8)  # how many of the four come before this one
    for first in range(GROUP):
        for second in range(first + 1, GROUP):
            second_wins = magnitude[:, :, second] > magnitude[:, :, first]
            larger[:, :, first] += second_wins
            larger[:, :, second] += ~second_wins
    return (larger < KEEP).reshape(weights.shape)


def is_2_4(weights: NDArray[Any], axis: int) -> bool:
    """Whether the pattern holds along the axis."""
    if weights.shape[axis] % GROUP:
        return False
    return bool((np.count_nonzero(_grouped(weights, axis), axis=2) <= KEEP).all())


def input_axis(node: onnx.NodeProto, weights: NDArray[Any]) -> int | None:
    """The axis that the pattern runs along; None where the layer cannot have it."""
    return None if forbidden(node, weights) else 1 - output_axis(node)


def forbidden(node: onnx.NodeProto, weights: NDArray[Any]) -> str:
    """Why the layer cannot have the pattern; empty where it can."""
    if node.op_type not in WEIGHTED:
        return "not a convolution or a matrix product"
    groups = int(attribute(node, "group", 1))
    if groups > 1:
        return "depthwise: one input channel per group" if weights.shape[1] == 1 else f"{groups} groups"
    if weights.ndim < 2 or (node.op_type == "MatMul" and weights.ndim != 2):
        return "its weights are no matrix"
    channels = weights.shape[1 - output_axis(node)]
    if channels % GROUP:
        return f"{channels} input channels, no multiple of {GROUP}"
    outputs = weights.shape[output_axis(node)]
    return f"{outputs} output channels, no work for a Tensor Core" if outputs < LEAST_OUTPUTS else ""


def sparse_layers(model: onnx.ModelProto) -> dict[str, bool]:
    """Weight name -> whether it carries the pattern, for every layer that could.

    Of a Q/DQ graph it is the stored INT8 values that are looked at.
    """
    graph = Graph(model)
    found = {}
    for node in graph.nodes:
        weights = stored_weights(graph, node)
        axis = None if weights is None else input_axis(node, weights)
        if weights is not None and axis is not None:
            found[weights_name(graph, node)] = is_2_4(weights, axis)
    return found
