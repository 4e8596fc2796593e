"""Mean average precision on cases that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.evaluate import Boxes, mean_average_precision


def boxes(*rows: tuple[float, float, float, float, int, float]) -> Boxes:
    """From rows of (x0, y0, x1, y1, class, score)."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Boxes(table[:, :4], table[:, 4].astype(int), table[:, 5])


TRUTH = [boxes((0, 0, 10, 10, 0, 1), (20, 20, 60, 60, 1, 1)), boxes((5, 5, 25, 15, 0, 1)), boxes()]


def test_the_truth_scores_one():
    accuracy = mean_average_precision(TRUTH, TRUTH, 2)
    assert accuracy.figures() == {"map50_95": 1.0, "map50": 1.0, "map75": 1.0}
    assert accuracy.images == 3


def test_nothing_found_scores_zero():
    assert mean_average_precision(TRUTH, [boxes()] * 3, 2).map50 == 0


def test_half_of_a_class_found_scores_half():
    found = [TRUTH[0], boxes(), boxes()]  # class 0: one of two, class 1: its only one
    assert mean_average_precision(TRUTH, found, 2).map50 == pytest.approx((51 / 101 + 1) / 2)


def test_a_loose_box_counts_at_loose_thresholds_only():
    truth = [boxes((0, 0, 10, 10, 0, 1))]
    accuracy = mean_average_precision(truth, [boxes((0, 0, 10, 16, 0, 0.9))], 1)  # IoU 0.625: passes .50, .55, .60
    assert accuracy.map50 == pytest.approx(1) and accuracy.map75 == 0
    assert accuracy.map50_95 == pytest.approx(0.3)


def test_a_confident_false_alarm_costs_precision():
    truth = [boxes((0, 0, 10, 10, 0, 1))]
    below = mean_average_precision(truth, [boxes((0, 0, 10, 10, 0, 0.9), (50, 50, 60, 60, 0, 0.3))], 1)
    above = mean_average_precision(truth, [boxes((0, 0, 10, 10, 0, 0.9), (50, 50, 60, 60, 0, 0.95))], 1)
    assert (below.map50, above.map50) == pytest.approx((1, 0.5))


def test_the_wrong_class_does_not_count():
    truth = [boxes((0, 0, 10, 10, 0, 1))]
    assert mean_average_precision(truth, [boxes((0, 0, 10, 10, 1, 0.9))], 2).map50 == 0


def test_a_set_without_objects_or_of_another_length_is_refused():
    with pytest.raises(ValueError, match="no object"):
        mean_average_precision([boxes()], [boxes()], 2)
    with pytest.raises(ValueError, match="3 pictures"):
        mean_average_precision(TRUTH, TRUTH[:2], 2)
