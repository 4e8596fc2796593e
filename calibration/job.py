"""A recipe at work: its files, and what they are worth: measured, judged, and explained layer by layer.

In: a recipe and a workshop. Out: results by name, as in `making.py`, which this goes on from. One thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import msgspec

from edged_calibration.analyze import Analysis, analyze
from edged_calibration.cache import write_json
from edged_calibration.evaluate.gate import POINTS, Verdict, judge
from edged_calibration.evaluate.layer_error import Errors, LayerError, measure_errors
from edged_calibration.evaluate.metrics import (
    Answer,
    Evaluation,
    Run,
    evaluate,
    on_images,
    on_planes,
    reference_answers,
)
from edged_calibration.evaluate.sensitivity import Sensitivity, keep_to_pass, sensitivity
from edged_calibration.int8.write import quantize
from edged_calibration.making import Making, content, form_of, read
from edged_calibration.recipe.schema import VariantOptions, options_json

_ERROR_FEEDS = 4
"""Batches that layer errors are measured on: ratios of power over millions of values need no more."""


class _Searched(msgspec.Struct, frozen=True):
    found: Sensitivity
    keep: list[str] | None


class Job(Making):
    """All results of one recipe."""

    @cached_property
    def analysis(self) -> Analysis:
        known = self.ranges("dense")["max"]
        with self.stages.stage("analyse the layers"):
            path = self.step(
                "analysis",
                [self.model_digest, self.calibration_digest],
                lambda into: write_json(into / "analysis.json", analyze(self.inputs.model, known)),
            )
        return read(path / "analysis.json", Analysis)

    def errors(self, variant: VariantOptions) -> Errors:
        """What quantisation does to every layer and output; of a float variant, nothing."""
        return self.once(("errors", variant.name), lambda: self._errors(variant))

    def _errors(self, variant: VariantOptions) -> Errors:
        if variant.precision != "int8":
            return Errors()
        form = form_of(variant)
        model, table = self.quantisable(form)

        def make(into: Path) -> None:
            quantised = quantize(model, table, "x86", self.keep_float(form))
            found = measure_errors(model, quantised, self.inputs.feeds[:_ERROR_FEEDS], advance)
            write_json(into / "errors.json", found)

        with self.stages.stage(f"quantisation errors, {variant.name}") as advance:
            inputs = [content(model), self.calibration_digest, options_json(self.recipe.quantize, self.choice(form))]
            path = self.step(f"errors-{variant.name}", inputs, make)
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
        wanted = self.scorer.whole - self.recipe.limit(variant) / POINTS

        def make(into: Path) -> None:
            found = sensitivity(model, table, self.scorer, "x86", advance)
            keep = keep_to_pass(model, table, self.scorer, wanted, found, advance)
            write_json(into / "sensitivity.json", _Searched(found, keep))

        with self.stages.stage(f"try the layers of {variant.name} one by one") as advance:
            settings = options_json(self.recipe.quantize, self.recipe.limit(variant), self.choice(form).method)
            inputs = [
                content(model),
                self.calibration_digest,
                self.inputs.sets.choices.digest(),
                self.meaning_digest,
                settings,
            ]
            path = self.step(f"sensitivity-{form}", inputs, make) / "sensitivity.json"
        searched = read(path, _Searched)
        return searched.found, searched.keep

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
        return self.once(
            ("evaluation", file), lambda: self._evaluated(file, content(model), lambda: on_images(model, task))
        )

    def _evaluated(self, name: str, content: str, run: Callable[[], Run]) -> Evaluation:
        with self.stages.stage(f"evaluate {name}") as advance:
            path = self.step(
                f"evaluation-{name}",
                [content, self.inputs.sets.gate.digest(), self.meaning_digest],
                lambda into: write_json(
                    into / "evaluation.json",
                    evaluate(run(), self.inputs.sets.gate, self.inputs.task, self._reference, advance),
                ),
            )
        return read(path / "evaluation.json", Evaluation)

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
            judge(file, self.whole, self.evaluation(variant, file), self.recipe.limit(variant))
            for variant in self.recipe.variant
            for file in self.files(variant)
        ]
