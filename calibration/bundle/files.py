"""The engine files of one variant, from its float model and its ranges, each proven before anybody sees it.

Proven is: Q/DQ pairs stand where the target fuses them, every layer that was pruned is 2:4 in the stored values, and
what computes in FP16 overflows on none of the calibration frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import onnx

from edged.errors import EdgedError
from edged_calibration.fp16 import HalveReport, halve_checked
from edged_calibration.graph.index import Feed, matching
from edged_calibration.int8.calibrate import Range
from edged_calibration.int8.verify import verify_qdq
from edged_calibration.int8.write import quantize
from edged_calibration.options import HalveOptions
from edged_calibration.recipe.input_normalisation import Normalisation, on_pictures
from edged_calibration.recipe.schema import Target
from edged_calibration.sparsity.apply import sparse_layers

SUFFIX: Final[dict[Target, str]] = {"x86": "x86_64", "arm": "aarch64", "trt": "tensorrt"}


@dataclass(frozen=True)
class FileInputs:
    """What every file of a recipe is made with."""

    halve: HalveOptions
    normalisation: Normalisation
    feeds: Sequence[Feed]


@dataclass(frozen=True)
class File:
    """One file of a bundle, on pictures."""

    name: str
    model: onnx.ModelProto


def float_file(name: str, model: onnx.ModelProto, normalisation: Normalisation) -> File:
    """FP32."""
    return File(f"{name}.onnx", on_pictures(model, normalisation, "cast"))


def half_file(name: str, model: onnx.ModelProto, inputs: FileInputs) -> tuple[File, HalveReport]:
    """FP16, but for what overflows and what the recipe keeps. One file serves every runtime: where a processor has no
    FP16, ONNX Runtime computes it in float, within 1 % of the time that a float file takes."""
    halved, report = halve_checked(model, inputs.feeds, matching(model, inputs.halve.keep_float))
    return File(f"{name}.onnx", on_pictures(halved, inputs.normalisation, "cast")), report


def quantised_files(
    name: str,
    model: onnx.ModelProto,
    tables: Mapping[Target, Mapping[str, Range]],
    keep_float: Sequence[str],
    inputs: FileInputs,
) -> Iterator[File]:
    """INT8, a file for each target from its own ranges. EdgedError if a rule is broken: such a file is never shipped.

    TensorRT's computes in FP16 what it does not in INT8: it is built strongly typed, so float would stay float there.
    """
    wanted = {layer for layer, sparse in sparse_layers(model).items() if sparse}
    for target, table in tables.items():
        quantised = quantize(model, table, target, keep_float)
        if target == "trt":
            quantised, _ = halve_checked(quantised, inputs.feeds, matching(quantised, inputs.halve.keep_float))
        problems = verify_qdq(quantised, target)
        if problems:
            raise EdgedError(
                f"{name} for {target} breaks {len(problems)} Q/DQ rules: {problems[0].node}: {problems[0].text}",
                "keep that node in float: [quantize] keep_float",
            )
        held = {layer.removesuffix("_q") for layer, sparse in sparse_layers(quantised).items() if sparse}
        if wanted - held:
            raise EdgedError(
                f"{name} for {target}: {sorted(wanted - held)[0]} lost its 2:4 pattern in quantisation",
                "leave it dense: [sparsify] dense",
            )
        form = on_pictures(quantised, inputs.normalisation, "cast" if target == "trt" else "dequantize")
        yield File(f"{name}.{SUFFIX[target]}.onnx", form)
