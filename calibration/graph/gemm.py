"""Each weighted layer of a graph as the matrix product that the hardware runs: [m, k] by [k, n], once per group.

In: a float or a Q/DQ model with fixed picture size. Out: shapes, multiply-accumulates and parameters for one frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import onnx

from edged.errors import UsageError
from edged_calibration.graph.index import Graph, attribute, output_axis, stored_weights


@dataclass(frozen=True)
class Gemm:
    """One layer. `inputs` and `outputs` are channels, `kernel` is () for what is no convolution.

    A convolution's m is the pixels it writes, its k the input channels of a group times the pixels of its kernel.
    `input_size` and `output_size` count the elements of its activations.
    """

    node: str
    op: str
    m: int
    n: int
    k: int
    groups: int
    inputs: int
    outputs: int
    kernel: tuple[int, ...]
    input_size: int
    output_size: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one frame."""
        return self.m * self.n * self.k * self.groups

    @property
    def parameters(self) -> int:
        """Weights, without the bias."""
        return self.n * self.k * self.groups

    @property
    def depthwise(self) -> bool:
        """One input channel per group: there is no product of matrices in it, and Tensor Cores do not help."""
        return self.groups > 1 and self.groups == self.inputs


def gemms(model: onnx.ModelProto) -> list[Gemm]:
    """Every layer that multiplies by constant weights, in graph order. UsageError where a shape stays unknown."""
    sizes = shapes(model)
    graph = Graph(model)
    found = []
    for node in graph.nodes:
        weights = stored_weights(graph, node)
        if weights is not None:
            found.append(_gemm(node, weights.shape, sizes[node.input[0]], sizes[node.output[0]]))
    return found


def shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor for one frame: an unnamed or named first dimension of the inputs is taken as 1."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        dims = value.type.tensor_type.shape.dim
        if len(dims) and not dims[0].dim_value:
            dims[0].dim_value = 1
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    del fixed.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    known = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    unknown: set[str] = set()
    for value in [*inferred.value_info, *inferred.input, *inferred.output]:
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            known[value.name] = tuple(dim.dim_value for dim in dims)
        else:
            unknown.add(value.name)
    for node in fixed.graph.node:
        for name in (*node.input[:1], *node.output[:1]):
            if name and name not in known and node.op_type in ("Conv", "Gemm", "MatMul"):
                hint = "give the model a fixed picture size, and shapes that do not depend on values"
                raise UsageError(f"the shape of {name!r}, at {node.op_type} {node.name!r}, is unknown", hint)
    return known


def _gemm(node: onnx.NodeProto, weights: tuple[int, ...], source: tuple[int, ...], result: tuple[int, ...]) -> Gemm:
    sizes = {"input_size": prod(source), "output_size": prod(result)}
    if node.op_type == "Conv":
        groups = int(attribute(node, "group", 1))
        n, k = weights[0] // groups, prod(weights[1:])
        m = prod(result) // weights[0]
        inputs, outputs = weights[1] * groups, weights[0]
        return Gemm(node.name, "Conv", m, n, k, groups, inputs, outputs, tuple(weights[2:]), **sizes)
    axis = output_axis(node) % len(weights)
    n, k = weights[axis], prod(weights) // weights[axis]
    return Gemm(node.name, node.op_type, prod(result) // n, n, k, 1, k, n, (), **sizes)
