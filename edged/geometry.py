"""Polygons and lines in shares of the picture: x from 0 (left) to 1, y from 0 (top) to 1. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

Point = tuple[float, float]

LEAST_AREA = 1e-4
"""of the picture: a hundredth of its width by a hundredth of its height"""


def area(polygon: Sequence[Point]) -> float:
    """Share of the picture, by the shoelace formula."""
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in _sides(polygon))) / 2


def contains(polygon: Sequence[Point], point: Point) -> bool:
    """Whether the point lies inside: a ray to the right crosses the boundary an odd number of times."""
    x, y = point
    inside = False
    for (x0, y0), (x1, y1) in _sides(polygon):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0):
            inside = not inside
    return inside


def side(start: Point, end: Point, point: Point) -> float:
    """Above 0: right of the line as one walks from start to end with y pointing down; its size is twice a triangle."""
    return (end[0] - start[0]) * (point[1] - start[1]) - (end[1] - start[1]) * (point[0] - start[0])


def crosses(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Whether the segments a-b and c-d meet in a point inside both, or an end of one lies on the other."""
    over = side(a, b, c) * side(a, b, d) <= 0 and side(c, d, a) * side(c, d, b) <= 0
    along = side(a, b, c) == side(a, b, d) == 0  # on one line: only their extents tell
    return over and (not along or _extents_meet(a, b, c, d))


def problem(polygon: Sequence[Point]) -> str | None:
    """Why this is no area, as the end of a sentence ("is ..."); None if it is one."""
    if len(polygon) < 3:
        return f"has {len(polygon)} corners, expected 3 or more"
    if any(a == b for a, b in _sides(polygon)):
        return "has the same corner twice in a row"
    sides = _sides(polygon)
    for (i, first), (j, second) in combinations(enumerate(sides), 2):
        apart = j - i not in (1, len(sides) - 1)
        if apart and crosses(*first, *second):
            return f"crosses itself between corners {i + 1} and {j + 1}"
    if area(polygon) < LEAST_AREA:
        return f"covers {area(polygon):.1e} of the picture, expected {LEAST_AREA} or more"
    return None


def covers_picture(polygons: Sequence[Sequence[Point]], steps: int = 50) -> bool:
    """Whether no point of a grid over the picture lies outside all polygons."""
    grid = [((i + 0.5) / steps, (j + 0.5) / steps) for i in range(steps) for j in range(steps)]
    return all(any(contains(polygon, point) for polygon in polygons) for point in grid)


def _sides(polygon: Sequence[Point]) -> list[tuple[Point, Point]]:
    return list(zip(polygon, [*polygon[1:], *polygon[:1]], strict=True))


def _extents_meet(a: Point, b: Point, c: Point, d: Point) -> bool:
    return all(max(min(p, q), min(r, s)) <= min(max(p, q), max(r, s)) for p, q, r, s in zip(a, b, c, d, strict=True))
