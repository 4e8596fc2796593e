"""From a recipe's float model to its engine files: every result made when it is asked for, and kept in the workshop.

In: a recipe and a workshop. Out: results by name; asking for one makes all it needs, once, and says how far it is.
One thread. What a step takes in decides its digest (see `workshop.py`), so an interrupted run goes on where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import onnx

from edged_calibration.bundle.files import File, float_file, half_file, quantised_files
from edged_calibration.cache import StepCache, write_json
from edged_calibration.evaluate.metrics import Scorer
from edged_calibration.fp16 import HalveReport
from edged_calibration.graph.index import matching
from edged_calibration.int8.calibrate import METHODS, Method, Range, ranges
from edged_calibration.int8.write import calibrate, quantize
from edged_calibration.progress import Stages
from edged_calibration.recipe.frame_check import FrameReport, check_frames
from edged_calibration.recipe.inputs import Inputs
from edged_calibration.recipe.schema import RecipeFile, VariantOptions, options_json
from edged_calibration.sparsity.apply import SparsityReport, found_sparsity, sparse_layers, sparsify

Form = Literal["dense", "sparse"]
T = TypeVar("T")


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which calibration method, and what each scored where they were compared."""

    method: Method
    scores: dict[str, float]


def form_of(variant: VariantOptions) -> Form:
    """Which float model a variant is made from."""
    return "sparse" if variant.sparse else "dense"


