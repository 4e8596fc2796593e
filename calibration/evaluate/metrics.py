"""Accuracy of one file on held-out pictures, run by ONNX Runtime and decoded as the daemon decodes it.

With labels: COCO's mean average precision of a detector, top-1 and top-5 of a classifier. Without: how far it agrees
with the float model, whose answers then pass for the truth. Every evaluation also says what its metric would have been
on 200 other draws of the same pictures, the same draws for every file, so that two files compare pair by pair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, cast

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray

from edged.engines.decoder_shapes import tensor_names
from edged.engines.decoder_spec import ClassifyDecoder, Decoder, EmbedDecoder, ObjectDecoder, SemanticDecoder
from edged.engines.manifest import InputSpec
from edged.errors import UsageError
from edged.vision.agreement import of_embeddings
from edged.vision.decoder import Decode, decoder_for
from edged.vision.results import Classes, ClassMap, Detections, Embedding, plain
from edged_calibration.digest import digest_of
from edged_calibration.evaluate.average_precision import MAX_DETECTIONS, Boxes, matches, precision
from edged_calibration.graph.index import session
from edged_calibration.progress import Advance, silent
from edged_calibration.recipe.frames import Frames, Picture
from edged_calibration.recipe.input_normalisation import IMAGE, Normalisation
from edged_calibration.recipe.labels import Truth

DRAWS: Final = 200
_SEED: Final = 20
_MEASURING: Final = {"score_threshold": 0.05, "max_detections": MAX_DETECTIONS}  # average precision wants the tail too

Run = Callable[[NDArray[np.uint8]], Mapping[str, NDArray[Any]]]
"""Pictures [n, height, width, 3] -> the outputs of the model by name."""

Answer = Boxes | NDArray[np.int64] | ClassMap | Embedding
"""The result of a model for one picture: its objects, its best classes in order, a class for each cell, or a vector."""


class Evaluation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`figures` are the metrics, 0..1; `metric` names the one that counts, and `draws` is that one on other draws.

    `alike`: of the pictures, how many have the most frequent answer that counts as right; of objects, how many have
    none. Where nearly all are alike, a correct file cannot be distinguished from a broken one.
    """

    metric: str
    figures: dict[str, float]
    images: int
    draws: list[float]
    alike: int = 0

    @property
    def value(self) -> float:
        return self.figures[self.metric]


@dataclass(frozen=True)
class Task:
    """What the model is for: its input, its decoder and its classes, as the manifest will have them."""

    input: InputSpec
    output: Decoder
    labels: tuple[str, ...]
    batch: int = 4
    """pictures that are run at once"""

    def decoder(self, measuring: bool) -> Decode:
        """The daemon's decoder; for measuring average precision with a low threshold and many detections."""
        output = self.output
        if isinstance(output, ClassifyDecoder):
            output = msgspec.structs.replace(output, top=5)
        elif measuring and isinstance(output, ObjectDecoder):
            output = msgspec.structs.replace(output, **_MEASURING)
        return decoder_for(output, self.input, len(self.labels))


def on_images(model: onnx.ModelProto, task: Task) -> Run:
    """Runs a file of a bundle, which takes pictures."""
    running, names = session(model), tensor_names(task.output)
    return lambda images: dict(zip(names, running.run(names, {IMAGE: images}), strict=True))


def on_planes(model: onnx.ModelProto, task: Task, normalisation: Normalisation) -> Run:
    """Runs a model that takes normalised planes."""
    running, names, entry = session(model), tensor_names(task.output), model.graph.input[0].name
    return lambda images: dict(zip(names, running.run(names, {entry: normalisation.planes(images)}), strict=True))


def answers(
    run: Run, frames: Frames, task: Task, progress: Advance = silent, measuring: bool = True
) -> tuple[list[Answer], list[Truth | None]]:
    """The result of the model for every picture, and the truth where it is known."""
    decode = task.decoder(measuring)
    found: list[Answer] = []
    truth: list[Truth | None] = []
    for start in range(0, len(frames), task.batch):
        pictures = [frames.read(number) for number in range(start, min(start + task.batch, len(frames)))]
        outputs = run(np.stack([picture.image for picture in pictures]))
        found += [_answer(decode, outputs, index, picture) for index, picture in enumerate(pictures)]
        truth += [picture.truth for picture in pictures]
        progress(len(found), len(frames))
    return found, truth


def _answer(decode: Decode, outputs: Mapping[str, NDArray[Any]], index: int, picture: Picture) -> Answer:
    seen = decode(outputs, index, picture.letterbox)
    match seen:
        case Detections():
            return Boxes(seen.boxes, seen.class_ids, seen.scores, None if plain(seen) else seen)
        case Classes():
            return seen.class_ids
        case _:
            return seen


def evaluate(
    run: Run, frames: Frames, task: Task, reference: Sequence[Answer] | None = None, progress: Advance = silent
) -> Evaluation:
    """Accuracy by the labels of the frames; where they have none, agreement with `reference`, the float model's."""
    found, truth = answers(run, frames, task, progress)
    labelled = truth[0] is not None
    if not labelled:
        if reference is None:
            raise ValueError("neither labels nor answers of the float model to compare with")
        truth = [_as_truth(answer) for answer in reference]
    if isinstance(task.output, SemanticDecoder | EmbedDecoder):
        return _likeness(found, reference or [])
    if isinstance(task.output, ClassifyDecoder):
        return _classification(cast("list[NDArray[np.int64]]", found), cast("list[int]", truth), labelled)
    return _detection(cast("list[Boxes]", found), cast("list[Boxes]", truth), labelled, len(task.labels))


