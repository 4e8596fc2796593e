"""The inputs of a model: which of them is the picture, in what layout, and constants for the others.

In: a model from any exporter. Out: one input, float [N, 3, height, width], whatever the model took: [N, height, width,
3], bytes, and inputs beside the picture, which become constants. UsageError names what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edged.errors import UsageError
from edged_calibration.graph.index import attribute

RESERVED: Final = ("image", "center", "channel_order")
"""Names, and beginnings of names with `_`, that edged gives to tensors and nodes in front of a model."""

SMALLEST: Final = 8
LARGEST: Final = 8192
"""Pixels of an input's side, as a manifest allows them."""

Layout = Literal["NCHW", "NHWC"]

_TYPES: Final[dict[int, str]] = {
    TensorProto.FLOAT: "float32", TensorProto.UINT8: "uint8", TensorProto.DOUBLE: "float64",
    TensorProto.FLOAT16: "float16", TensorProto.INT8: "int8", TensorProto.INT32: "int32", TensorProto.INT64: "int64",
}  # fmt: skip
_CURE_HALF: Final = (
    "export it in FP32: half=False with Ultralytics, model.float() before torch.onnx.export; edged-calibrate makes FP16"
)


@dataclass(frozen=True)
class Entry:
    """The picture's input as the file has it; a side of None is open."""

    name: str
    layout: Layout
    dtype: str
    width: int | None
    height: int | None
    batch: int | None

    @property
    def pixels(self) -> bool:
        """Whether it takes the bytes of the picture, so that normalisation is inside the graph."""
        return self.dtype == "uint8"


def find_entry(model: onnx.ModelProto, name: str, wanted: str = "", layout: Layout | None = None) -> Entry:
    """The input that is the picture: the one named `wanted`, or the one of four sides, three of them colours."""
    values = _inputs(model)
    candidates = [value for value in values if value.name == wanted] if wanted else [v for v in values if _layout(v)]
    if len(candidates) != 1:
        listed = ", ".join(f"{value.name} {_sides(value)}" for value in values) or "none"
        raise UsageError(
            f"{name} has the inputs {listed}; which is the picture, N x 3 x height x width or N x height x width x 3?",
            "give its name in the recipe: [input] name",
        )
    (value,) = candidates
    kind = value.type.tensor_type
    dtype = _TYPES.get(kind.elem_type, TensorProto.DataType.Name(kind.elem_type).lower())
    if dtype == "float16":
        raise UsageError(f"{name} is an FP16 model: its input {value.name} is float16, expected float32", _CURE_HALF)
    if dtype not in ("float32", "float64", "uint8"):
        raise UsageError(
            f"{name}: its input {value.name} is {dtype}, expected float32 or uint8",
            "give the float model, not one made from it",
        )
    found = layout or _layout(value)
    if found is None:
        raise UsageError(
            f"{name}: its input {value.name} is {_sides(value)}, expected N x 3 x height x width or "
            "N x height x width x 3",
            "export it in one of these layouts, or say [input] layout where the channels are open",
        )
    sides = [side.dim_value if side.dim_value > 0 else None for side in kind.shape.dim]  # some exporters write -1
    height, width = sides[2:] if found == "NCHW" else sides[1:3]
    return Entry(value.name, found, dtype, width, height, sides[0])


def check_float(model: onnx.ModelProto, name: str) -> None:
    """UsageError if the weights are FP16: accuracy would be measured against what FP16 already lost."""
    sizes = {TensorProto.FLOAT: 0, TensorProto.FLOAT16: 0}
    for tensor in model.graph.initializer:
        if tensor.data_type in sizes:
            sizes[tensor.data_type] += int(np.prod(tensor.dims))
    if sizes[TensorProto.FLOAT16] > sizes[TensorProto.FLOAT]:
        raise UsageError(f"{name} is an FP16 model: most of its weights are float16, expected float32", _CURE_HALF)


def fixed_size(entry: Entry, name: str, width: int | None, height: int | None) -> tuple[int, int]:
    """(width, height), from the recipe or else from the file."""
    found = []
    for own, wanted, key in ((entry.width, width, "width"), (entry.height, height, "height")):
        if not own and wanted is None:
            raise UsageError(
                f"{name}: the {key} of its input is open",
                "give input.width and input.height in the recipe (--size on the command line)",
            )
        side = wanted or own or 0
        if not SMALLEST <= side <= LARGEST:
            raise UsageError(
                f"{name}: the {key} of its input is {side}, expected {SMALLEST} to {LARGEST}",
                "give a size that a camera has: input.width and input.height (--size on the command line)",
            )
        found.append(side)
    return found[0], found[1]


