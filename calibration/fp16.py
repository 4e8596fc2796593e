"""FP16: a float ONNX model, or its Q/DQ form, with half-precision weights and arithmetic, strongly typed.

Inputs and outputs of the graph keep their types, and the zeros of a sparse model stay. A Q/DQ graph keeps its INT8
weights; what is float around them becomes FP16, so that a strongly typed TensorRT runs nothing in FP32.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import onnx
from msgspec import Struct
from onnx import TensorProto, helper, numpy_helper, version_converter

from edged.errors import EdgedError
from edged_calibration.graph.index import Feed, Graph, copy_of, drop_unused, session
from edged_calibration.int8.activation_max import largest_magnitudes
from edged_calibration.progress import Advance, silent

_LARGEST = float(np.finfo(np.float16).max)
_HEADROOM = 2.0  # a tensor that comes within this factor of the largest FP16 stays float: other frames may go beyond
_FLOAT_POSITIONS = {"Resize": (1, 2, 3), "Upsample": (1,)}  # inputs that have to stay float
_FLOAT_ONLY = ("Range", "NonMaxSuppression")  # ONNX has no FP16 form of them
_PAIR = ("QuantizeLinear", "DequantizeLinear")
_HALF_SCALES_OPSET = 19


class KeptFloat(Struct, frozen=True):
    """A node that computes in FP32, and the largest magnitude that it reads or writes, if that is why."""

    node: str
    reason: str
    largest: float | None = None


class HalveReport(Struct, frozen=True):
    """What stays float, and the signal over noise of each output of the graph against the float model's."""

    kept: list[KeptFloat]
    sqnr_db: dict[str, float]


def halve_checked(
    model: onnx.ModelProto, feeds: Sequence[Feed], keep_float: Collection[str] = (), progress: Advance = silent
) -> tuple[onnx.ModelProto, HalveReport]:
    """Halve the float model, but for nodes that would overflow on the feeds or in their weights; then run both.

    EdgedError if the outputs are not finite although nothing seemed to overflow.
    """
    named = copy_of(model)
    kept = {name: KeptFloat(name, "the recipe says so") for name in keep_float}
    largest = largest_magnitudes(named, feeds, lambda done, total: progress(done, 2 * total))
    for node in named.graph.node:
        worst = max((largest.get(name, 0.0) for name in (*node.input, *node.output)), default=0.0)
        if worst * _HEADROOM > _LARGEST and node.name not in kept:
            kept[node.name] = KeptFloat(node.name, f"values up to {worst:.3g}", worst)
    halved = halve(named, kept)
    found = _signal_over_noise(named, halved, feeds, progress)
    return halved, HalveReport(list(kept.values()), found)


def _signal_over_noise(
    model: onnx.ModelProto, halved: onnx.ModelProto, feeds: Sequence[Feed], progress: Advance
) -> dict[str, float]:
    names = [value.name for value in model.graph.output]
    signal, noise = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    first, second = session(model), session(halved)
    for done, feed in enumerate(feeds, start=1):
        for name, wanted, given in zip(names, first.run(names, feed), second.run(names, feed), strict=True):
            if not np.isfinite(given).all():
                hint = "name the nodes before it under [halve] keep_float"
                raise EdgedError(f"in FP16 the output {name!r} is not finite on the calibration frames", hint)
            signal[name] += float(np.square(wanted, dtype=np.float64).sum())
            noise[name] += float(np.square(np.subtract(wanted, given, dtype=np.float64)).sum())
        progress(len(feeds) + done, 2 * len(feeds))
    return {n: round(float(10 * np.log10(max(signal[n], 1e-30) / max(noise[n], 1e-30))), 2) for n in names}


def halve(model: onnx.ModelProto, keep_float: Collection[str] = ()) -> onnx.ModelProto:
    """The model with every float tensor in FP16, but for the nodes named in `keep_float`, between casts.

    Raises ValueError for a constant that FP16 cannot hold, naming it, and for scales of Q/DQ that it cannot.
    """
    halved = copy_of(model)
    if any(node.op_type in _PAIR for node in halved.graph.node):
        _raise_opset(halved)
    graph = halved.graph
    index = Graph(halved)
    floats = {name for node in graph.node for name in (*node.input, *node.output) if name and index.is_float(name)}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    keep_float = {*keep_float, *(node.name for node in graph.node if node.op_type in _FLOAT_ONLY)}
    kept_outputs = {name for node in graph.node if node.name in keep_float for name in node.output if name in floats}
    float_inputs = {v.name for v in graph.input if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    float_tensors = (float_inputs | kept_outputs) - set(constants)
    casts: dict[str, onnx.NodeProto] = {}
    halves: dict[str, onnx.TensorProto] = {}
    ordered: list[onnx.NodeProto] = []
    for node in graph.node:
        new: list[onnx.NodeProto] = []
        for position, name in enumerate(node.input):
            if node.name in keep_float:
                if name and name not in constants and name not in float_tensors and name in floats:
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


def _raise_opset(model: onnx.ModelProto) -> None:
    """Bring the model to the opset in which scales may be FP16."""
    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if version < _HALF_SCALES_OPSET:
        model.CopyFrom(version_converter.convert_version(model, _HALF_SCALES_OPSET))


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