def reference_answers(run: Run, frames: Frames, task: Task, progress: Advance = silent) -> list[Answer]:
    """The results of the float model, as the daemon would publish them: the truth where there are no labels."""
    return answers(run, frames, task, progress, measuring=False)[0]


def _as_truth(answer: Answer) -> Truth:
    return int(answer[0]) if isinstance(answer, np.ndarray) else cast("Boxes", answer)


def _classification(found: list[NDArray[np.int64]], truth: list[int], labelled: bool) -> Evaluation:
    first = np.array([answer[0] == right for answer, right in zip(found, truth, strict=True)], float)
    among = np.array([right in answer[:5] for answer, right in zip(found, truth, strict=True)], float)
    draws = [float(weights @ first) / len(first) for weights in _draws(len(first))]
    alike = int(np.bincount(truth).max())
    if labelled:
        figures = {"top1": _rounded(first.mean()), "top5": _rounded(among.mean())}
        return Evaluation("top1", figures, len(first), draws, alike)
    return Evaluation("agreement", {"agreement": _rounded(first.mean())}, len(first), draws, alike)


def _likeness(found: list[Answer], reference: Sequence[Answer]) -> Evaluation:
    """Of class maps the share of equal cells, of vectors the cosine: the mean over the pictures."""
    each, flat = [], 0
    for answer, right in zip(found, reference, strict=True):
        if isinstance(answer, ClassMap) and isinstance(right, ClassMap):
            each.append(float((answer.class_ids == right.class_ids).mean()))
            flat += int(right.class_ids.min() == right.class_ids.max())
        elif isinstance(answer, Embedding) and isinstance(right, Embedding):
            each.append(of_embeddings(answer, right))
    values = np.array(each)
    draws = [float(weights @ values) / len(values) for weights in _draws(len(values))]
    return Evaluation("agreement", {"agreement": _rounded(values.mean())}, len(values), draws, flat)


def _detection(found: list[Boxes], truth: list[Boxes], labelled: bool, classes: int) -> Evaluation:
    try:
        matched = matches(truth, found, classes)
    except ValueError as error:
        count = f"{len(truth)} of {len(truth)} validation pictures"
        what = f"no object is labelled in {count}" if labelled else f"the float model finds nothing in {count}"
        raise UsageError(f"{what}: nothing to measure", "give validation frames with objects in them") from error
    average = precision(matched)
    figures = (
        {"map50_95": average.mean(), "map50": average[0], "map75": average[5]}
        if labelled
        else {"agreement": average[0]}
    )
    metric = "map50_95" if labelled else "agreement"
    columns = slice(None) if labelled else slice(0, 1)
    draws = [float(precision(matched, weights)[columns].mean()) for weights in _draws(len(truth))]
    empty = sum(not len(boxes.classes) for boxes in truth)
    return Evaluation(metric, {name: _rounded(value) for name, value in figures.items()}, len(truth), draws, empty)


def _draws(pictures: int) -> list[NDArray[np.float64]]:
    """How often each picture is drawn; the same for the same number of pictures."""
    rng = np.random.default_rng(_SEED)
    return [rng.multinomial(pictures, np.full(pictures, 1 / pictures)).astype(float) for _ in range(DRAWS)]


def _rounded(value: float | np.floating[Any]) -> float:
    return round(float(value), 4)


class Scorer:
    """Scores models on some pictures against the labels, or where there are none against the float model's answers."""

    def __init__(self, model: onnx.ModelProto, frames: Frames, task: Task, normalisation: Normalisation) -> None:
        self._model, self._frames, self._task, self._normalisation = model, frames, task, normalisation

    def digest(self) -> str:
        """Of all that decides a score but the model that is scored."""
        return digest_of([self._model, self._frames, self._task, self._normalisation])

    @cached_property
    def _reference(self) -> list[Answer] | None:
        if self._frames.read(0).truth is not None:
            return None
        return reference_answers(on_planes(self._model, self._task, self._normalisation), self._frames, self._task)

    @cached_property
    def baseline(self) -> float:
        """The score of the float model itself."""
        return self(self._model)

    def __call__(self, model: onnx.ModelProto) -> float:
        """The score of a model on normalised planes: mAP, top-1 or agreement, 0..1, higher is better."""
        return self._evaluate(on_planes(model, self._task, self._normalisation)).value

    def evaluation(self, file: onnx.ModelProto | None, progress: Advance = silent) -> Evaluation:
        """The figures of a bundle's file, which takes pictures; of the float model itself for None."""
        run = on_planes(self._model, self._task, self._normalisation) if file is None else on_images(file, self._task)
        return self._evaluate(run, progress)

    def _evaluate(self, run: Run, progress: Advance = silent) -> Evaluation:
        return evaluate(run, self._frames, self._task, self._reference, progress)
