"""A model that a training framework has quantised already: brought into the form that is written here, and checked.

In: an ONNX with Q/DQ of its own. Out: the same function with INT8 weights stored as INT8, zero points spelled out and
an opset that TensorRT parses, and what breaks its rules. What would change the numbers is never changed, only reported.
From its scales the other runtimes' files can be made too: `unquantised` gives the float model and the ranges.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx
from onnx import numpy_helper, version_converter

from edged.errors import UsageError
from edged_calibration.graph.index import Graph, copy_of, drop_unused, quantised_constant
from edged_calibration.int8.calibrate import Range
from edged_calibration.int8.verify import Problem, verify_qdq

_PAIR = ("QuantizeLinear", "DequantizeLinear")
_OPSET = 17
_FOREIGN = ("QLinear", "ConvInteger", "MatMulInteger", "DynamicQuantize")


def is_quantised(model: onnx.ModelProto) -> bool:
    """Whether the model carries INT8 of its own."""
    return any(node.op_type in _PAIR or node.op_type.startswith(_FOREIGN) for node in model.graph.node)


def import_qat(
    model: onnx.ModelProto, target: Literal["trt", "x86", "arm"] = "trt"
) -> tuple[onnx.ModelProto, list[Problem]]:
    """The model in our form, and what the verifier says of it. UsageError if its INT8 is of another kind than Q/DQ."""
    for node in model.graph.node:
        if node.op_type.startswith(_FOREIGN):
            hint = "export it with QuantizeLinear and DequantizeLinear (QDQ format)"
            raise UsageError(f"{node.op_type} {node.name!r} is INT8 in operators, not in Q/DQ pairs", hint)
    result = copy_of(model)
    if next((o.version for o in result.opset_import if o.domain in ("", "ai.onnx")), 0) < 13:
        result = copy_of(version_converter.convert_version(result, _OPSET))
    _spell_out_zero_points(result)
    _unsigned_to_signed(result)
    _store_weights(result)
    drop_unused(result)
    return result, verify_qdq(result, target)


def unquantised(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, Range]]:
    """The float model inside an imported one, weights rounded as they are stored, and the ranges of its scales."""
    result = copy_of(model)
    graph = Graph(result)
    found: dict[str, Range] = {}
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        if node.op_type != "DequantizeLinear":
            continue
        if node.input[0] in graph.constants:
            values = _dequantised(graph, node)
            result.graph.initializer.append(numpy_helper.from_array(values, f"{node.output[0]}_float"))
            renamed[node.output[0]] = f"{node.output[0]}_float"
            continue
        quantiser = graph.producers.get(node.input[0])
        if quantiser is not None and quantiser.op_type == "QuantizeLinear":
            scale, zero = float(graph.array(node.input[1])), graph.array(node.input[2])
            limits = np.iinfo(zero.dtype)
            low, high = ((limit - int(zero)) * scale for limit in (limits.min, limits.max))
            found[quantiser.input[0]] = Range(low, high)
            renamed[node.output[0]] = quantiser.input[0]
    kept = {renamed[name]: name for name in graph.outputs if name in renamed}  # an output keeps its name
    for node in result.graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                if name in kept.values() and names is node.output:
                    names[position] = f"{name}_unused"
                else:
                    source = renamed.get(name, name) if names is node.input else name
                    names[position] = kept.get(source, source)
    drop_unused(result)
    return result, {kept.get(name, name): values for name, values in found.items()}


def _dequantised(graph: Graph, node: onnx.NodeProto) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    values, scale = graph.array(node.input[0]).astype(np.float64), graph.array(node.input[1]).astype(np.float64)
    zero = graph.array(node.input[2]).astype(np.float64)
    if scale.size > 1:
        shape = [1] * values.ndim
        shape[_axis(node)] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return np.asarray((values - zero) * scale, np.float32)


def _axis(node: onnx.NodeProto) -> int:
    return next((int(item.i) for item in node.attribute if item.name == "axis"), 1)


def _spell_out_zero_points(model: onnx.ModelProto) -> None:
    """A missing zero point is uint8 0 by the standard; behind a QuantizeLinear, that of its pair."""
    graph = Graph(model)
    for node in graph.nodes:
        if node.op_type not in _PAIR or (len(node.input) > 2 and node.input[2]):
            continue
        kind: type = np.uint8
        if node.op_type == "DequantizeLinear" and node.input[0] in graph.constants:
            kind = graph.array(node.input[0]).dtype.type
        shape = graph.array(node.input[1]).shape if node.input[1] in graph.constants else ()
        name = f"{node.name}_zero_point"
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(shape, kind), name))
        del node.input[2:]
        node.input.append(name)


def _unsigned_to_signed(model: onnx.ModelProto) -> None:
    """uint8 around 128 is int8 around 0, to the bit: what lies between a Q and its DQs may be either."""
    graph = Graph(model)
    for node in graph.nodes:
        if node.op_type != "QuantizeLinear" or node.input[2] not in graph.constants:
            continue
        zero = graph.array(node.input[2])
        readers = graph.consumers.get(node.output[0], [])
        if zero.dtype != np.uint8 or (zero != 128).any() or any(r.op_type != "DequantizeLinear" for r in readers):
            continue
        name = f"{node.name}_signed_zero"
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(zero.shape, np.int8), name))
        for changed in (node, *readers):
            changed.input[2] = name


def _store_weights(model: onnx.ModelProto) -> None:
    """Weights that a QuantizeLinear makes INT8 at run time are stored as INT8."""
    graph = Graph(model)
    for node in graph.nodes:
        constant = node.op_type == "QuantizeLinear" and all(name in graph.constants for name in node.input)
        if constant:
            name = f"{node.output[0]}_stored"
            model.graph.initializer.append(numpy_helper.from_array(quantised_constant(graph, node), name))
            for reader in graph.consumers.get(node.output[0], []):
                reader.input[0] = name
