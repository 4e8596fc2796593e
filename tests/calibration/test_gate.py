"""The gate judges the drop together with how well it is known, and its refusal says where to look."""

from __future__ import annotations

import numpy as np

from edged_calibration.evaluate.gate import judge, refusal
from edged_calibration.evaluate.metrics import DRAWS, Evaluation


def measured(value: float, spread: float = 0.001, images: int = 1000, seed: int = 0) -> Evaluation:
    draws = value + spread * np.random.default_rng(seed).standard_normal(DRAWS)
    return Evaluation("map50_95", {"map50_95": value}, images, draws.tolist())


WHOLE = measured(0.78, spread=0.0)
LIMIT = 1.5


def test_a_small_drop_passes_and_has_an_interval() -> None:
    verdict = judge("a.onnx", WHOLE, measured(0.772), LIMIT)
    assert verdict.passed and verdict.drop == 0.8 and verdict.limit == 1.5
    assert verdict.low < 0.8 < verdict.high and 0.08 < verdict.standard_error < 0.12


def test_a_drop_above_the_limit_is_refused_with_numbers() -> None:
    verdict = judge("a.onnx", WHOLE, measured(0.70), LIMIT)
    assert not verdict.passed
    assert "8.00 points (0.7800 to 0.7000), 1.5 are allowed" in verdict.reason


def test_a_drop_known_too_loosely_asks_for_more_pictures() -> None:
    verdict = judge("a.onnx", WHOLE, measured(0.770, spread=0.02), LIMIT)
    assert not verdict.passed and verdict.drop < verdict.limit
    assert "with 1000 pictures" in verdict.reason and "measure on more" in verdict.reason


def test_paired_draws_cancel_what_both_models_share() -> None:
    shared = np.random.default_rng(1).standard_normal(DRAWS) * 0.03
    whole = Evaluation("top1", {"top1": 0.8}, 300, (0.8 + shared).tolist())
    found = Evaluation("top1", {"top1": 0.79}, 300, (0.79 + shared).tolist())
    verdict = judge("a.onnx", whole, found, LIMIT)
    assert verdict.passed and verdict.standard_error < 0.001


def test_the_refusal_names_the_worst_file_and_its_layers() -> None:
    verdicts = [
        judge(name, WHOLE, measured(value), LIMIT)
        for name, value in (("good.onnx", 0.78), ("bad.onnx", 0.74), ("worst.onnx", 0.5))
    ]
    assert refusal(verdicts[:1], {}) is None
    found = refusal(verdicts, {"worst.onnx": ["head", "stem", "neck", "tail"], "bad.onnx": ["other"]})
    assert found is not None
    message, hint = found
    assert "worst.onnx fails the gate" in message and "1 more" in message
    assert "head, stem, neck first" in hint and "other" not in hint
