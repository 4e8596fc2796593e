"""Zones and lines of one camera: where each track stands in, what it entered, left, crossed and stayed in out. Pure.

Judged by the bottom centre of the box, in shares of the picture: where an object touches the ground. A change counts
when two looks in a row agree, so that a box that trembles on a border tells nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from edged.geometry import Point, contains, crosses, side
from edged.regions import Line, Zone

AGREEING: Final = 2
"""looks in a row"""

Kind = Literal["enter", "leave", "cross", "stay", "end"]
Direction = Literal["left", "right"]


@dataclass(frozen=True)
class ZoneEvent:
    """`since_s`: when the track entered the zone. `direction` of a crossing: to which side, seen along the line."""

    kind: Kind
    zone: str | None = None
    line: str | None = None
    direction: Direction | None = None
    since_s: float | None = None


@dataclass
class _Inside:
    """One track and one zone."""

    inside: bool = False
    differs: int = 0
    first_s: float = 0.0
    stayed: bool = False


@dataclass
class _Side:
    """One track and one line: the last point on the side that counts, and what was seen beyond it since."""

    right: bool
    point: Point
    differs: int = 0
    crossed: bool = False


@dataclass
class _Track:
    zones: dict[str, _Inside] = field(default_factory=dict)
    sides: dict[str, _Side] = field(default_factory=dict)


class ZoneWatch:
    def __init__(self, zones: Mapping[str, Zone], lines: Mapping[str, Line]) -> None:
        self._zones, self._lines = zones, lines
        self._tracks: dict[int, _Track] = {}

    def zones_at(self, point: Point) -> tuple[str, ...]:
        """The names of the zones that hold the point."""
        return tuple(name for name, zone in self._zones.items() if contains(zone.polygon, point))

    def look(self, track: int, point: Point, at_s: float) -> list[ZoneEvent]:
        """What happened to the track, now that it is seen at `point` at `at_s`."""
        known = self._tracks.get(track)
        if known is None:
            known = self._tracks[track] = _Track()
        events: list[ZoneEvent] = []
        for name, zone in self._zones.items():
            events += self._in_zone(known.zones.setdefault(name, _Inside()), name, zone, point, at_s)
        for name, line in self._lines.items():
            events += self._at_line(known.sides, name, line, point)
        return events

    def end(self, track: int) -> list[ZoneEvent]:
        """The track is over: it leaves the zones that it was in."""
        known = self._tracks.pop(track, _Track())
        return [ZoneEvent("leave", zone=n, since_s=z.first_s) for n, z in known.zones.items() if z.inside]

    def _in_zone(self, at: _Inside, name: str, zone: Zone, point: Point, at_s: float) -> list[ZoneEvent]:
        if contains(zone.polygon, point) == at.inside:
            at.differs = 0
        else:
            at.differs += 1
            if at.differs == 1 and not at.inside:
                at.first_s = at_s
            if at.differs >= AGREEING:
                at.inside, at.differs, at.stayed = not at.inside, 0, False
                return [ZoneEvent("enter" if at.inside else "leave", zone=name, since_s=at.first_s)]
        if at.inside and not at.stayed and zone.stay_s is not None and at_s - at.first_s >= zone.stay_s:
            at.stayed = True
            return [ZoneEvent("stay", zone=name, since_s=at.first_s)]
        return []

    def _at_line(self, sides: dict[str, _Side], name: str, line: Line, point: Point) -> list[ZoneEvent]:
        right = side(line.start, line.end, point) > 0
        at = sides.get(name)
        if at is None:
            sides[name] = _Side(right, point)
            return []
        if right == at.right:
            at.point, at.differs, at.crossed = point, 0, False
            return []
        at.differs += 1
        at.crossed |= crosses(at.point, point, line.start, line.end)
        if at.differs < AGREEING:
            return []
        crossed = at.crossed
        sides[name] = _Side(right, point)
        return [ZoneEvent("cross", line=name, direction="right" if right else "left")] if crossed else []
