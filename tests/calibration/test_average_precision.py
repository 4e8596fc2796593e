"""Mean average precision on cases that can be worked out by hand, and against pycocotools' own sum."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from edged_calibration.evaluate.average_precision import Boxes, _entries, matches, precision


def boxes(*rows: tuple[float, float, float, float, int, float]) -> Boxes:
    """From rows of (x0, y0, x1, y1, class, score)."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Boxes(table[:, :4], table[:, 4].astype(int), table[:, 5])


def scored(truth: list[Boxes], found: list[Boxes], classes: int) -> tuple[float, float, float]:
    """mAP over all thresholds, at 0.50, at 0.75."""
    averages = precision(matches(truth, found, classes))
    return float(averages.mean()), float(averages[0]), float(averages[5])


TRUTH = [boxes((0, 0, 10, 10, 0, 1), (20, 20, 60, 60, 1, 1)), boxes((5, 5, 25, 15, 0, 1)), boxes()]


def test_the_truth_scores_one() -> None:
    assert scored(TRUTH, TRUTH, 2) == pytest.approx((1, 1, 1))


def test_nothing_found_scores_zero() -> None:
    assert scored(TRUTH, [boxes()] * 3, 2)[1] == 0


def test_half_of_a_class_found_scores_half() -> None:
    found = [TRUTH[0], boxes(), boxes()]  # class 0: one of two, class 1: its only one
    assert scored(TRUTH, found, 2)[1] == pytest.approx((51 / 101 + 1) / 2)


def test_a_loose_box_counts_at_loose_thresholds_only() -> None:
    found = scored([boxes((0, 0, 10, 10, 0, 1))], [boxes((0, 0, 10, 16, 0, 0.9))], 1)  # IoU 0.625: passes three of ten
    assert found == pytest.approx((0.3, 1, 0))


def test_a_confident_false_alarm_costs_precision() -> None:
    truth = [boxes((0, 0, 10, 10, 0, 1))]
    below = scored(truth, [boxes((0, 0, 10, 10, 0, 0.9), (50, 50, 60, 60, 0, 0.3))], 1)
    above = scored(truth, [boxes((0, 0, 10, 10, 0, 0.9), (50, 50, 60, 60, 0, 0.95))], 1)
    assert (below[1], above[1]) == pytest.approx((1, 0.5))


def test_the_wrong_class_does_not_count() -> None:
    assert scored([boxes((0, 0, 10, 10, 0, 1))], [boxes((0, 0, 10, 10, 1, 0.9))], 2)[1] == 0


def test_a_set_without_objects_or_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="no object"):
        matches([boxes()], [boxes()], 2)
    with pytest.raises(ValueError, match="3 pictures"):
        matches(TRUTH, TRUTH[:2], 2)


def noisy_sets(pictures: int, seed: int = 0) -> tuple[list[Boxes], list[Boxes]]:
    """Objects of three classes, and detections of them that are a little off, missing or invented."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for _ in range(pictures):
        count = int(rng.integers(0, 6))
        corner = rng.uniform(0, 200, (count, 2))
        corners = np.concatenate([corner, corner + rng.uniform(10, 60, (count, 2))], axis=1)
        classes = rng.integers(0, 3, count)
        truth.append(Boxes(corners, classes, np.ones(count)))
        kept = rng.random(count) < 0.8
        extra = rng.uniform(0, 200, (int(rng.integers(0, 3)), 2))
        moved = np.concatenate([corners[kept] + rng.normal(0, 2, (kept.sum(), 4)), np.hstack([extra, extra + 30])])
        kinds = np.concatenate([classes[kept], rng.integers(0, 3, len(extra))])
        found.append(Boxes(moved, kinds, np.round(rng.random(len(moved)), 2)))  # rounded: equal scores happen
    return truth, found


def test_the_sum_is_that_of_pycocotools() -> None:
    truth, found = noisy_sets(60)
    annotations = [entry for number, item in enumerate(truth) for entry in _entries(number, item)]
    for identity, entry in enumerate(annotations, start=1):
        entry |= {"id": identity, "iscrowd": 0}
    results = [
        entry | {"score": float(score)}
        for number, item in enumerate(found)
        for entry, score in zip(_entries(number, item), item.scores, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = {
            "info": {},
            "images": [{"id": n} for n in range(60)],
            "annotations": annotations,
            "categories": [{"id": n} for n in range(3)],
        }
        reference.createIndex()
        theirs = COCOeval(reference, reference.loadRes(results), "bbox")
        theirs.evaluate()
        theirs.accumulate()
    per_iou = theirs.eval["precision"][:, :, :, 0, -1].mean(axis=(1, 2))
    assert precision(matches(truth, found, 3)) == pytest.approx(per_iou, abs=1e-9)
    assert 0.1 < per_iou.mean() < 0.9


def test_a_weight_of_two_is_the_picture_twice() -> None:
    truth, found = noisy_sets(12, seed=3)
    weights = np.ones(12)
    weights[4], weights[7] = 2, 0
    numbers = [*range(7), *range(8, 12), 4]
    again = precision(matches([truth[n] for n in numbers], [found[n] for n in numbers], 3))
    assert precision(matches(truth, found, 3), weights) == pytest.approx(again, abs=0.01)
