"""What is entered, left, crossed and stayed in."""

from __future__ import annotations

from edged.regions import Line, Zone
from edged.tracking.zones import ZoneEvent, ZoneWatch

RIGHT = Zone(polygon=[(0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0)], stay_s=2.0)
MIDDLE = Line(start=(0.5, 0.0), end=(0.5, 1.0))  # downwards: its right is the picture's left


def walk(watch: ZoneWatch, xs: list[float], track: int = 1, y: float = 0.5) -> list[tuple[int, ZoneEvent]]:
    return [(n, event) for n, x in enumerate(xs) for event in watch.look(track, (x, y), n * 0.5)]


def test_entering_counts_from_the_first_look_inside_and_is_reported_at_the_second() -> None:
    events = walk(ZoneWatch({"dock": RIGHT}, {}), [0.3, 0.4, 0.6, 0.7])
    assert events == [(3, ZoneEvent("enter", zone="dock", since_s=1.0))]


def test_a_box_that_trembles_on_the_border_tells_nothing() -> None:
    assert walk(ZoneWatch({"dock": RIGHT}, {"door": MIDDLE}), [0.49, 0.51] * 10) == []


def test_staying_is_reported_once_and_leaving_ends_it() -> None:
    kinds = [(n, e.kind) for n, e in walk(ZoneWatch({"dock": RIGHT}, {}), [0.6] * 10 + [0.3] * 3 + [0.6] * 8)]
    assert kinds == [(1, "enter"), (4, "stay"), (11, "leave"), (14, "enter"), (17, "stay")]


def test_a_line_is_crossed_with_its_direction() -> None:
    there, back = [0.4, 0.45, 0.55, 0.6], [0.55, 0.45, 0.4]
    events = walk(ZoneWatch({}, {"door": MIDDLE}), there + back)
    assert [(n, e.direction) for n, e in events] == [(3, "left"), (6, "right")]


def test_past_the_end_of_a_line_nothing_is_crossed() -> None:
    short = Line(start=(0.5, 0.0), end=(0.5, 0.2))
    assert walk(ZoneWatch({}, {"door": short}), [0.4, 0.45, 0.55, 0.6], y=0.8) == []


def test_a_fast_object_that_jumps_over_a_line_crosses_it() -> None:
    events = walk(ZoneWatch({}, {"door": MIDDLE}), [0.1, 0.9, 0.95])
    assert [e.kind for _, e in events] == ["cross"]


def test_tracks_do_not_share_what_they_did() -> None:
    watch = ZoneWatch({"dock": RIGHT}, {})
    assert [e.kind for _, e in walk(watch, [0.6, 0.6], track=1)] == ["enter"]
    assert [e.kind for _, e in walk(watch, [0.6, 0.6], track=2)] == ["enter"]


def test_a_track_that_ends_leaves_its_zones() -> None:
    watch = ZoneWatch({"dock": RIGHT}, {})
    walk(watch, [0.6, 0.6])
    assert watch.end(1) == [ZoneEvent("leave", zone="dock", since_s=0.0)]
    assert watch.end(1) == []


def test_zones_at_a_point() -> None:
    left = Zone(polygon=[(0.0, 0.0), (0.6, 0.0), (0.6, 1.0), (0.0, 1.0)])
    watch = ZoneWatch({"dock": RIGHT, "yard": left}, {})
    assert watch.zones_at((0.55, 0.5)) == ("dock", "yard")
    assert watch.zones_at((0.2, 0.5)) == ("yard",)
