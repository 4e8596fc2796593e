"""A float ONNX model from disk, as it comes, in the form that the passes work on; every fault is one sentence.

In: a path, or `zoo://NAME?size=96&seed=0` for a generated model of a public architecture. Out: the same function with
one float input [N, 3, height, width] (1 for N where the graph takes single pictures only), shape arithmetic folded, all
weights inside and finite, float outputs with the batch in front.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, external_data_helper, numpy_helper

from edged.errors import UsageError
from edged_calibration.graph.entry import (
    Entry,
    Layout,
    check_float,
    find_entry,
    fixed_size,
    to_planes,
    with_constants,
    without_reserved_names,
)
from edged_calibration.graph.fold import folded
from edged_calibration.graph.index import copy_of, session
from edged_calibration.graph.opset import standard
from edged_calibration.graph.outputs import plain_outputs
from edged_calibration.graph.simplify import lift_constants, simplified

MAX_FILE_BYTES: Final = 2 << 30
"""A protobuf message is no larger; larger models have their weights beside them."""

_EXPORT: Final = "export the model again, for inference, with opset_version=17"
_TOLERANCE: Final = 1e-3  # of the largest value: by how much two pictures in one batch may differ from one by one


@dataclass(frozen=True)
class Wanted:
    """The inputs of a model by the recipe, and the nodes that have to keep their names."""

    width: int | None = None
    height: int | None = None
    name: str = ""
    layout: Layout | None = None
    constants: Mapping[str, Sequence[float]] = field(default_factory=dict)
    keep: Collection[str] = ()


def load_model(source: str | Path, wanted: Wanted | None = None) -> onnx.ModelProto:
    """Read and check a model."""
    text = str(source)
    if text.startswith("zoo:/"):
        return from_zoo(text)
    path = Path(source)
    return check_model(read_model(path), str(path), wanted)


def read_model(path: Path) -> onnx.ModelProto:
    """The model as it lies on disk, external weights included, not yet checked."""
    try:
        if path.is_file() and path.stat().st_size > MAX_FILE_BYTES:
            raise UsageError(
                f"{path} has {path.stat().st_size / 2**30:.1f} GiB; an ONNX file has at most 2", "give the ONNX file"
            )
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
        _check_lengths(model, path)
    except UsageError:
        raise
    except Exception as error:  # the checker has its own types for links and lengths
        raise UsageError(
            f"{path}: its external weights cannot be read: {_first_line(error)}", "copy the model and its weights again"
        ) from error
    return model


def check_model(model: onnx.ModelProto, name: str, wanted: Wanted | None = None) -> onnx.ModelProto:
    """The model in plain form, or UsageError beginning with `name`."""
    wanted = wanted or Wanted()
    check_float(model, name)
    plain = standard(copy_of(model), name)
    _check_control_flow(plain, name, {"Loop", "Scan"})
    lift_constants(plain)
    entry = find_entry(plain, name, wanted.name, wanted.layout)
    size = fixed_size(entry, name, wanted.width, wanted.height)
    with_constants(plain, name, entry, size, wanted.constants)
    to_planes(plain, entry, size, None)
    plain = without_reserved_names(plain)
    del plain.graph.value_info[:]
    _declare_batch(plain, None)
    _check_weights(plain, name)
    batches = _batches(plain, name, entry, size)
    _declare_batch(plain, None if len(batches) > 1 else 1)
    plain = simplified(folded(plain, batches, _named(plain, wanted.keep)), keep=_named(plain, wanted.keep))
    _check_control_flow(plain, name, {"If"})
    plain = plain_outputs(plain, run(plain, batches[0]), None if len(batches) > 1 else 1)
    try:
        onnx.checker.check_model(plain, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise UsageError(f"{name} is not a valid ONNX model: {_first_line(error)}", _EXPORT) from error
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


def fixed_batch(model: onnx.ModelProto) -> int | None:
    """The batch of a checked model, if it takes no other; None if it takes any."""
    return model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or None


def run(model: onnx.ModelProto, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """All outputs of a model for one feed, by name."""
    names = [value.name for value in model.graph.output]
    return dict(zip(names, session(model).run(names, dict(feed)), strict=True))


def output_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The shape of every output of a checked model as it really comes out, without the batch."""
    width, height = input_size(model)
    planes = np.zeros((1, 3, height, width), np.float32)
    return {name: value.shape[1:] for name, value in run(model, {model.graph.input[0].name: planes}).items()}


