"""Identities through noise, gaps, low rates and crossings, and how they end."""

from __future__ import annotations

import numpy as np
import pytest

from edged.tracking.kalman import BoxFilters
from edged.tracking.tracker import COUNTED_GAP_S, LOST_S, Ended, Tracker

Rows = list[tuple[float, float, float, float]]


def look(tracker: Tracker, at_s: float, rows: Rows, scores: float | list[float] = 0.9, classes: int = 0) -> list[int]:
    boxes = np.array(rows, float).reshape(-1, 4)
    n = len(rows)
    given = np.full(n, scores) if isinstance(scores, float) else np.array(scores)
    return tracker.update(at_s, boxes, given, np.full(n, classes, np.int64))[0].tolist()


def box(x: float, y: float = 100.0, side: float = 40.0) -> tuple[float, float, float, float]:
    return (x - side / 2, y - side / 2, x + side / 2, y + side / 2)


def test_an_object_gets_its_identity_on_second_sight_and_keeps_it() -> None:
    tracker = Tracker()
    seen = [look(tracker, n / 10, [box(100 + 3 * n)]) for n in range(20)]
    assert seen[0] == [0] and all(ids == [1] for ids in seen[1:])


@pytest.mark.parametrize("fps", [30.0, 10.0, 5.0, 2.0])
def test_a_crowd_that_moves_keeps_its_identities_at_any_rate(fps: float) -> None:
    """160 pixels a second: at 5 fps a box of 40 pixels has nearly left its own place between two frames."""
    tracker = Tracker()
    seen: dict[int, set[int]] = {}
    for n in range(int(4 * fps)):
        rows = [box(160 * n / fps + 150 * k, 100 + 60 * (k % 2)) for k in range(6)]
        for k, identity in enumerate(look(tracker, n / fps, rows)):
            if identity:
                seen.setdefault(k, set()).add(identity)
    if fps >= 5:
        assert all(len(ids) == 1 for ids in seen.values())
    assert len(seen) == 6


def test_frames_that_nobody_looked_at_end_no_track() -> None:
    """A still object, a gap of a minute for the sake of a budget: the same object."""
    tracker = Tracker()
    for n in range(5):
        look(tracker, n / 10, [box(100)])
    assert look(tracker, 60.0, []) == []
    assert look(tracker, 60.1, [box(101)]) == [1]


def test_a_track_ends_after_frames_and_seconds_without_it_and_tells_when_it_was_seen() -> None:
    tracker = Tracker()
    for n in range(5):
        look(tracker, n / 10, [box(100)])
    at_s = 0.4
    over: list[Ended] = []
    while not over:
        at_s += 0.1
        over = tracker.update(at_s, np.empty((0, 4)), np.empty(0), np.empty(0, np.int64))[1]
        assert at_s < 5
    assert (over[0].track, over[0].seen_s) == (1, pytest.approx(0.4))
    assert at_s - 0.4 == pytest.approx(LOST_S, abs=0.11)


def test_at_a_low_rate_a_gap_counts_for_half_a_second_at_most() -> None:
    tracker = Tracker()
    for n in range(3):
        look(tracker, n * 5.0, [box(100)])
    needed = 0
    while look(tracker, 15.0 + 5.0 * needed, []) == [] and tracker.speeds():
        needed += 1
        assert needed < 10
    assert needed + 1 == max(3, round(LOST_S / COUNTED_GAP_S))


def test_an_unsure_detection_continues_a_track_and_begins_none() -> None:
    tracker = Tracker()
    for n in range(3):
        look(tracker, n / 10, [box(100)])
    assert look(tracker, 0.3, [box(101), box(500)], [0.35, 0.35]) == [1, 0]
    assert look(tracker, 0.4, [box(101), box(500)], [0.9, 0.35]) == [1, 0]


def test_two_labels_on_one_object_are_one_track() -> None:
    tracker = Tracker()
    for n in range(6):
        ids = look(tracker, n / 10, [box(100 + n), box(101 + n)], [0.9, 0.8])
    assert sorted(ids) == [0, 1] and len(tracker.speeds()) == 1


def test_two_objects_that_cross_keep_their_identities() -> None:
    tracker = Tracker()
    for n in range(40):
        ids = look(tracker, n / 20, [box(100 + 10 * n, 100), box(500 - 10 * n, 112)])
    assert ids == [1, 2]


def test_speeds_are_pixels_per_second() -> None:
    tracker = Tracker()
    for n in range(30):
        look(tracker, n / 15, [box(100 + 6 * n, 100 - 2 * n)])
    assert tracker.speeds()[1] == (pytest.approx(90, rel=0.05), pytest.approx(-30, rel=0.05))


def test_the_filter_is_the_textbooks() -> None:
    """One axis of one box against the matrices written out."""
    from edged.tracking import kalman

    filters = BoxFilters()
    filters.add(np.array([[80.0, 80.0, 120.0, 120.0]]), None)
    scale = 40.0**2
    x, p = np.array([100.0, 0.0]), np.diag([kalman.MEASUREMENT**2 * scale, kalman.FIRST_SPEED**2 * scale])
    h = np.array([[1.0, 0.0]])
    for n, measured in enumerate((104.0, 109.0, 116.0), 1):
        dt = 0.1 * n
        f = np.array([[1, dt], [0, 1]])
        q = kalman.ACCELERATION**2 * filters.size.prod() * np.array([[dt**4 / 4, dt**3 / 2], [dt**3 / 2, dt**2]])
        x, p = f @ x, f @ p @ f.T + q
        filters.predict(dt)
        r = kalman.MEASUREMENT**2 * filters.size.prod()
        gain = p @ h.T / (h @ p @ h.T + r)
        x, p = x + gain[:, 0] * (measured - x[0]), (np.eye(2) - gain @ h) @ p
        filters.update(np.array([0]), np.array([[measured - 20, 80.0, measured + 20, 120.0]]))
        assert filters.centre[0, 0] == pytest.approx(x[0]) and filters.speed[0, 0] == pytest.approx(x[1])
        assert filters.covariance[0] == pytest.approx([p[0, 0], p[0, 1], p[1, 1]])
