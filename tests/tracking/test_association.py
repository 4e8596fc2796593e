"""Costs and assignment."""

from __future__ import annotations

import numpy as np
import pytest

from edged.tracking.association import NO_PAIR, OTHER_CLASS, assign, costs, iou
from edged.tracking.kalman import BoxFilters

A = np.array([[0.0, 0.0, 10.0, 10.0]])
NONE = np.zeros(1, np.int64)


def filters_of(*boxes: list[float]) -> BoxFilters:
    filters = BoxFilters()
    filters.add(np.array(boxes, float), None)
    return filters


@pytest.mark.parametrize(
    "other, value", [([0, 0, 10, 10], 1.0), ([5, 0, 15, 10], 1 / 3), ([20, 20, 30, 30], 0.0), ([0, 0, 10, 5], 0.5)]
)
def test_iou(other: list[float], value: float) -> None:
    assert iou(A, np.array([other], float))[0, 0] == pytest.approx(value)


def test_overlap_is_cheaper_than_distance_and_too_far_is_impossible() -> None:
    filters = filters_of([0, 0, 40, 40])
    filters.predict(0.2)  # what is unknown of the speed reaches some boxes far
    boxes = np.array([[2, 0, 42, 40], [45, 0, 85, 40], [400, 0, 440, 40]], float)
    found = costs(filters, NONE, boxes, np.zeros(3, np.int64))[0]
    assert found[0] < 1 < found[1] < NO_PAIR <= found[2]


def test_another_size_does_not_pair_by_distance() -> None:
    filters = filters_of([0, 0, 40, 40])
    filters.predict(0.2)
    small = np.array([[50.0, 10.0, 60.0, 20.0]])
    assert costs(filters, NONE, small, NONE)[0, 0] >= NO_PAIR


def test_another_class_costs_and_is_possible() -> None:
    filters = filters_of([0, 0, 40, 40])
    box = np.array([[1.0, 0, 41, 40]])
    same, other = costs(filters, NONE, box, NONE)[0, 0], costs(filters, NONE, box, NONE + 1)[0, 0]
    assert other == pytest.approx(same + OTHER_CLASS)


def test_the_assignment_is_the_cheapest_as_a_whole() -> None:
    rows, columns = assign(np.array([[0.1, 0.2], [0.15, 1.9]]))
    assert dict(zip(rows.tolist(), columns.tolist(), strict=True)) == {0: 1, 1: 0}


def test_no_pair_is_made_of_what_is_impossible() -> None:
    rows, _ = assign(np.array([[NO_PAIR, NO_PAIR]]))
    assert len(rows) == 0
    assert len(assign(np.empty((0, 3)))[0]) == 0
