"""The steps of a job: each writes one result into a directory, from its inputs alone, so that a cache can keep it.

In: models, pictures, ranges, options. Out: files, read back by `job.py`, which decides what a step is made from. A step
reads nothing that is not an argument: the key under which its result is kept is the digest of just those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import onnx
from msgspec import Struct

from edged_calibration.analyze import analyze
from edged_calibration.bundle.files import File, FileInputs, float_file, half_file, quantised_files
from edged_calibration.cache import write_json
from edged_calibration.evaluate.layer_error import Part, measure_errors
from edged_calibration.evaluate.metrics import Scorer
from edged_calibration.evaluate.sensitivity import Sensitivity, keep_to_pass, sensitivity
from edged_calibration.graph.index import matching
from edged_calibration.int8.calibrate import METHODS, Method, Range, ranges
from edged_calibration.int8.write import Target, calibrate, quantize
from edged_calibration.options import SparsifyOptions
from edged_calibration.progress import Advance
from edged_calibration.recipe.frame_check import check_frames
from edged_calibration.recipe.frames import Feeds, Frames
from edged_calibration.sparsity.apply import found_sparsity, sparsify

Ranges = Mapping[str, Range]

_ERROR_FEEDS = 4
"""Batches that layer errors are measured on: ratios of power over millions of values need no more."""


class Choice(Struct, frozen=True, forbid_unknown_fields=True):
    """Which calibration method, and what each scored where they were compared."""

    method: Method
    scores: dict[str, float]


class Searched(Struct, frozen=True):
    """What INT8 costs in each layer, and the layers to keep in float; None if no set passes."""

    found: Sensitivity
    keep: list[str] | None


def frame_report(into: Path, advance: Advance, calibration: Frames, gate: Frames) -> None:
    """frames.json"""
    write_json(into / "frames.json", check_frames(calibration, gate, advance))


def analysis(into: Path, advance: Advance, model: onnx.ModelProto, known: Ranges) -> None:
    """analysis.json"""
    write_json(into / "analysis.json", analyze(model, known))


def pruned(into: Path, advance: Advance, model: onnx.ModelProto, feeds: Feeds, options: SparsifyOptions) -> None:
    """model.onnx, sparsity.json"""
    result, report = sparsify(model, feeds, options, advance)
    onnx.save(result, into / "model.onnx")
    write_json(into / "sparsity.json", report)


def given_sparse(into: Path, advance: Advance, model: onnx.ModelProto) -> None:
    """model.onnx, sparsity.json of a model that came pruned"""
    onnx.save(model, into / "model.onnx")
    write_json(into / "sparsity.json", found_sparsity(model))


def scored(into: Path, advance: Advance, model: onnx.ModelProto, scorer: Scorer) -> None:
    """score.json: of the float model and of the given one"""
    write_json(into / "score.json", {"whole": scorer.baseline, "found": scorer(model)})


def all_ranges(
    into: Path, advance: Advance, model: onnx.ModelProto, feeds: Feeds, percentile: float, pixels: Range
) -> None:
    """ranges.json: method -> tensor -> range; that of the input is known"""
    histograms = calibrate(model, feeds, advance)
    known = {model.graph.input[0].name: pixels}
    found: dict[str, dict[str, Range]] = {
        method: {**ranges(histograms, method, percentile), **known} for method in METHODS
    }
    write_json(into / "ranges.json", found)


def trained_ranges(
    into: Path, advance: Advance, model: onnx.ModelProto, known: Ranges, feeds: Feeds, pixels: Range
) -> None:
    """ranges.json: those of a model quantised in training, and measured ones where it has none"""
    measured = ranges(calibrate(model, feeds, advance), "max")
    write_json(into / "ranges.json", measured | {model.graph.input[0].name: pixels} | dict(known))


def choice(
    into: Path,
    advance: Advance,
    model: onnx.ModelProto,
    measured: Mapping[Method, Ranges],
    target: Target,
    keep_float: Sequence[str],
    scorer: Scorer,
) -> None:
    """choice.json: the method whose file for the target scores best"""
    scores: dict[str, float] = {}
    keep = matching(model, keep_float)
    for done, method in enumerate(METHODS):
        advance(done, len(METHODS))
        scores[method] = scorer(quantize(model, measured[method], target, keep))
    best = max(METHODS, key=lambda method: scores[method])
    write_json(into / "choice.json", Choice(best, scores))


def int8_files(
    into: Path,
    advance: Advance,
    name: str,
    model: onnx.ModelProto,
    tables: Mapping[Target, Ranges],
    keep_float: Sequence[str],
    inputs: FileInputs,
) -> None:
    """NAME.TARGET.onnx"""
    _save(into, quantised_files(name, model, tables, keep_float, inputs))


def float_files(
    into: Path,
    advance: Advance,
    name: str,
    precision: Literal["fp32", "fp16"],
    model: onnx.ModelProto,
    inputs: FileInputs,
) -> None:
    """NAME.onnx, and halve.json of FP16"""
    if precision == "fp32":
        _save(into, [float_file(name, model, inputs.normalisation)])
        return
    file, report = half_file(name, model, inputs)
    write_json(into / "halve.json", report)
    _save(into, [file])


def _save(into: Path, files: Iterable[File]) -> None:
    for file in files:
        onnx.save(file.model, into / file.name)


def errors(
    into: Path,
    advance: Advance,
    dense: onnx.ModelProto,
    model: onnx.ModelProto,
    table: Ranges,
    keep_float: Sequence[str],
    feeds: Feeds,
    parts: Mapping[str, Part],
) -> None:
    """errors.json: against the dense float model, also of a pruned one"""
    quantised = quantize(model, table, "x86", keep_float)
    write_json(into / "errors.json", measure_errors(dense, quantised, feeds[:_ERROR_FEEDS], advance, parts))


def searched(
    into: Path, advance: Advance, model: onnx.ModelProto, table: Ranges, scorer: Scorer, points: float
) -> None:
    """sensitivity.json; `points` is what the score may lose, as a fraction"""
    found = sensitivity(model, table, scorer, "x86", advance)
    keep = keep_to_pass(model, table, scorer, scorer.baseline - points, found, advance)
    write_json(into / "sensitivity.json", Searched(found, keep))


def evaluation(into: Path, advance: Advance, file: onnx.ModelProto | None, scorer: Scorer) -> None:
    """evaluation.json of one file, which takes pictures; None is the float model itself"""
    write_json(into / "evaluation.json", scorer.evaluation(file, advance))
