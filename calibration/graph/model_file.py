"""A float ONNX model from disk, checked for all that the passes rely on; every fault is one sentence with its remedy.

In: a path, or `zoo://NAME?size=96&seed=0` for a generated model of a public architecture. Out: the model in plain form
(`simplify.py`): one float input [N, 3, height, width] with N free, all weights inside and finite.
"""

from __future__ import annotations

import urllib.parse
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, external_data_helper, numpy_helper

from edged.errors import UsageError
from edged_calibration.graph.index import session
from edged_calibration.graph.simplify import simplified

MIN_OPSET, MAX_OPSET = 13, 20  # per-channel DequantizeLinear; the newest that TensorRT 10 parses
_CONTROL_FLOW = {"If", "Loop", "Scan"}
_EXPORT = "export the model again, for inference, with opset_version=17"


def load_model(source: str | Path, width: int | None = None, height: int | None = None) -> onnx.ModelProto:
    """Read and check a model; `width` and `height` fix the input of one that leaves them open."""
    text = str(source)
    if text.startswith("zoo:/"):
        return from_zoo(text)
    path = Path(source)
    return check_model(read_model(path), str(path), width, height)


def read_model(path: Path) -> onnx.ModelProto:
    """The model as it lies on disk, external weights included, not yet checked."""
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", "give the path of an ONNX file") from error
    except (DecodeError, ValueError) as error:
        raise UsageError(
            f"{path} is not an ONNX model", "give the file that the training framework exported"
        ) from error
    if not model.graph.node or not model.opset_import:
        raise UsageError(f"{path} is not an ONNX model, or an empty one", "give the file that was exported")
    for tensor in model.graph.initializer:
        if external_data_helper.uses_external_data(tensor):
            entries = {entry.key: entry.value for entry in tensor.external_data}
            where = Path(entries.get("location", ""))
            if where.is_absolute() or ".." in where.parts or not (path.parent / where).is_file():
                raise UsageError(
                    f"{path}: the weights {tensor.name} lie in {str(where)!r}, which is not beside it",
                    "copy that file beside the model, or export with the weights inside",
                )
    try:
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: its external weights cannot be read: {error}", "copy the model again") from error
    return model


def check_model(
    model: onnx.ModelProto, name: str, width: int | None = None, height: int | None = None
) -> onnx.ModelProto:
    """The model in plain form, or UsageError beginning with `name`."""
    _check_operators(model, name)
    plain = simplified(model)
    _check_weights(plain, name)
    _fix_input(plain, name, width, height)
    try:
        onnx.checker.check_model(plain, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise UsageError(f"{name} is not a valid ONNX model: {_first_line(error)}", _EXPORT) from error
    _check_runs(plain, name)
    return plain


def from_zoo(uri: str) -> onnx.ModelProto:
    """A generated model of a public architecture, with random weights."""
    from edged_calibration import zoo

    parsed = urllib.parse.urlsplit(uri)
    query = dict(urllib.parse.parse_qsl(parsed.query))
    if parsed.netloc not in zoo.NAMES:
        raise UsageError(f"{uri}: there is no such model", f"there are: {', '.join(zoo.NAMES)}")
    unknown = sorted(query.keys() - {"size", "seed"})
    if unknown or not all(value.isdecimal() for value in query.values()):
        raise UsageError(f"{uri}: only size and seed may be given, as whole numbers", "as in zoo://NAME?size=96&seed=0")
    model = zoo.build(parsed.netloc, size=int(query.get("size", 224)), seed=int(query.get("seed", 0)))
    return check_model(model, uri)


def input_size(model: onnx.ModelProto) -> tuple[int, int]:
    """(width, height) of a checked model's input."""
    sides = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return sides[3], sides[2]


def _check_operators(model: onnx.ModelProto, name: str) -> None:
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx") and not MIN_OPSET <= entry.version <= MAX_OPSET:
            raise UsageError(f"{name} has opset {entry.version}; {MIN_OPSET} to {MAX_OPSET} can be worked on", _EXPORT)
    for node in model.graph.node:
        if node.op_type in _CONTROL_FLOW:
            raise UsageError(f"{name}: {node.op_type} ({node.name or 'unnamed'}) decides at run time what is computed",
                             "export the model without control flow")  # fmt: skip
        if node.domain not in ("", "ai.onnx"):
            raise UsageError(
                f"{name}: the operator {node.op_type} of {node.domain} is not a standard one",
                "export the model without custom operators; leave decoding and NMS to edged",
            )


def _check_weights(model: onnx.ModelProto, name: str) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and not np.isfinite(numpy_helper.to_array(tensor)).all():
            raise UsageError(f"{name}: the weights {tensor.name} hold NaN or infinity", "train or export it again")


def _fix_input(model: onnx.ModelProto, name: str, width: int | None, height: int | None) -> None:
    """Check the one input, fix its sides where they are open, and free its batch."""
    inputs = model.graph.input
    if len(inputs) != 1:
        told = ", ".join(value.name for value in inputs) or "none"
        raise UsageError(f"{name} has the inputs {told}; expected one, the picture", "export it with one input")
    kind = inputs[0].type.tensor_type
    if kind.elem_type != TensorProto.FLOAT:
        told = TensorProto.DataType.Name(kind.elem_type).lower()
        raise UsageError(f"{name}: its input is {told}, expected float", "give the float model, not one made from it")
    sides = kind.shape.dim
    if len(sides) != 4 or sides[1].dim_value != 3:
        told = " x ".join(side.dim_param or str(side.dim_value or "?") for side in sides) or "of unknown shape"
        raise UsageError(f"{name}: its input is {told}, expected N x 3 x height x width", "export it in that layout")
    for side, wanted, key in ((sides[2], height, "height"), (sides[3], width, "width")):
        if side.dim_value and wanted not in (None, side.dim_value):
            raise UsageError(f"{name}: its {key} is {side.dim_value}, not {wanted}", f"leave out input.{key}")
        if not side.dim_value:
            if wanted is None:
                raise UsageError(
                    f"{name}: the {key} of its input is open ({side.dim_param or '?'})",
                    "give input.width and input.height in the recipe (--size on the command line)",
                )
            side.dim_value = wanted
    sides[0].dim_param = "N"
    for output in model.graph.output:
        if output.type.tensor_type.shape.dim:
            output.type.tensor_type.shape.dim[0].dim_param = "N"


def _check_runs(model: onnx.ModelProto, name: str) -> None:
    """Run one and two pictures: what ONNX Runtime cannot do, and batches that are fixed inside."""
    width, height = input_size(model)
    try:
        running = session(model)
    except Exception as error:  # the binding raises a dozen unrelated types
        raise UsageError(f"{name}: ONNX Runtime does not take it: {_first_line(error)}", _EXPORT) from error
    for batch in (1, 2):
        try:
            outputs = running.run(None, {model.graph.input[0].name: np.zeros((batch, 3, height, width), np.float32)})
        except Exception as error:
            what = "a batch of 2 does not go through it" if batch == 2 else "it does not run"
            hint = "export it with a dynamic batch axis" if batch == 2 else _EXPORT
            raise UsageError(f"{name}: {what}: {_first_line(error)}", hint) from error
        if any(len(output) != batch for output in outputs if output.ndim):
            raise UsageError(f"{name}: an output does not follow the batch", "export it with a dynamic batch axis")


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:300] if text else type(error).__name__
