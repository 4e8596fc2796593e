"""Areas, sides and crossings, by figures that can be checked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.geometry import area, contains, covers_picture, crosses, problem, side

SQUARE = [(0.2, 0.2), (0.6, 0.2), (0.6, 0.6), (0.2, 0.6)]


def test_area_of_a_square_either_way_round() -> None:
    assert area(SQUARE) == pytest.approx(0.16)
    assert area(SQUARE[::-1]) == pytest.approx(0.16)


@pytest.mark.parametrize(
    "point, inside", [((0.4, 0.4), True), ((0.1, 0.4), False), ((0.7, 0.4), False), ((0.4, 0.61), False)]
)
def test_contains(point: tuple[float, float], inside: bool) -> None:
    assert contains(SQUARE, point) is inside


def test_a_notch_is_outside() -> None:
    notched = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.3), (0.0, 1.0)]
    assert not contains(notched, (0.5, 0.6)) and contains(notched, (0.1, 0.6))


@given(st.floats(0, 1), st.floats(0, 1))
def test_four_quadrants_share_no_point_and_miss_none(x: float, y: float) -> None:
    quadrants = [[(a, b), (a + 0.5, b), (a + 0.5, b + 0.5), (a, b + 0.5)] for a in (0.0, 0.5) for b in (0.0, 0.5)]
    if x < 1 and y < 1:
        assert sum(contains(q, (x, y)) for q in quadrants) == 1


def test_right_of_a_line_that_runs_to_the_right_is_below() -> None:
    assert side((0, 0.5), (1, 0.5), (0.5, 0.9)) > 0 > side((0, 0.5), (1, 0.5), (0.5, 0.1))


@pytest.mark.parametrize(
    "c, d, meet",
    [
        ((0.5, 0.0), (0.5, 1.0), True),
        ((0.5, 0.6), (0.5, 1.0), False),
        ((0.2, 0.5), (0.4, 0.5), True),  # along it
        ((1.2, 0.5), (1.4, 0.5), False),  # on the same line, beyond its end
        ((1.0, 0.5), (1.0, 0.9), True),  # touching its end
    ],
)
def test_segments_meet(c: tuple[float, float], d: tuple[float, float], meet: bool) -> None:
    assert crosses((0.0, 0.5), (1.0, 0.5), c, d) is meet


@pytest.mark.parametrize(
    "polygon, message",
    [
        (SQUARE[:2], "2 corners"),
        ([(0, 0), (1, 1), (1, 0), (0, 1)], "crosses itself between corners 1 and 3"),
        ([(0, 0), (0, 0), (1, 0), (1, 1)], "same corner twice"),
        ([(0, 0), (0.5, 0.5), (1, 1)], "covers 0.0e+00 of the picture"),
        ([(0, 0), (0.005, 0), (0.005, 0.005)], "covers 1.3e-05"),
    ],
)
def test_what_is_no_area(polygon: list[tuple[float, float]], message: str) -> None:
    assert message in str(problem(polygon))


def test_an_area_has_no_problem() -> None:
    assert problem(SQUARE) is None
    assert problem([(0, 0), (1, 0), (1, 1), (0.5, 0.3), (0, 1)]) is None


def test_two_halves_cover_the_picture_and_one_does_not() -> None:
    left, right = [(0, 0), (0.5, 0), (0.5, 1), (0, 1)], [(0.5, 0), (1, 0), (1, 1), (0.5, 1)]
    assert covers_picture([left, right])
    assert not covers_picture([left])
