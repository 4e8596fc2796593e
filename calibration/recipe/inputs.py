"""What a recipe begins with: the float model, its task, and the pictures, each opened and checked when it is asked for.

In: a recipe. Out: an `Inputs`. UsageError for whatever does not fit: tensors, classes, labels, pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import onnx

from edged.engines.decoder_shapes import tensor_names
from edged.engines.decoder_spec import YoloDecoder
from edged.engines.manifest import InputSpec
from edged.errors import UsageError
from edged_calibration.evaluate.metrics import Task
from edged_calibration.graph.model_file import check_model, input_size, load_model, read_model
from edged_calibration.int8.calibrate import Range
from edged_calibration.int8.import_qat import import_qat, unquantised
from edged_calibration.recipe.frames import Feeds, Frames, open_frames
from edged_calibration.recipe.input_normalisation import IMAGE, Normalisation, to_bgr
from edged_calibration.recipe.schema import RecipeFile

CHOICES = 200
"""At most so many validation pictures decide between calibration methods and layers; the gate never sees them."""

_CHOICE_SHARE = 5  # one in five of them


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
    def model(self) -> onnx.ModelProto:
        """The float model, checked, reading BGR."""
        return self.load(self.recipe.model)

    def load(self, source: str) -> onnx.ModelProto:
        """A model that the recipe names."""
        options = self.recipe.input
        path = source if source.startswith("zoo:") else self.file.beside(source)
        model = load_model(path, options.width, options.height)
        return to_bgr(model) if options.color == "RGB" else model

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
        model = check_model(inside, str(path), options.width, options.height)
        return (to_bgr(model) if options.color == "RGB" else model), known

    @cached_property
    def labels(self) -> tuple[str, ...]:
        given = self.recipe.labels
        if isinstance(given, list):
            return tuple(given)
        if not given:
            return tuple(f"class-{number}" for number in range(self._classes or 1))
        path = self.file.beside(given)
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} cannot be read: {error}", "give a text file with one label a line") from error
        return tuple(line.strip() for line in lines if line.strip())

    @cached_property
    def task(self) -> Task:
        """Checked against the model: it has the tensors that the decoder reads, and a label for each class."""
        if self._classes not in (None, len(self.labels)):
            raise UsageError(
                f"{self.file.path}: {len(self.labels)} labels, but the model has {self._classes} classes",
                "give one label for each class, in the model's order",
            )
        return Task(self._input, self.recipe.output, self.labels)

    @cached_property
    def _classes(self) -> int | None:
        """How many classes the model tells apart; None where its shapes do not say."""
        outputs = {value.name: value for value in self.model.graph.output}
        missing = [name for name in tensor_names(self.recipe.output) if name not in outputs]
        if missing:
            raise UsageError(
                f"{self.file.path}: output names the tensor {missing[0]!r}; the model has {', '.join(outputs)}",
                "correct [output]",
            )
        first = outputs[tensor_names(self.recipe.output)[0]]
        sides = first.type.tensor_type.shape.dim
        count = sides[1].dim_value if len(sides) > 1 else 0
        boxes = 4 if isinstance(self.recipe.output, YoloDecoder) else 0
        return count - boxes if count else None

    @cached_property
    def _input(self) -> InputSpec:
        width, height = input_size(self.model)
        return InputSpec(name=IMAGE, width=width, height=height, pad=self.recipe.input.pad)

    @cached_property
    def normalisation(self) -> Normalisation:
        """In the order blue, green, red."""
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
        return Feeds(self.calibration, self.model.graph.input[0].name, self.normalisation)