class Making:
    """The models, ranges and files of one recipe."""

    def __init__(self, file: RecipeFile, workshop: StepCache, stages: Stages) -> None:
        self.recipe = file.recipe
        self.inputs = Inputs(file)
        self._workshop, self.stages = workshop, stages
        self._made: dict[tuple[str, str], Any] = {}

    @cached_property
    def frames(self) -> FrameReport:
        """The check of both sets."""
        calibration, sets = self.inputs.calibration, self.inputs.sets
        with self.stages.stage("check the frames") as advance:
            path = self.step(
                "frames",
                [calibration.digest(), sets.gate.digest(), sets.choices.digest()],
                lambda into: write_json(into / "frames.json", check_frames(calibration, sets.gate, advance)),
            )
        report = read(path / "frames.json", FrameReport)
        for warning in report.warnings:
            self.stages.say(f"warning: {warning}")
        return report

    def float_model(self, form: Form) -> onnx.ModelProto:
        """The dense model, or the pruned one."""
        return self.inputs.model if form == "dense" else self._sparse[0]

    @cached_property
    def model_digest(self) -> str:
        """Of the float model as it was checked."""
        return content(self.inputs.model)

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
            if tuned is None:
                pruned, report = sparsify(self.inputs.model, self.inputs.feeds, options, advance)
            else:
                pruned, report = tuned, found_sparsity(tuned)
            onnx.save(pruned, into / "model.onnx")
            write_json(into / "sparsity.json", report)

        with self.stages.stage("prune to 2:4") as advance:
            inputs = [
                self.model_digest,
                content(tuned) if tuned else "",
                options_json(options),
                self.calibration_digest,
            ]
            path = self.step("sparse", inputs, make)
        return onnx.load(path / "model.onnx"), read(path / "sparsity.json", SparsityReport)

    def ranges(self, form: Form) -> dict[Method, dict[str, Range]]:
        """Of every tensor, by every method."""
        return self.once(("ranges", form), lambda: self._ranges(form))

    def _ranges(self, form: Form) -> dict[Method, dict[str, Range]]:
        model, percentile = self.float_model(form), self.recipe.quantize.percentile

        def make(into: Path) -> None:
            histograms = calibrate(model, self.inputs.feeds, advance)
            found = {method: ranges(histograms, method, percentile) for method in METHODS}
            pixels = {model.graph.input[0].name: self.inputs.normalisation.range}
            write_json(into / "ranges.json", {method: {**table, **pixels} for method, table in found.items()})

        with self.stages.stage(f"measure ranges, {form}") as advance:
            path = self.step(f"ranges-{form}", [content(model), self.calibration_digest, str(percentile)], make)
        return read(path / "ranges.json", dict[Method, dict[str, Range]])

    def choice(self, form: Form) -> Choice:
        """The calibration method."""
        return self.once(("choice", form), lambda: self._choice(form))

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

        with self.stages.stage(f"choose the calibration, {form}") as advance:
            inputs = [content(model), self.calibration_digest, self.inputs.sets.choices.digest(), self.meaning_digest]
            path = self.step(f"choice-{form}", [*inputs, options_json(self.recipe.quantize)], make)
        return read(path / "choice.json", Choice)

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

        with self.stages.stage("read the model quantised in training") as advance:
            path = self.step("trained", [content(imported[0]), repr(imported[1]), self.calibration_digest], make)
        return imported[0], read(path / "ranges.json", dict[str, Range])

    @cached_property
    def scorer(self) -> Scorer:
        """Scores models on the pictures that decide."""
        return Scorer(self.inputs.model, self.inputs.sets.choices, self.inputs.task, self.inputs.normalisation)

    def keep_float(self, form: Form) -> list[str]:
        """Nodes that the recipe wants in float."""
        return matching(self.quantisable(form)[0], self.recipe.quantize.keep_float)

    def files(self, variant: VariantOptions) -> dict[str, File]:
        """File name -> the file, proven to keep the rules."""
        return self.once(("files", variant.name), lambda: self._files(variant))

    def _files(self, variant: VariantOptions) -> dict[str, File]:
        def make(into: Path) -> None:
            for file in self._made_files(variant, into):
                onnx.save(file.model, into / file.name)

        form = form_of(variant)
        method = self.choice(form).method if variant.precision == "int8" else None
        with self.stages.stage(f"write {variant.name}"):
            settings = options_json(variant, method, self.recipe.quantize, self.recipe.halve, self.recipe.targets)
            source = self.quantisable(form)[0] if method else self.float_model(form)
            inputs = [content(source), settings, self.calibration_digest]
            path = self.step(f"files-{variant.name}", inputs, make)
        self._made["halved", variant.name] = path / "halve.json"
        return {found.name: File(found.name, onnx.load(found)) for found in sorted(path.glob("*.onnx"))}

    def halved(self, variant: VariantOptions) -> HalveReport:
        """What of an FP16 variant stays float."""
        self.files(variant)
        return read(self._made["halved", variant.name], HalveReport)

    def _made_files(self, variant: VariantOptions, into: Path) -> Iterable[File]:
        form, name, normalisation = form_of(variant), variant.name, self.inputs.normalisation
        model = self.float_model(form)
        if variant.precision == "int8":
            model, table = self.quantisable(form)
            keep = self.keep_float(form)
            return quantised_files(name, model, table, keep, self.recipe, normalisation, self.inputs.feeds)
        if variant.precision == "fp32":
            return [float_file(name, model, normalisation)]
        file, report = half_file(name, model, self.recipe.halve, normalisation, self.inputs.feeds)
        write_json(into / "halve.json", report)
        return [file]

    @cached_property
    def calibration_digest(self) -> str:
        """Digest of the calibration pictures and of how they become planes."""
        return self.inputs.calibration.digest() + repr(self.inputs.normalisation)

    @cached_property
    def meaning_digest(self) -> str:
        """All that decides how a model's outputs are read and scored."""
        return options_json(self.inputs.task.input, self.inputs.task.output, list(self.inputs.labels))

    def step(self, name: str, inputs: list[str], make: Callable[[Path], None]) -> Path:
        return self._workshop.step(name, inputs, make)

    def once(self, key: tuple[str, str], make: Callable[[], T]) -> T:
        if key not in self._made:
            self._made[key] = make()
        found: T = self._made[key]
        return found


def content(model: onnx.ModelProto) -> str:
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def read(path: Path, kind: type[T]) -> T:
    return msgspec.json.decode(path.read_bytes(), type=kind)
