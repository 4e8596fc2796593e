"""A float graph in the plain form that the passes work on: constants as initializers, batch norm in the convolution.

In: an ONNX model from any exporter. Out: the same function, with fewer nodes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edged_calibration.graph.index import Graph, attribute, copy_of, drop_unused


def simplified(model: onnx.ModelProto, keep: Collection[str] = ()) -> onnx.ModelProto:
    """The model without Constant and Identity nodes, Dropout, and batch norms that follow a convolution. Nodes named in
    `keep` stay."""
    result = copy_of(model)
    lift_constants(result)
    _bypass(result, keep)
    _fold_batch_norms(result)
    _own_biases(result)
    drop_unused(result)
    return result


def lift_constants(model: onnx.ModelProto) -> None:
    """Constant nodes as initializers, in place; initializers that are listed as inputs are no longer inputs."""
    graph = model.graph
    known = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        value = _constant_value(node) if node.op_type == "Constant" else None
        if value is not None and node.output[0] not in _outputs(model):
            tensor = onnx.TensorProto()
            tensor.CopyFrom(value)
            tensor.name = node.output[0]
        elif node.op_type == "Identity" and node.input[0] in known and node.output[0] not in _outputs(model):
            tensor = onnx.TensorProto()
            tensor.CopyFrom(known[node.input[0]])
            tensor.name = node.output[0]
        else:
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
            continue
        known[tensor.name] = tensor
        graph.initializer.append(tensor)
    del graph.node[:]
    graph.node.extend(kept)
    initializers = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in initializers]  # old exporters list weights as inputs
    del graph.input[:]
    graph.input.extend(inputs)


def _constant_value(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """What a Constant node holds; None for sparse values and strings."""
    for item in node.attribute:
        match item.name:
            case "value":
                found: onnx.TensorProto = item.t
                return found
            case "value_float" | "value_floats":
                return numpy_helper.from_array(np.array(onnx.helper.get_attribute_value(item), np.float32))
            case "value_int" | "value_ints":
                return numpy_helper.from_array(np.array(onnx.helper.get_attribute_value(item), np.int64))
    return None


def _bypass(model: onnx.ModelProto, keep: Collection[str]) -> None:
    """Let readers of an Identity or a Dropout read its input; those that make an output of the graph stay."""
    renamed: dict[str, str] = {}
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = renamed.get(name, name)
        if (
            node.op_type in ("Identity", "Dropout")
            and node.output[0] not in _outputs(model)
            and node.name not in keep
            and not any(node.output[1:])
        ):
            renamed[node.output[0]] = node.input[0]


def _fold_batch_norms(model: onnx.ModelProto) -> None:
    graph = Graph(model)
    for node in graph.nodes:
        convolution = graph.producers.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        if convolution is None or convolution.op_type != "Conv" or not graph.is_weighted(convolution):
            continue
        alone = graph.sole_consumer(convolution.output[0]) is node and len(graph.consumers[convolution.input[1]]) == 1
        if not alone or any(name not in graph.constants for name in node.input[1:5]):
            continue
        scale, bias, mean, variance = (graph.array(name).astype(np.float64) for name in node.input[1:5])
        factor = scale / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
        weights = graph.array(convolution.input[1])
        before: NDArray[Any] = np.zeros(len(mean))
        if len(convolution.input) > 2 and convolution.input[2]:
            before = graph.array(convolution.input[2])
        folded = (weights * factor.reshape(-1, *[1] * (weights.ndim - 1))).astype(np.float32)
        graph.constants[convolution.input[1]].CopyFrom(numpy_helper.from_array(folded, convolution.input[1]))
        name = f"{convolution.name}/folded_bias"
        value = ((before - mean) * factor + bias).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, name))
        del convolution.input[2:]
        convolution.input.append(name)
        convolution.output[0] = node.output[0]
        model.graph.node.remove(node)


def _own_biases(model: onnx.ModelProto) -> None:
    """Give every convolution a bias: pruning lets it take up the mean of its error."""
    graph = Graph(model)
    for node in graph.weighted():
        if node.op_type == "Conv" and len(node.input) == 2:
            weights = graph.array(node.input[1])
            name = f"{node.name}/bias"
            model.graph.initializer.append(numpy_helper.from_array(np.zeros(len(weights), weights.dtype), name))
            node.input.append(name)


def _outputs(model: onnx.ModelProto) -> set[str]:
    return {value.name for value in model.graph.output}