def with_constants(
    model: onnx.ModelProto, name: str, entry: Entry, size: tuple[int, int], given: Mapping[str, Sequence[float]]
) -> None:
    """Turn every input but the picture into a constant: a given one, or what its name is known to mean."""
    width, height = size
    known = {"im_shape": (height, width), "scale_factor": (1, 1), "orig_target_sizes": (width, height)}
    for value in [value for value in _inputs(model) if value.name != entry.name]:
        values = given.get(value.name, known.get(value.name))
        sides = [max(side.dim_value, 1) for side in value.type.tensor_type.shape.dim]
        if values is None or len(values) not in (1, int(np.prod(sides))):
            raise UsageError(
                f"{name} has the input {value.name} {_sides(value)} beside the picture",
                f"give its value in the recipe: [input.constants] {value.name} = [...], {int(np.prod(sides))} numbers",
            )
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        array = np.broadcast_to(np.array(values, dtype).reshape(sides if len(values) > 1 else [1] * len(sides)), sides)
        model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), value.name))
        model.graph.input.remove(value)
    unknown = set(given) - {value.name for value in model.graph.initializer}
    if unknown:
        raise UsageError(f"{name} has no input {sorted(unknown)[0]!r}", "correct [input.constants]")


def to_planes(model: onnx.ModelProto, entry: Entry, size: tuple[int, int], batch: int | None) -> None:
    """Make the picture's input float [batch, 3, height, width] (N for None), in place."""
    width, height = size
    value = next(value for value in model.graph.input if value.name == entry.name)
    source, nodes = entry.name, []
    target = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "uint8": TensorProto.UINT8}[entry.dtype]
    if entry.layout == "NHWC":
        nodes.append(
            helper.make_node(
                "Transpose", [source], [f"{entry.name}_nhwc"], perm=[0, 2, 3, 1], name=f"{entry.name}_nhwc_Transpose"
            )
        )
        source = nodes[-1].output[0]
    if target != TensorProto.FLOAT:
        nodes.append(
            helper.make_node("Cast", [source], [f"{entry.name}_typed"], to=target, name=f"{entry.name}_typed_Cast")
        )
        source = nodes[-1].output[0]
    if nodes:
        _read_instead(model, entry.name, source)
        _bypass_inverse(model, nodes)
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
        del model.graph.node[:]
        model.graph.node.extend([*nodes, *copies])
    shape: list[int | str] = [batch or "N", 3, height, width]
    value.CopyFrom(helper.make_tensor_value_info(entry.name, TensorProto.FLOAT, shape))


def without_reserved_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with other names for tensors and nodes that are called as edged calls its own. Outputs keep theirs."""
    outputs = {value.name for value in model.graph.output}
    taken = [tensor for node in model.graph.node for tensor in (*node.input, *node.output)]
    names = {name: f"model_{name}" for name in taken if _reserved(name) and name not in outputs}
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        if _reserved(node.name):
            node.name = f"model_{node.name}"
    for value in (*model.graph.input, *model.graph.initializer, *model.graph.value_info):
        value.name = names.get(value.name, value.name)
    return model


def _reserved(name: str) -> bool:
    return any(name == word or name.startswith(f"{word}_") for word in RESERVED)


def _read_instead(model: onnx.ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]


def _bypass_inverse(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    """Drop what a reader turns back at once: a transposition to [N, 3, h, w], a cast to float, in either order."""
    while nodes:
        last = nodes[-1]
        readers = [node for node in model.graph.node if last.output[0] in node.input]
        casts = all(n.op_type == "Cast" and attribute(n, "to", 0) == TensorProto.FLOAT for n in readers)
        turns = all(n.op_type == "Transpose" and attribute(n, "perm", []) == [0, 3, 1, 2] for n in readers)
        source = last.output[0]
        if (casts and last.op_type == "Cast") or (turns and last.op_type == "Transpose"):
            source = nodes.pop().input[0]
        elif turns and len(nodes) > 1:
            last.input[0] = nodes.pop(0).input[0]
        elif not casts:
            return
        if not readers:
            return
        for reader in readers:
            _read_instead(model, reader.output[0], source)
            model.graph.node.remove(reader)


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    weights = {tensor.name for tensor in model.graph.initializer}  # old exporters list weights as inputs
    return [value for value in model.graph.input if value.name not in weights]


def _layout(value: onnx.ValueInfoProto) -> Layout | None:
    sides = [side.dim_value for side in value.type.tensor_type.shape.dim]
    if len(sides) != 4:
        return None
    if sides[1] == 3:
        return "NCHW"
    return "NHWC" if sides[3] == 3 else None


def _sides(value: onnx.ValueInfoProto) -> str:
    sides = value.type.tensor_type.shape.dim
    return " x ".join(side.dim_param or str(side.dim_value or "?") for side in sides) or "of unknown shape"
