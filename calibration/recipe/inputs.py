"""What a recipe begins with: the float model, its task, and the pictures, each opened and checked when it is asked for.

In: a recipe. Out: an `Inputs`. UsageError for anything that does not fit: tensors, classes, labels, pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edged.engines.decoder_shapes import class_count, fits, tensor_names, tensor_shapes
from edged.engines.decoder_spec import Decoder, YoloDecoder
from edged.engines.manifest import InputSpec
from edged.errors import UsageError
from edged_calibration.evaluate.layer_error import Part
from edged_calibration.evaluate.metrics import Task
from edged_calibration.graph.entry import find_entry
from edged_calibration.graph.index import drop_unused, session
from edged_calibration.graph.model_file import (
    Wanted,
    check_model,
    fixed_batch,
    input_size,
    load_model,
    output_shapes,
    read_model,
)
from edged_calibration.graph.outputs import only_outputs
from edged_calibration.int8.calibrate import Range
from edged_calibration.int8.import_qat import import_qat, unquantised
from edged_calibration.recipe.frames import FEED_BATCH, Feeds, Frames, open_frames
from edged_calibration.recipe.input_normalisation import IMAGE, Normalisation, to_bgr
from edged_calibration.recipe.resolve import resolve
from edged_calibration.recipe.schema import InputOptions, RecipeFile

CHOICES = 200
"""At most so many validation pictures decide between calibration methods and layers; the gate never sees them."""

_CHOICE_SHARE = 5  # one in five of them
_AS_IT_IS = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
_PROBED = 8  # calibration pictures that a decoder's layout is read from
_BATCH = 4  # pictures that are evaluated at once


@dataclass(frozen=True)
class Sets:
    """The validation pictures, in two parts: some decide between methods, the others judge."""

    choices: Frames
    gate: Frames


class Inputs:
    """All that a recipe names, opened."""

    def __init__(self, file: RecipeFile) -> None:
        self.file, self.recipe = file, file.recipe

    @cached_property
    def _whole_model(self) -> onnx.ModelProto:
        """With all its outputs."""
        return self.load(self.recipe.model)

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The float model, checked, reading BGR, with the outputs that the decoder reads."""
        model = onnx.ModelProto()
        model.CopyFrom(self._whole_model)
        if not self._bare:
            only_outputs(model, tensor_names(self.output))
            drop_unused(model)
        return model

    @property
    def _bare(self) -> bool:
        """Whether there is no recipe behind it, so that nothing is decoded."""
        return not all(tensor_names(self.recipe.output))

    @property
    def batch(self) -> int | None:
        """The only batch that the model takes; None if it takes any."""
        return fixed_batch(self._whole_model)

    def load(self, source: str) -> onnx.ModelProto:
        """A model that the recipe names."""
        options = self.recipe.input
        path = source if source.startswith("zoo:") else self.file.beside(source)
        model = load_model(path, self._wanted)
        return to_bgr(model) if options.color == "RGB" else model

    @property
    def _wanted(self) -> Wanted:
        recipe, options = self.recipe, self.recipe.input
        keep = [*recipe.halve.keep_float, *recipe.quantize.keep_float]
        return Wanted(options.width, options.height, options.name, options.layout, options.constants, keep)

    @cached_property
    def parts(self) -> dict[str, Part]:
        """What different things one output holds: boxes, class scores and what stands behind them."""
        if self._bare or not isinstance(self.output, YoloDecoder):
            return {}
        output = self.output
        name, axis = output.predictions, 1 if output.layout == "columns" else 2
        ends = [4, 4 + bool(output.objectness) + len(self.labels)]
        if output.layout == "end_to_end":
            if output.order not in (None, "box_score_class"):
                return {}
            ends = [4, 6]
        parts = {f"{name} boxes": Part(name, axis, 0, ends[0]), f"{name} scores": Part(name, axis, *ends)}
        if output.extra:
            parts[f"{name} rest"] = Part(name, axis, ends[1], ends[1] + output.extra)
        return parts

    @cached_property
    def _takes_pixels(self) -> bool:
        """Whether the model takes bytes, so that it normalises itself."""
        if self.recipe.model.startswith("zoo:"):
            return False
        source, options = self.file.beside(self.recipe.model), self.recipe.input
        pixels = find_entry(read_model(source), str(source), options.name, options.layout).pixels
        if pixels and (options.mean, options.std) not in ((InputOptions().mean, InputOptions().std), _AS_IT_IS):
            raise UsageError(
                f"{self.file.path}: input.mean and input.std, but the model takes the bytes of the picture",
                "leave them out: it normalises itself",
            )
        return pixels

    @cached_property
    def trained(self) -> tuple[onnx.ModelProto, dict[str, Range]]:
        """The float model inside the one that was quantised in training, and its own ranges."""
        path, options = self.file.beside(self.recipe.quantize.model), self.recipe.input
        imported, problems = import_qat(read_model(path))
        if problems:
            raise UsageError(
                f"{path} breaks {len(problems)} rules of Q/DQ: {problems[0].node}: {problems[0].text}",
                "export it again by these rules, or leave out quantize.model and let edged-calibrate quantise",
            )
        inside, known = unquantised(imported)
        model = check_model(inside, str(path), self._wanted)
        return (to_bgr(model) if options.color == "RGB" else model), known

    @cached_property
    def labels(self) -> tuple[str, ...]:
        given = self.recipe.labels
        if isinstance(given, list):
            return tuple(given)
        if not given:
            count = class_count(self.output, output_shapes(self._whole_model))
            return tuple(f"class-{number}" for number in range(count or 1))
        path = self.file.beside(given)
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} cannot be read: {error}", "give a text file with one label a line") from error
        return tuple(line.strip() for line in lines if line.strip())

    @cached_property
    def task(self) -> Task:
        """Checked against the model: it has the tensors that the decoder reads, and a label for each class."""
        return Task(self._input, self.output, self.labels, self.batch or _BATCH)

    @cached_property
    def output(self) -> Decoder:
        """The decoder with all that the recipe leaves to the model. UsageError for what it cannot read, by shape."""
        asked, shapes = self.recipe.output, output_shapes(self._whole_model)
        missing = [name for name in tensor_names(asked) if name not in shapes]
        if missing:
            raise UsageError(
                f"{self.file.path}: output names the tensor {missing[0]!r}; the model has {', '.join(shapes)}",
                "correct [output]; edged-calibrate import MODEL guesses it",
            )
        found = resolve(asked, self._whole_model, self._probe, self._label_count)
        self._check_classes(found, shapes)
        width, height = input_size(self._whole_model)
        classes = class_count(found, shapes) or self._label_count or 1
        for name, expected in tensor_shapes(found, width, height, classes).items():
            if not fits(shapes[name], expected):
                raise UsageError(
                    f"{self.file.path}: the decoder {found.__struct_config__.tag} cannot read {name} "
                    f"{_sides(shapes[name])}; it expects {_sides(expected)}",
                    "correct [output]; edged-calibrate import MODEL guesses it",
                )
        return found

    def _check_classes(self, found: Decoder, shapes: dict[str, tuple[int, ...]]) -> None:
        try:
            count = class_count(found, shapes)
        except IndexError:  # the tensor has fewer axes than it should: its shape is refused next
            return
        if count is not None and self._label_count not in (None, count):
            raise UsageError(
                f"{self.file.path}: {self._label_count} labels, but the model has {count} classes "
                f"({tensor_names(found)[0]} {_sides(shapes[tensor_names(found)[0]])})",
                "give one label for each class, in the model's order",
            )

    @cached_property
    def _probe(self) -> dict[str, NDArray[Any]]:
        """All outputs for some calibration pictures and one of noise."""
        noise = (
            np.random.default_rng(0).integers(0, 256, (1, self._input.height, self._input.width, 3)).astype(np.uint8)
        )
        pictures = [noise, *(self.calibration.images(n, 1) for n in range(min(_PROBED, len(self.calibration))))]
        names = [value.name for value in self._whole_model.graph.output]
        running, entry = session(self._whole_model), self._whole_model.graph.input[0].name
        runs = [running.run(names, {entry: self.normalisation.planes(picture)}) for picture in pictures]
        return {name: np.concatenate([run[at] for run in runs]) for at, name in enumerate(names)}

    @cached_property
    def _label_count(self) -> int | None:
        return len(self.labels) if self.recipe.labels else None

    @cached_property
    def _input(self) -> InputSpec:
        width, height = input_size(self._whole_model)
        return InputSpec(name=IMAGE, width=width, height=height, pad=self.recipe.input.pad)

    @cached_property
    def normalisation(self) -> Normalisation:
        """In the order blue, green, red; of bytes nothing where the model takes bytes."""
        if self._takes_pixels:
            return Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        order = -1 if self.recipe.input.color == "RGB" else 1
        mean, std = self.recipe.input.mean[::order], self.recipe.input.std[::order]
        return Normalisation((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))

    @cached_property
    def calibration(self) -> Frames:
        """The pictures to calibrate on."""
        asked = self.recipe.calibration
        return open_frames(asked.frames, self.file.path.parent, self._input, asked.count)

    @cached_property
    def sets(self) -> Sets:
        asked = self.recipe.validation
        base, labels = self.file.path.parent, self.task.labels
        validation = open_frames(asked.frames, base, self._input, asked.count, asked.labels, labels)
        total = len(validation)
        chosen = list(range(0, total, _CHOICE_SHARE))[:CHOICES] if total >= 2 * _CHOICE_SHARE else []
        judging = sorted(set(range(total)) - set(chosen))
        return Sets(validation.subset(chosen or judging), validation.subset(judging))

    @cached_property
    def feeds(self) -> Feeds:
        """The calibration pictures as the float model takes them."""
        return Feeds(self.calibration, self.model.graph.input[0].name, self.normalisation, self.batch or FEED_BATCH)


def _sides(shape: tuple[int, ...]) -> str:
    return (
        "["
        + ", ".join("N" if at == 0 else "any" if side == -1 else str(side) for at, side in enumerate((0, *shape)))
        + "]"
    )
