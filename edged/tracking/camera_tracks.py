"""One camera's objects over time: the detections of a frame in; which count, who they are and what they did out. Pure.

First the camera's filters (mask, scores, areas), then identities, then zones and lines. Runs where results are made;
each camera has its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edged.config import CameraConfig
from edged.geometry import Point, contains
from edged.tracking.tracker import UNTRACKED, Tracker
from edged.tracking.zones import ZoneEvent, ZoneWatch

Indices = NDArray[np.intp]


class Observed(NamedTuple):
    """A detection that passed the filters, by its row. `track` is None while it has no identity."""

    row: int
    track: int | None
    zones: tuple[str, ...]


@dataclass(frozen=True)
class TrackEvent:
    """What a track did. `box` in pixels and `at_s` are those of its last sight; `duration_s` counts from the first, for
    a zone's events from when it was entered."""

    event: ZoneEvent
    track: int
    class_id: int
    box: tuple[float, float, float, float]
    point: Point
    at_s: float
    duration_s: float
    best_score: float


@dataclass
class _Life:
    first_s: float
    last_s: float
    class_id: int
    best_score: float
    box: tuple[float, float, float, float]
    point: Point


class CameraTracks:
    """`labels` are the model's, by class id."""

    def __init__(self, config: CameraConfig, labels: Sequence[str]) -> None:
        self._mask = config.mask
        self._filters = [config.objects.get(label) for label in labels]
        self._filtered = bool(config.mask) or any(self._filters)
        self.tracked = config.tracked
        self._tracker = Tracker()
        self._watch = ZoneWatch(config.zones, config.lines)
        self._attention = {name: zone for name, zone in config.zones.items() if zone.attention > 1.0}
        self._attention_until: dict[str, float] = {}
        self._lives: dict[int, _Life] = {}

    def look(
        self,
        at_s: float,
        size: tuple[int, int],
        boxes: NDArray[np.float32],
        scores: NDArray[np.float32],
        class_ids: NDArray[np.int64],
    ) -> tuple[list[Observed], list[TrackEvent]]:
        """What counts of a frame captured at `at_s` (seconds of one clock), and what happened. `size`: width and height
        of the picture in pixels; `boxes` [N, 4] in its pixels, `scores` and `class_ids` [N]."""
        points = bottom_centres(boxes, size)
        kept = self._kept(boxes, scores, class_ids, size, points) if self._filtered else np.arange(len(boxes))
        if not self.tracked:
            return [Observed(int(i), None, ()) for i in kept], []
        identities, ended = self._tracker.update(
            at_s, boxes[kept].astype(np.float64), scores[kept].astype(np.float64), class_ids[kept]
        )
        observed, events = [], []
        for i, identity in zip(kept.tolist(), identities.tolist(), strict=True):
            observed.append(Observed(i, identity or None, self._watch.zones_at(points[i])))
            if identity != UNTRACKED:
                box: tuple[float, float, float, float] = tuple(boxes[i].tolist())
                events += self._seen(identity, at_s, int(class_ids[i]), float(scores[i]), box, points[i])
        for gone in ended:
            events += self._gone(gone.track)
        return observed, events

    def attention(self, at_s: float) -> float:
        """By which factor the camera counts more just now, 1 if nothing holds."""
        return max(
            (zone.attention for name, zone in self._attention.items() if at_s < self._attention_until.get(name, 0.0)),
            default=1.0,
        )

    def _kept(
        self,
        boxes: NDArray[np.float32],
        scores: NDArray[np.float32],
        class_ids: NDArray[np.int64],
        size: tuple[int, int],
        points: list[Point],
    ) -> Indices:
        whole = float(size[0] * size[1])
        keep = []
        for i, class_id in enumerate(class_ids.tolist()):
            wanted = self._filters[class_id]
            if wanted is not None:
                x0, y0, x1, y1 = boxes[i].tolist()
                share = (x1 - x0) * (y1 - y0) / whole
                if scores[i] < wanted.min_score or not wanted.min_area <= share <= wanted.max_area:
                    continue
            if not any(contains(polygon, points[i]) for polygon in self._mask):
                keep.append(i)
        return np.array(keep, np.intp)

    def _seen(
        self, track: int, at_s: float, class_id: int, score: float, box: tuple[float, float, float, float], point: Point
    ) -> list[TrackEvent]:
        life = self._lives.get(track)
        events: list[TrackEvent] = []
        if life is None:
            life = self._lives[track] = _Life(at_s, at_s, class_id, score, box, point)
            events.append(self._event(track, life, ZoneEvent("enter")))
        life.last_s, life.box, life.point = at_s, box, point
        if score > life.best_score:
            life.best_score, life.class_id = score, class_id
        for event in self._watch.look(track, point, at_s):
            if event.kind == "enter" and event.zone in self._attention:
                self._attention_until[event.zone] = at_s + self._attention[event.zone].attention_s
            events.append(self._event(track, life, event))
        return events

    def _gone(self, track: int) -> list[TrackEvent]:
        left = self._watch.end(track)
        life = self._lives.pop(track, None)
        return [] if life is None else [self._event(track, life, event) for event in (*left, ZoneEvent("end"))]

    def _event(self, track: int, life: _Life, event: ZoneEvent) -> TrackEvent:
        since_s = life.first_s if event.since_s is None else event.since_s
        return TrackEvent(
            event, track, life.class_id, life.box, life.point, life.last_s, life.last_s - since_s, life.best_score
        )


def bottom_centres(boxes: NDArray[np.float32], size: tuple[int, int]) -> list[Point]:
    """Of each box, in shares of the picture of `size` (width, height)."""
    width, height = size
    return [((x0 + x1) / 2 / width, y1 / height) for x0, _, x1, y1 in boxes.tolist()]
