"""Filters, identities, events and attention of one camera."""

from __future__ import annotations

import numpy as np
import pytest

from edged.config import CameraConfig
from edged.regions import Line, ObjectFilter, Zone
from edged.tracking.camera_tracks import CameraTracks, Observed, TrackEvent

LABELS = ("person", "car")
SIZE = (1000, 500)
DOCK = Zone(polygon=[(0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0)], attention=3.0, attention_s=4.0)


def camera(**keys: object) -> CameraTracks:
    return CameraTracks(CameraConfig(name="gate", source="test://7", **keys), LABELS)  # type: ignore[arg-type]


def look(
    tracks: CameraTracks, at_s: float, *rows: tuple[float, float, float, float], score: float = 0.9, label: int = 0
) -> tuple[list[Observed], list[TrackEvent]]:
    n = len(rows)
    return tracks.look(
        at_s,
        SIZE,
        np.array(rows, np.float32).reshape(-1, 4),
        np.full(n, score, np.float32),
        np.full(n, label, np.int64),
    )


def at(x: float, bottom: float = 300.0) -> tuple[float, float, float, float]:
    return (x - 20, bottom - 80, x + 20, bottom)


def test_without_zones_lines_or_track_nobody_has_an_identity() -> None:
    tracks = camera()
    for n in range(4):
        observed, events = look(tracks, n / 10, at(100))
        assert observed == [Observed(0, None, ())] and events == []


def test_an_object_enters_and_ends_with_its_duration_and_best_score() -> None:
    tracks = camera(track=True)
    kinds = []
    for n in range(11):
        _, events = look(tracks, n / 10, at(100 + 5 * n), score=0.5 + 0.04 * n)
        kinds += [(n, e.event.kind) for e in events]
    assert kinds == [(1, "enter")]
    gone: list[TrackEvent] = []
    while not gone:
        n += 1
        gone = look(tracks, n / 10)[1]
    assert [e.event.kind for e in gone] == ["end"]
    assert gone[0].duration_s == pytest.approx(0.9) and gone[0].best_score == pytest.approx(0.9, abs=1e-6)
    assert gone[0].at_s == pytest.approx(1.0)


def test_the_bottom_centre_decides_where_an_object_is() -> None:
    low = Zone(polygon=[(0.0, 0.6), (1.0, 0.6), (1.0, 1.0), (0.0, 1.0)])
    tracks = camera(zones={"low": low})
    assert look(tracks, 0.0, at(100, bottom=310))[0][0].zones == ("low",)
    assert look(tracks, 0.1, at(100, bottom=290))[0][0].zones == ()


def test_masks_and_filters_leave_out_what_does_not_count() -> None:
    top = [(0.0, 0.0), (1.0, 0.0), (1.0, 0.5), (0.0, 0.5)]
    tracks = camera(mask=[top], objects={"person": ObjectFilter(min_score=0.6, min_area=0.004, max_area=0.1)})
    assert [o.row for o in look(tracks, 0.0, at(100, 200), at(100, 300))[0]] == [1]
    assert look(tracks, 0.1, at(100, 300), score=0.5)[0] == []
    assert look(tracks, 0.2, (0, 299, 1, 300))[0] == []  # too small
    assert look(tracks, 0.3, (0, 0, 900, 400))[0] == []  # too large
    assert len(look(tracks, 0.4, (0, 299, 1, 300), label=1)[0]) == 1  # no filter for cars


def test_an_entry_raises_the_weight_for_seconds() -> None:
    tracks = camera(zones={"dock": DOCK})
    for n, x in enumerate((300, 400, 480, 560, 600)):
        look(tracks, n / 2, at(x))
    assert tracks.attention(2.0) == 3.0  # entered at the fifth look, at 2 s
    assert tracks.attention(5.9) == 3.0
    assert tracks.attention(6.1) == 1.0


def test_a_crossing_says_where_to() -> None:
    tracks = camera(lines={"door": Line(start=(0.5, 0.0), end=(0.5, 1.0))})
    events = [e for n, x in enumerate((300, 400, 480, 560, 600)) for e in look(tracks, n / 2, at(x))[1]]
    assert [(e.event.kind, e.event.line, e.event.direction) for e in events][-1] == ("cross", "door", "left")
    assert events[-1].point == (pytest.approx(0.6), pytest.approx(0.6))
