"""A recipe at work: which result is made from which, each made when it is asked for, once, and kept in the cache.

In: a recipe and a cache of steps. Out: results by name; asking for one makes all that it needs and reports progress. An
interrupted run goes on where it was. One thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import msgspec
import onnx

from edged.errors import EdgedError
from edged_calibration import steps
from edged_calibration.analyze import Analysis
from edged_calibration.bundle.files import File, FileInputs
from edged_calibration.cache import StepCache
from edged_calibration.digest import digest_of
from edged_calibration.evaluate.gate import POINTS, Verdict, alike, judge
from edged_calibration.evaluate.layer_error import Errors, LayerError
from edged_calibration.evaluate.metrics import Evaluation, Scorer
from edged_calibration.evaluate.sensitivity import Sensitivity
from edged_calibration.fp16 import HalveReport
from edged_calibration.graph.index import matching
from edged_calibration.int8.calibrate import Method, Range
from edged_calibration.int8.write import Target
from edged_calibration.progress import Advance, Stages
from edged_calibration.recipe.frame_check import FrameReport
from edged_calibration.recipe.inputs import Inputs
from edged_calibration.recipe.schema import RecipeFile, VariantOptions
from edged_calibration.sparsity.apply import SparsityReport, sparse_layers
from edged_calibration.steps import Choice

Form = Literal["dense", "sparse"]
T = TypeVar("T")
P = ParamSpec("P")


def form_of(variant: VariantOptions) -> Form:
    """Which float model a variant is made from."""
    return "sparse" if variant.sparse else "dense"


class Job:
    """All results of one recipe."""

    def __init__(self, file: RecipeFile, cache: StepCache, stages: Stages) -> None:
        self.recipe = file.recipe
        self.inputs = Inputs(file)
        self._cache, self._stages = cache, stages
        self._results: dict[tuple[str, str], Any] = {}

    # ---- models ------------------------------------------------------------------------------------------------------

    @cached_property
    def frames(self) -> FrameReport:
        """The check of both sets."""
        path = self._step(
            "frames", "check the frames", steps.frame_report, self.inputs.calibration, self.inputs.sets.gate
        )
        report = read(path / "frames.json", FrameReport)
        for warning in report.warnings:
            self._stages.say(f"warning: {warning}")
        return report

    def float_model(self, form: Form) -> onnx.ModelProto:
        """The dense model, or the pruned one."""
        return self.inputs.model if form == "dense" else self._sparse[0]

    @cached_property
    def model_digest(self) -> str:
        """Of the float model as it was checked."""
        return digest_of(self.inputs.model)

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
        options, title = self.recipe.sparsify, "prune to 2:4"
        if options.model:
            path = self._step("sparse", title, steps.given_sparse, self.inputs.load(options.model))
        else:
            path = self._step("sparse", title, steps.pruned, self.inputs.model, self.inputs.feeds, options)
        return onnx.load(path / "model.onnx"), read(path / "sparsity.json", SparsityReport)

    @cached_property
    def sparse_points(self) -> float:
        """What 2:4 alone costs, in points, on the pictures that decide; reported before any file is made."""
        path = self._step(
            "sparse-score", "score the pruned model", steps.scored, self.float_model("sparse"), self.scorer
        )
        score = read(path / "score.json", dict[str, float])
        points = (score["whole"] - score["found"]) * POINTS
        allowed = min(self.recipe.limit(variant) for variant in self.recipe.variant if variant.sparse)
        text = f"2:4 alone: expect {-points:+.1f} points, of {allowed:g} allowed"
        if points > allowed:
            text += "; to recover more: [sparsify] fine_tune_steps = 200, or layers left dense by [sparsify] dense"
        self._stages.say(text)
        return points

    # ---- INT8 --------------------------------------------------------------------------------------------------------

    def ranges(self, form: Form) -> dict[Method, dict[str, Range]]:
        """Of every tensor, by every method."""
        return self._once(("ranges", form), lambda: self._ranges(form))

    def _ranges(self, form: Form) -> dict[Method, dict[str, Range]]:
        path = self._step(
            f"ranges-{form}",
            f"measure ranges, {form}",
            steps.all_ranges,
            self.float_model(form),
            self.inputs.feeds,
            self.recipe.quantize.percentile,
            self.inputs.normalisation.range,
        )
        return read(path / "ranges.json", dict[Method, dict[str, Range]])

    def choice(self, form: Form, target: Target = "x86") -> Choice:
        """The calibration method of a target. Arm has the grids of x86 at the same places, so it takes its method."""
        grids: Target = "trt" if target == "trt" else "x86"
        return self._once(("choice", f"{form} {grids}"), lambda: self._choice(form, grids))

    def _choice(self, form: Form, target: Target) -> Choice:
        options = self.recipe.quantize
        asked = "max" if options.model else options.method
        if asked != "best":
            return Choice(asked, {})
        path = self._step(
            f"choice-{form}-{target}",
            f"choose the calibration, {form} for {target}",
            steps.choice,
            self.float_model(form),
            self.ranges(form),
            target,
            options.keep_float,
            self.scorer,
        )
        return read(path / "choice.json", Choice)

    def quantisable(self, form: Form, target: Target = "x86") -> tuple[onnx.ModelProto, dict[str, Range]]:
        """The float model that INT8 is made of, and its ranges: measured, or those of a training with Q/DQ."""
        if self.recipe.quantize.model:
            return self._trained
        return self.float_model(form), self.ranges(form)[self.choice(form, target).method]

    @cached_property
    def _trained(self) -> tuple[onnx.ModelProto, dict[str, Range]]:
        model, known = self.inputs.trained
        path = self._step(
            "trained",
            "read the model quantised in training",
            steps.trained_ranges,
            model,
            known,
            self.inputs.feeds,
            self.inputs.normalisation.range,
        )
        return model, read(path / "ranges.json", dict[str, Range])

    def keep_float(self, form: Form) -> list[str]:
        """Nodes that the recipe keeps in float."""
        return matching(self.quantisable(form)[0], self.recipe.quantize.keep_float)

    # ---- files -------------------------------------------------------------------------------------------------------

    def files(self, variant: VariantOptions) -> dict[str, File]:
        """File name -> the file, checked against its rules."""
        path = self._made(variant)
        return self._once(
            ("files", variant.name),
            lambda: {found.name: File(found.name, onnx.load(found)) for found in sorted(path.glob("*.onnx"))},
        )

    def halved(self, variant: VariantOptions) -> HalveReport:
        """What of an FP16 variant stays float."""
        return read(self._made(variant) / "halve.json", HalveReport)

    def _made(self, variant: VariantOptions) -> Path:
        return self._once(("made", variant.name), lambda: self._make(variant))

    def _make(self, variant: VariantOptions) -> Path:
        form = form_of(variant)
        if variant.sparse:
            _ = self.sparse_points
        step, title, name = f"files-{variant.name}", f"write {variant.name}", variant.name
        inputs = FileInputs(self.recipe.halve, self.inputs.normalisation, self.inputs.feeds)
        if variant.precision == "int8":
            tables = {target: self.quantisable(form, target)[1] for target in self.recipe.targets}
            model, keep = self.quantisable(form)[0], self.keep_float(form)
            return self._step(step, title, steps.int8_files, name, model, tables, keep, inputs)
        return self._step(step, title, steps.float_files, name, variant.precision, self.float_model(form), inputs)

    # ---- measured ----------------------------------------------------------------------------------------------------

    @cached_property
    def analysis(self) -> Analysis:
        path = self._step(
            "analysis", "analyse the layers", steps.analysis, self.inputs.model, self.ranges("dense")["max"]
        )
        return read(path / "analysis.json", Analysis)

    def errors(self, variant: VariantOptions) -> Errors:
        """What quantisation does to every layer and output; of a float variant, nothing."""
        return self._once(("errors", variant.name), lambda: self._errors(variant))

    def _errors(self, variant: VariantOptions) -> Errors:
        if variant.precision != "int8":
            return Errors()
        form = form_of(variant)
        model, table = self.quantisable(form)
        path = self._step(
            f"errors-{variant.name}",
            f"quantisation errors, {variant.name}",
            steps.errors,
            self.inputs.model,
            model,
            table,
            self.keep_float(form),
            self.inputs.feeds,
            self.inputs.parts,
        )
        return read(path / "errors.json", Errors)

    @property
    def worst_errors(self) -> list[LayerError]:
        """Of the first INT8 variant: for the report."""
        quantised = [variant for variant in self.recipe.variant if variant.precision == "int8"]
        return self.errors(quantised[0]).layers if quantised else []

    def sensitivity(self, variant: VariantOptions) -> tuple[Sensitivity, list[str] | None]:
        """What INT8 costs in each layer, and what to keep in float to pass the gate (None: nothing would do)."""
        form = form_of(variant)
        model, table = self.quantisable(form)
        path = self._step(
            f"sensitivity-{form}",
            f"try the layers of {variant.name} one by one",
            steps.searched,
            model,
            table,
            self.scorer,
            self.recipe.limit(variant) / POINTS,
        )
        searched = read(path / "sensitivity.json", steps.Searched)
        return searched.found, searched.keep

    @cached_property
    def scorer(self) -> Scorer:
        """Scores models on the pictures that decide."""
        return Scorer(self.inputs.model, self.inputs.sets.choices, self.inputs.task, self.inputs.normalisation)

    @cached_property
    def _judge(self) -> Scorer:
        return Scorer(self.inputs.model, self.inputs.sets.gate, self.inputs.task, self.inputs.normalisation)

    @cached_property
    def baseline(self) -> Evaluation:
        """The float model's own accuracy, with a warning where the pictures tell nothing apart. EdgedError if it does
        not agree with itself: then no agreement means anything."""
        found = self._evaluation("float", None)
        if found.metric == "agreement" and found.value < 1:
            raise EdgedError(
                f"the float model agrees with itself only to {found.value:.4f}: what decodes its outputs is not exact",
                "report this with the model; no file can be judged by it",
            )
        warning = alike(found, self.inputs.task)
        if warning:
            self._stages.say(f"warning: {warning}")
        return found

    def evaluation(self, variant: VariantOptions, file: str) -> Evaluation:
        """Accuracy of one file, as it will be shipped."""
        return self._once(("evaluation", file), lambda: self._evaluation(file, self.files(variant)[file].model))

    def _evaluation(self, name: str, file: onnx.ModelProto | None) -> Evaluation:
        path = self._step(f"evaluation-{name}", f"evaluate {name}", steps.evaluation, file, self._judge)
        return read(path / "evaluation.json", Evaluation)

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """The gate on every file, in the order of the recipe."""
        return [
            judge(file, self.baseline, self.evaluation(variant, file), self.recipe.limit(variant))
            for variant in self.recipe.variant
            for file in self.files(variant)
        ]

    # ---- the cache ---------------------------------------------------------------------------------------------------

    def _step(
        self,
        name: str,
        title: str,
        make: Callable[Concatenate[Path, Advance, P], None],
        *inputs: P.args,
        **named: P.kwargs,
    ) -> Path:
        with self._stages.stage(title) as advance:
            return self._cache.step(name, advance, make, *inputs, **named)

    def _once(self, key: tuple[str, str], make: Callable[[], T]) -> T:
        if key not in self._results:
            self._results[key] = make()
        found: T = self._results[key]
        return found


def read(path: Path, kind: type[T]) -> T:
    return msgspec.json.decode(path.read_bytes(), type=kind)
