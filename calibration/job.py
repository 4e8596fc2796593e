"""A recipe at work: every result from the float model to the gate, made when it is asked for and kept in the workshop.

In: a recipe and a workshop. Out: results by name; asking for one makes all it needs, once, and says how far it is.
One thread. What a step takes in decides its digest (see `workshop.py`), so an interrupted run goes on where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import msgspec
import onnx

from calibration.analyze import Analysis, analyze
from calibration.calibrators import METHODS, Method, Range, ranges
from calibration.evaluate import Answer, Evaluation, Run, Scorer, evaluate, on_images, on_planes, reference_answers
from calibration.files import File, float_file, half_file, quantised_files
from calibration.frame_check import FrameReport, check_frames
from calibration.gate import POINTS, Verdict, judge
from calibration.graph import matching
from calibration.halve import HalveReport
from calibration.inputs import Inputs
from calibration.layer_error import LayerError, layer_errors
from calibration.progress import Advance
from calibration.quantize import calibrate, quantize
from calibration.recipe import RecipeFile, VariantOptions, options_json
from calibration.sensitivity import Sensitivity, keep_to_pass, sensitivity
from calibration.sparsify import SparsityReport, sparse_layers, sparsify
from calibration.workshop import Workshop, write_json

Form = Literal["dense", "sparse"]
T = TypeVar("T")

_ERROR_FEEDS = 4
"""Batches that layer errors are measured on: ratios of power over millions of values need no more."""


class Stages(Protocol):
    """How a job tells what it is doing."""

    def stage(self, title: str) -> AbstractContextManager[Advance]: ...

    def say(self, text: str) -> None: ...


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which calibration method, and what each scored where they were compared."""

    method: Method
    scores: dict[str, float]


class _Searched(msgspec.Struct, frozen=True):
    found: Sensitivity
    keep: list[str] | None


def form_of(variant: VariantOptions) -> Form:
    """Which float model a variant is made from."""
    return "sparse" if variant.sparse else "dense"