def _named(model: onnx.ModelProto, patterns: Collection[str]) -> set[str]:
    """Names of the nodes that patterns name; a pattern of none is refused later, where it is used."""
    from fnmatch import fnmatchcase

    return {n.name for n in model.graph.node for p in patterns if n.name == p or fnmatchcase(n.name, p)}


def _check_control_flow(model: onnx.ModelProto, name: str, kinds: set[str]) -> None:
    for node in model.graph.node:
        if node.op_type in kinds:
            raise UsageError(
                f"{name}: {node.op_type} ({node.name or 'unnamed'}) decides at run time what is computed",
                "export the model without control flow, or simplify it with onnxslim",
            )


def _check_weights(model: onnx.ModelProto, name: str) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and not np.isfinite(numpy_helper.to_array(tensor)).all():
            raise UsageError(f"{name}: the weights {tensor.name} hold NaN or infinity", "train or export it again")


def _check_lengths(model: onnx.ModelProto, path: Path) -> None:
    """UsageError for weights that do not fill their shape: the file is cut short, or made to do harm."""
    for tensor in model.graph.initializer:
        try:
            numpy_helper.to_array(tensor)
        except Exception as error:  # the helper raises several unrelated types
            raise UsageError(
                f"{path}: the weights {tensor.name} do not fit their shape {list(tensor.dims)}",
                "copy the model again, or export it again",
            ) from error


def _declare_batch(model: onnx.ModelProto, batch: int | None) -> None:
    """Of the input; what the outputs declare is forgotten: it may be the exporter's example."""
    side = model.graph.input[0].type.tensor_type.shape.dim[0]
    side.Clear()
    if batch:
        side.dim_value = batch
    else:
        side.dim_param = "N"
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")


def _batches(
    model: onnx.ModelProto, name: str, declared: Entry, size: tuple[int, int]
) -> list[dict[str, NDArray[Any]]]:
    """Feeds of one and of two pictures; of one alone where two do not go through it, or come out otherwise."""
    width, height = input_size(model)
    planes = np.random.default_rng(0).uniform(0, 1, (2, 3, height, width)).astype(np.float32)
    entry = model.graph.input[0].name
    try:
        running = session(model)
    except Exception as error:  # the binding raises a dozen unrelated types
        raise UsageError(f"{name}: ONNX Runtime does not take it: {_first_line(error)}", _EXPORT) from error
    try:
        one = running.run(None, {entry: planes[1:]}, _quiet())
    except Exception as error:
        for own, asked, key in zip((declared.width, declared.height), size, ("width", "height"), strict=True):
            if own not in (None, asked):
                raise UsageError(f"{name}: its {key} is {own}, not {asked}", f"leave out input.{key}") from error
        if declared.batch not in (None, 1):
            hint = "export it with batch 1, or a dynamic batch"
            raise UsageError(f"{name}: its batch is fixed to {declared.batch}", hint) from error
        raise UsageError(f"{name}: it does not run: {_first_line(error)}", _EXPORT) from error
    try:
        both = running.run(None, {entry: planes}, _quiet())
    except Exception:  # its batch is fixed inside
        return [{entry: planes[:1]}]
    follows = all(
        pair.shape[:1] == (2,)
        and pair.shape[1:] == single.shape[1:]
        and single.shape[:1] == (1,)
        and np.allclose(pair[1:], single, rtol=0, atol=_TOLERANCE * max(float(np.abs(single).max(initial=0)), 1e-6))
        for single, pair in zip(one, both, strict=True)
    )
    return [{entry: planes[:1]}, {entry: planes}] if follows else [{entry: planes[:1]}]


def _quiet() -> onnxruntime.RunOptions:
    """For runs that may fail: the exception tells why, the log need not."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4
    return options


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:300] if text else type(error).__name__
