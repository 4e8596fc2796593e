"""Accuracy with and without labels, on the same draws for every file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edged.engines.decoder_spec import CenterDecoder, ClassifyDecoder
from edged.engines.manifest import InputSpec
from edged.errors import UsageError
from edged.synthetic.scene import LABELS
from edged_calibration.evaluate.metrics import DRAWS, Scorer, Task, evaluate, on_images, on_planes, reference_answers
from edged_calibration.recipe.frames import Frames, open_frames
from edged_calibration.recipe.input_normalisation import Normalisation, on_pictures
from tests.support.calibration import CLASSES, SIDE, classifier, pictures

SPEC = InputSpec(name="image", width=SIDE, height=SIDE)
TASK = Task(SPEC, ClassifyDecoder(logits="logits"), tuple(f"class-{n}" for n in range(CLASSES)))
NORMALISATION = Normalisation((120.0,) * 3, (60.0,) * 3)


@pytest.fixture
def frames(tmp_path: Path) -> Frames:
    pictures(tmp_path / "v", 40)
    return open_frames("v", tmp_path, SPEC, 1000)


def test_without_labels_the_float_model_is_the_truth(frames: Frames) -> None:
    run = on_planes(classifier(), TASK, NORMALISATION)
    reference = reference_answers(run, frames, TASK)
    same = evaluate(run, frames, TASK, reference)
    assert same.metric == "agreement" and same.value == 1 and same.images == 40 and set(same.draws) == {1.0}
    other = evaluate(on_planes(classifier(seed=9), TASK, NORMALISATION), frames, TASK, reference)
    assert other.value < 0.9 and len(other.draws) == DRAWS
    assert np.mean(other.draws) == pytest.approx(other.value, abs=0.03)


def test_a_file_on_pictures_answers_as_the_model_on_planes(frames: Frames) -> None:
    reference = reference_answers(on_planes(classifier(), TASK, NORMALISATION), frames, TASK)
    file = on_pictures(classifier(), NORMALISATION, "cast")
    assert evaluate(on_images(file, TASK), frames, TASK, reference).value == 1


def test_labels_give_top_1_and_top_5(frames: Frames, tmp_path: Path) -> None:
    message = reference_answers(on_planes(classifier(), TASK, NORMALISATION), frames, TASK)
    names = [frames.read(number).name for number in range(len(frames))]
    rows = []
    for number, (name, answer) in enumerate(zip(names, message, strict=True)):
        assert isinstance(answer, np.ndarray)
        rows.append(f"{name},{answer[0] if number % 4 else answer[3]}")  # right in three of four, among five in all
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    labelled = open_frames("v", tmp_path, SPEC, 1000, "labels.csv", TASK.labels)
    found = evaluate(on_planes(classifier(), TASK, NORMALISATION), labelled, TASK)
    assert found.metric == "top1" and found.figures == {"top1": 0.75, "top5": 1.0}


def test_a_detector_that_sees_nothing_leaves_nothing_to_agree_with() -> None:
    task = Task(SPEC, CenterDecoder(scores="s", boxes="b", stride=8), LABELS)
    unlabelled = open_frames("scene://1?count=6", Path(), SPEC, 10)

    def blind(images: np.ndarray) -> dict[str, np.ndarray]:
        return {"s": np.full((len(images), 8, 4, 4), -9.0), "b": np.ones((len(images), 4, 4, 4))}

    reference = reference_answers(blind, unlabelled, task)
    with pytest.raises(UsageError, match="the float model finds nothing"):
        evaluate(blind, unlabelled, task, reference)


def test_a_scorer_asks_many_models_the_same(frames: Frames) -> None:
    score = Scorer(classifier(), frames, TASK, NORMALISATION)
    assert score.baseline == 1 and score(classifier()) == 1 and score(classifier(seed=9)) < 0.9