class Job:
    """All results of one recipe."""

    def __init__(self, file: RecipeFile, workshop: Workshop, stages: Stages) -> None:
        self.recipe = file.recipe
        self.inputs = Inputs(file)
        self._workshop, self._stages = workshop, stages
        self._made: dict[tuple[str, str], Any] = {}

    # ---- from the float model to the files --------------------------------------------------------------------------

    @cached_property
    def frames(self) -> FrameReport:
        """The check of both sets."""
        calibration, sets = self.inputs.calibration, self.inputs.sets
        with self._stages.stage("check the frames") as advance:
            path = self._step(
                "frames",
                [calibration.digest(), sets.gate.digest(), sets.choices.digest()],
                lambda into: write_json(into / "frames.json", check_frames(calibration, sets.gate, advance)),
            )
        report = _read(path / "frames.json", FrameReport)
        for warning in report.warnings:
            self._stages.say(f"warning: {warning}")
        return report

    @cached_property
    def analysis(self) -> Analysis:
        known = self.ranges("dense")["max"]
        with self._stages.stage("analyse the layers"):
            path = self._step(
                "analysis",
                [self.model_digest, self._calibration],
                lambda into: write_json(into / "analysis.json", analyze(self.inputs.model, known)),
            )
        return _read(path / "analysis.json", Analysis)

    def float_model(self, form: Form) -> onnx.ModelProto:
        """The dense model, or the pruned one."""
        return self.inputs.model if form == "dense" else self._sparse[0]

    @cached_property
    def model_digest(self) -> str:
        """Of the float model as it was checked."""
        return _content(self.inputs.model)

    @property
    def sparse_count(self) -> int:
        """How many layers carry the 2:4 pattern."""
        return sum(sparse_layers(self.float_model("sparse")).values())

    @property
    def sparsity(self) -> SparsityReport:
        """What was pruned, and what not and why."""
        return self._sparse[1]

    @cached_property
    def _sparse(self) -> tuple[onnx.ModelProto, SparsityReport]:
        options = self.recipe.sparsify
        tuned = self.inputs.load(options.model) if options.model else None

        def make(into: Path) -> None:
            source = self.inputs.model if tuned is None else tuned
            pruned, report = sparsify(source, self.inputs.feeds, options, advance)
            onnx.save(pruned, into / "model.onnx")
            write_json(into / "sparsity.json", report)

        with self._stages.stage("prune to 2:4") as advance:
            inputs = [
                self.model_digest,
                _content(tuned) if tuned else "",
                options_json(options),
                self._calibration,
            ]
            path = self._step("sparse", inputs, make)
        return onnx.load(path / "model.onnx"), _read(path / "sparsity.json", SparsityReport)

    def ranges(self, form: Form) -> dict[Method, dict[str, Range]]:
        """Of every tensor, by every method."""
        return self._once(("ranges", form), lambda: self._ranges(form))

    def _ranges(self, form: Form) -> dict[Method, dict[str, Range]]:
        model, percentile = self.float_model(form), self.recipe.quantize.percentile

        def make(into: Path) -> None:
            histograms = calibrate(model, self.inputs.feeds, advance)
            found = {method: ranges(histograms, method, percentile) for method in METHODS}
            pixels = {model.graph.input[0].name: self.inputs.normalisation.range}
            write_json(into / "ranges.json", {method: {**table, **pixels} for method, table in found.items()})

        with self._stages.stage(f"measure ranges, {form}") as advance:
            path = self._step(f"ranges-{form}", [_content(model), self._calibration, str(percentile)], make)
        return _read(path / "ranges.json", dict[Method, dict[str, Range]])

    def choice(self, form: Form) -> Choice:
        """The calibration method."""
        return self._once(("choice", form), lambda: self._choice(form))

    def _choice(self, form: Form) -> Choice:
        asked = "max" if self.recipe.quantize.model else self.recipe.quantize.method
        if asked != "best":
            return Choice(asked, {})
        model, measured = self.float_model(form), self.ranges(form)

        def make(into: Path) -> None:
            scores: dict[str, float] = {}
            keep = matching(model, self.recipe.quantize.keep_float)
            for done, method in enumerate(METHODS):
                advance(done, len(METHODS))
                scores[method] = self.scorer(quantize(model, measured[method], "x86", keep))
            best = max(METHODS, key=lambda method: scores[method])
            write_json(into / "choice.json", Choice(best, scores))

        with self._stages.stage(f"choose the calibration, {form}") as advance:
            inputs = [_content(model), self._calibration, self.inputs.sets.choices.digest(), self._meaning]
            path = self._step(f"choice-{form}", [*inputs, options_json(self.recipe.quantize)], make)
        return _read(path / "choice.json", Choice)

    def quantisable(self, form: Form) -> tuple[onnx.ModelProto, dict[str, Range]]:
        """The float model that INT8 is made of, and its ranges: measured, or those of a training with Q/DQ."""
        if self.recipe.quantize.model:
            return self._trained
        return self.float_model(form), self.ranges(form)[self.choice(form).method]

    @cached_property
    def _trained(self) -> tuple[onnx.ModelProto, dict[str, Range]]:
        """The model that was quantised in training: its own ranges, and measured ones where it has none."""
        imported = self.inputs.trained

        def make(into: Path) -> None:
            model, known = imported
            measured = ranges(calibrate(model, self.inputs.feeds, advance), "max")
            pixels = {model.graph.input[0].name: self.inputs.normalisation.range}
            write_json(into / "ranges.json", measured | pixels | known)

        with self._stages.stage("read the model quantised in training") as advance:
            path = self._step("trained", [_content(imported[0]), repr(imported[1]), self._calibration], make)
        return imported[0], _read(path / "ranges.json", dict[str, Range])

    @cached_property
    def scorer(self) -> Scorer:
        """Scores models on the pictures that decide."""
        return Scorer(self.inputs.model, self.inputs.sets.choices, self.inputs.task, self.inputs.normalisation)

    def keep_float(self, form: Form) -> list[str]:
        """Nodes that the recipe wants in float."""
        return matching(self.quantisable(form)[0], self.recipe.quantize.keep_float)

    def files(self, variant: VariantOptions) -> dict[str, File]:
        """File name -> the file, proven to keep the rules."""
        return self._once(("files", variant.name), lambda: self._files(variant))

    def _files(self, variant: VariantOptions) -> dict[str, File]:
        def make(into: Path) -> None:
            for file in self._made_files(variant, into):
                onnx.save(file.model, into / file.name)

        form = form_of(variant)
        method = self.choice(form).method if variant.precision == "int8" else None
        with self._stages.stage(f"write {variant.name}"):
            settings = options_json(variant, method, self.recipe.quantize, self.recipe.halve, self.recipe.targets)
            source = self.quantisable(form)[0] if method else self.float_model(form)
            inputs = [_content(source), settings, self._calibration]
            path = self._step(f"files-{variant.name}", inputs, make)
        self._made["halved", variant.name] = path / "halve.json"
        return {found.name: File(found.name, onnx.load(found)) for found in sorted(path.glob("*.onnx"))}

    def halved(self, variant: VariantOptions) -> HalveReport:
        """What of an FP16 variant stays float."""
        self.files(variant)
        return _read(self._made["halved", variant.name], HalveReport)

    def _made_files(self, variant: VariantOptions, into: Path) -> Iterable[File]:
        form, name, normalisation = form_of(variant), variant.name, self.inputs.normalisation
        model = self.float_model(form)
        if variant.precision == "int8":
            model, table = self.quantisable(form)
            return quantised_files(name, model, table, self.keep_float(form), self.recipe.targets, normalisation)
        if variant.precision == "fp32":
            return [float_file(name, model, normalisation)]
        file, report = half_file(name, model, self.recipe.halve, normalisation, self.inputs.feeds)
        write_json(into / "halve.json", report)
        return [file]

    def errors(self, variant: VariantOptions) -> list[LayerError]:
        """The quantisation error of every layer, worst first; of a float variant, none."""
        return self._once(("errors", variant.name), lambda: self._errors(variant))

    def _errors(self, variant: VariantOptions) -> list[LayerError]:
        if variant.precision != "int8":
            return []
        form = form_of(variant)
        model, table = self.quantisable(form)

        def make(into: Path) -> None:
            quantised = quantize(model, table, "x86", self.keep_float(form))
            found = layer_errors(model, quantised, self.inputs.feeds[:_ERROR_FEEDS], advance)
            write_json(into / "errors.json", found)

        with self._stages.stage(f"quantisation errors, {variant.name}") as advance:
            inputs = [_content(model), self._calibration, options_json(self.recipe.quantize, self.choice(form))]
            path = self._step(f"errors-{variant.name}", inputs, make)
        return _read(path / "errors.json", list[LayerError])

    @property
    def worst_errors(self) -> list[LayerError]:
        """Of the first INT8 variant: for the report."""
        quantised = [variant for variant in self.recipe.variant if variant.precision == "int8"]
        return self.errors(quantised[0]) if quantised else []

    def sensitivity(self, variant: VariantOptions) -> tuple[Sensitivity, list[str] | None]:
        """What INT8 costs in each layer, and what to keep in float to pass the gate (None: nothing would do)."""
        form = form_of(variant)
        model, table = self.quantisable(form)
        wanted = self.scorer.whole - self.recipe.gate.int8_points / POINTS

        def make(into: Path) -> None:
            found = sensitivity(model, table, self.scorer, "x86", advance)
            keep = keep_to_pass(model, table, self.scorer, wanted, found, advance)
            write_json(into / "sensitivity.json", _Searched(found, keep))

        with self._stages.stage(f"try the layers of {variant.name} one by one") as advance:
            settings = options_json(self.recipe.quantize, self.recipe.gate, self.choice(form).method)
            inputs = [_content(model), self._calibration, self.inputs.sets.choices.digest(), self._meaning, settings]
            path = self._step(f"sensitivity-{form}", inputs, make) / "sensitivity.json"
        read = _read(path, dict[str, msgspec.Raw])
        return msgspec.json.decode(read["found"], type=Sensitivity), msgspec.json.decode(
            read["keep"], type=list[str] | None
        )

    @cached_property
    def whole(self) -> Evaluation:
        """The float model's own accuracy."""
        return self._evaluated("float", self.model_digest, self._run_float)

    def _run_float(self) -> Run:
        return on_planes(self.inputs.model, self.inputs.task, self.inputs.normalisation)

    def evaluation(self, variant: VariantOptions, file: str) -> Evaluation:
        """Accuracy of one file, as it will be shipped."""
        model = self.files(variant)[file].model
        task = self.inputs.task
        return self._once(
            ("evaluation", file), lambda: self._evaluated(file, _content(model), lambda: on_images(model, task))
        )

    def _evaluated(self, name: str, content: str, run: Callable[[], Run]) -> Evaluation:
        with self._stages.stage(f"evaluate {name}") as advance:
            path = self._step(
                f"evaluation-{name}",
                [content, self.inputs.sets.gate.digest(), self._meaning],
                lambda into: write_json(
                    into / "evaluation.json",
                    evaluate(run(), self.inputs.sets.gate, self.inputs.task, self._reference, advance),
                ),
            )
        return _read(path / "evaluation.json", Evaluation)

    @cached_property
    def _reference(self) -> Sequence[Answer] | None:
        """What the float model answers, where there are no labels."""
        if self.inputs.sets.gate.read(0).truth is not None:
            return None
        return reference_answers(self._run_float(), self.inputs.sets.gate, self.inputs.task)

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """The gate on every file, in the order of the recipe."""
        return [
            judge(file, variant.precision, self.whole, self.evaluation(variant, file), self.recipe.gate)
            for variant in self.recipe.variant
            for file in self.files(variant)
        ]

    # ---- how ---------------------------------------------------------------------------------------------------------

    @cached_property
    def _calibration(self) -> str:
        """Digest of the calibration pictures and of how they become planes."""
        return self.inputs.calibration.digest() + repr(self.inputs.normalisation)

    @cached_property
    def _meaning(self) -> str:
        """All that decides how a model's outputs are read and scored."""
        return options_json(self.inputs.task.input, self.inputs.task.output, list(self.inputs.labels))

    def _step(self, name: str, inputs: list[str], make: Callable[[Path], None]) -> Path:
        return self._workshop.step(name, inputs, make)

    def _once(self, key: tuple[str, str], make: Callable[[], T]) -> T:
        if key not in self._made:
            self._made[key] = make()
        found: T = self._made[key]
        return found


def _content(model: onnx.ModelProto) -> str:
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def _read(path: Path, kind: type[T]) -> T:
    return msgspec.json.decode(path.read_bytes(), type=kind)
