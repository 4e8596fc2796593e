"""The outputs of a model in the form that decoders read: float, of one size, with the batch in front.

In: a model of one picture size. Out: the same tensors under the same names; what a graph with its own NMS leaves open,
how many objects there are, is padded with -1 to `ROWS`, and what has no batch axis gets one.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edged_calibration.graph.index import Graph

ROWS: Final = 300
"""Objects that a graph with its own NMS may give."""

_COUNTING: Final = ("NonMaxSuppression", "NonZero", "Compress", "Unique", "If", "Loop", "Scan", "SequenceAt")


def plain_outputs(model: onnx.ModelProto, found: dict[str, NDArray[Any]], batch: int | None) -> onnx.ModelProto:
    """`found`: the outputs of one picture, by name; `batch`: the only one, None for any. The model is changed in place
    and returned."""
    unknown = _open_axes(model)
    for value in list(model.graph.output):
        array = found[value.name]
        steps: list[tuple[str, list[str], dict[str, Any]]] = []
        if array.dtype != np.float32:
            steps.append(("Cast", [], {"to": TensorProto.FLOAT}))
        open_axis = next((axis for axis in unknown.get(value.name, ()) if axis < 2), None)
        batchless = array.ndim > 0 and (open_axis == 0 or array.shape[0] != 1)
        if batchless:
            steps.append(("Unsqueeze", [_constant(model, f"{value.name}_axes", [0])], {}))
        shape = [1, *array.shape] if batchless else list(array.shape)
        if open_axis is not None:
            axis = 1 if batchless else open_axis
            shape[axis] = ROWS
            padding = np.full(shape, -1, np.float32)
            padded = _constant(model, f"{value.name}_padding", padding)
            limits = [_constant(model, f"{value.name}_{key}", [at]) for key, at in (("first", 0), ("last", ROWS))]
            steps.append(("Concat", [padded], {"axis": axis}))
            steps.append(("Slice", [*limits, _constant(model, f"{value.name}_axis", [axis])], {}))
        if steps:
            _append(model, value.name, steps)
        declared: list[int | str] = [batch or "N", *shape[1:]] if shape else []
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, declared))
    return model


def only_outputs(model: onnx.ModelProto, names: list[str]) -> None:
    """Leave out the outputs that nobody reads, in place."""
    kept = [value for value in model.graph.output if value.name in names]
    copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in kept]
    del model.graph.output[:]
    model.graph.output.extend(copies)


def _append(model: onnx.ModelProto, name: str, steps: list[tuple[str, list[str], dict[str, Any]]]) -> None:
    """Nodes behind the output `name`, which keeps its name."""
    inner = f"{name}_raw"
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [inner if used == name else used for used in names]
    source = inner
    for number, (kind, more, attributes) in enumerate(steps):
        result = name if number == len(steps) - 1 else f"{name}_{number}"
        node = helper.make_node(kind, [source, *more], [result], name=f"{name}_{kind}", **attributes)
        model.graph.node.append(node)
        source = result


def _open_axes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Output -> its axes whose length the picture decides, where the graph counts anything."""
    counting = _counting(model)
    if not counting:
        return {}
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    found = {}
    for value in inferred.output:
        if value.name in counting:
            sides = value.type.tensor_type.shape.dim
            found[value.name] = [axis for axis, side in enumerate(sides) if side.dim_value <= 0]
    return found


def _counting(model: onnx.ModelProto) -> set[str]:
    """Tensors that come from a node whose output has as many entries as it finds."""
    graph = Graph(model)
    found: set[str] = set()
    for node in graph.nodes:
        if node.op_type in _COUNTING or any(name in found for name in node.input):
            found.update(node.output)
    return found


def _constant(model: onnx.ModelProto, name: str, value: Any) -> str:
    array = np.asarray(value)
    model.graph.initializer.append(numpy_helper.from_array(array, name))
    return name
