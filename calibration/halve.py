"""FP16: a float ONNX model with half-precision weights and, in the strongly typed form, half-precision arithmetic.

Inputs and outputs of the graph keep their types. Both forms keep the zeros of a sparse model.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from calibration.graph import Graph, copy_of, drop_unused

_LARGEST = float(np.finfo(np.float16).max)
_FLOAT_POSITIONS = {"Resize": (1, 2, 3), "Upsample": (1,), "Range": (0, 1, 2)}  # inputs that have to stay float


def halve(model: onnx.ModelProto, keep_float: Collection[str] = ()) -> onnx.ModelProto:
    """The model with every float tensor in FP16, but for the nodes named in `keep_float`, between casts.

    Raises ValueError for a constant that FP16 cannot hold, naming it; quantised models are not taken.
    """
    halved = copy_of(model)
    graph = halved.graph
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in graph.node):
        raise ValueError("halve the float model, not the quantised one")
    index = Graph(model)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    kept_outputs = {name for node in graph.node if node.name in keep_float for name in node.output}
    float_inputs = {v.name for v in graph.input if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    float_tensors = (float_inputs | kept_outputs) - set(constants)
    casts: dict[str, onnx.NodeProto] = {}
    halves: dict[str, onnx.TensorProto] = {}
    ordered: list[onnx.NodeProto] = []
    for node in graph.node:
        new: list[onnx.NodeProto] = []
        for position, name in enumerate(node.input):
            if node.name in keep_float:
                if name and name not in constants and name not in float_tensors and index.is_float(name):
                    node.input[position] = _cast(name, TensorProto.FLOAT, casts, new)
            elif name in float_tensors:
                node.input[position] = _cast(name, TensorProto.FLOAT16, casts, new)
            elif name in constants and position not in _FLOAT_POSITIONS.get(node.op_type, ()):
                node.input[position] = _half(constants[name], halves)
        _retype(node, node.name in keep_float)
        ordered += [*new, node]
    outputs = _cast_outputs(graph, ordered, kept_outputs)
    del graph.node[:]
    graph.node.extend([*ordered, *outputs])
    graph.initializer.extend(halves.values())
    drop_unused(halved)
    return _checked(halved)


def _half(tensor: onnx.TensorProto, halves: dict[str, onnx.TensorProto]) -> str:
    """The name of the constant in FP16; of a constant that is not float, its own."""
    if tensor.data_type != TensorProto.FLOAT:
        return str(tensor.name)
    name = f"{tensor.name}_half"
    if name not in halves:
        values = numpy_helper.to_array(tensor)
        if np.abs(values).max(initial=0) > _LARGEST:
            raise ValueError(f"{tensor.name} holds values that FP16 cannot: the largest is {np.abs(values).max():g}")
        halves[name] = numpy_helper.from_array(values.astype(np.float16), name)
    return name


def _cast(name: str, to: int, casts: dict[str, onnx.NodeProto], new: list[onnx.NodeProto]) -> str:
    """The name of the tensor after a cast, which is made once."""
    result = f"{name}_to_{'half' if to == TensorProto.FLOAT16 else 'float'}"
    if result not in casts:
        casts[result] = helper.make_node("Cast", [name], [result], name=f"{result}_Cast", to=to)
        new.append(casts[result])
    return result


def _retype(node: onnx.NodeProto, keep: bool) -> None:
    """Let a node that makes floats make halves."""
    if keep:
        return
    for item in node.attribute:
        if node.op_type == "Cast" and item.name == "to" and item.i == TensorProto.FLOAT:
            item.i = TensorProto.FLOAT16
        if item.name == "value" and item.t.data_type == TensorProto.FLOAT:
            item.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item.t).astype(np.float16), item.t.name))


def _cast_outputs(graph: onnx.GraphProto, nodes: list[onnx.NodeProto], kept: Collection[str]) -> list[onnx.NodeProto]:
    """Casts that give the graph's float outputs their type back."""
    casts = []
    for value in graph.output:
        name = value.name
        if value.type.tensor_type.elem_type != TensorProto.FLOAT or name in kept:
            continue
        for node in nodes:
            for names in (node.input, node.output):
                for position, used in enumerate(names):
                    if used == name:
                        names[position] = f"{name}_half"
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], name=f"{name}_Cast", to=TensorProto.FLOAT))
    return casts


def _checked(model: onnx.ModelProto) -> onnx.ModelProto:
    onnx.checker.check_model(model, full_check=True)
    return model
