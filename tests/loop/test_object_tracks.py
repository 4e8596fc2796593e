"""Detections in, results with identities and `track` messages out; and which camera counts more."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from edged.bus import schema
from edged.bus.publisher import Publisher
from edged.clock import NS_PER_MS, NS_PER_S
from edged.config import CameraConfig
from edged.frames.frame import Frame, PixelFormat
from edged.loop.object_tracks import ObjectTracks, weights
from edged.regions import ObjectFilter, Zone
from edged.vision.results import Detections

LABELS = ("person", "car")
RIGHT = Zone(polygon=[(0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0)], attention=3.0, attention_s=2.0)


class Sent:
    """Takes what a publisher would."""

    def __init__(self) -> None:
        self.messages: list[schema.Track] = []

    def publish(self, message: schema.Track) -> schema.Track:
        self.messages.append(message)
        return message


def tracks_of(*cameras: CameraConfig) -> tuple[ObjectTracks, Sent]:
    sent = Sent()
    tracks = ObjectTracks(cast(Publisher, sent), LABELS)
    tracks.configure(cameras)
    return tracks, sent


def camera(name: str = "gate", **keys: Any) -> CameraConfig:
    return CameraConfig(name=name, source="test://7", **keys)


def frame(at_ms: int, name: str = "gate") -> Frame:
    wall_ns = 1_700_000_000 * NS_PER_S
    return Frame(
        camera=name,
        frame=at_ms,
        t_capture_ns=wall_ns + at_ms * NS_PER_MS,
        mono_capture_ns=at_ms * NS_PER_MS,
        width=1000,
        height=500,
        format=PixelFormat.BGR24,
        slot=0,
        seq=2,
        clock="arrival",
    )


def seen(*xs: float, score: float = 0.9) -> Detections:
    boxes = np.array([(x - 20, 220, x + 20, 300) for x in xs], np.float32).reshape(-1, 4)
    return Detections(boxes, np.full(len(xs), score, np.float32), np.zeros(len(xs), np.int64))


def test_a_camera_that_asks_for_nothing_is_left_alone() -> None:
    tracks, _ = tracks_of(camera())
    assert not tracks.watches("gate")


def test_a_result_names_track_and_zones_and_messages_tell_what_happened() -> None:
    tracks, sent = tracks_of(camera(zones={"dock": RIGHT}))
    for n, x in enumerate((400, 440, 480, 520, 560)):
        fields = tracks.look(frame(n * 500), seen(x))
    (detection,) = fields["detections"]
    assert (detection.track, detection.zones, detection.label) == (1, ("dock",), "person")
    assert [(m.kind, m.zone, m.track) for m in sent.messages] == [("enter", None, 1), ("enter", "dock", 1)]
    assert sent.messages[1].t_capture == pytest.approx(1_700_000_002.0)
    assert sent.messages[1].point == (pytest.approx(0.56), pytest.approx(0.6))
    assert sent.messages[1].duration_s == pytest.approx(0.5)  # it was in the dock for one look before


def test_an_end_is_dated_when_the_object_was_last_seen() -> None:
    tracks, sent = tracks_of(camera(track=True))
    for n in range(3):
        tracks.look(frame(n * 100), seen(400))
    at_ms = 300
    while not sent.messages or sent.messages[-1].kind != "end":
        tracks.look(frame(at_ms), seen())
        at_ms += 100
        assert at_ms < 10_000
    assert sent.messages[-1].t_capture == pytest.approx(1_700_000_000.2)


def test_filters_alone_leave_the_detections_without_tracks() -> None:
    tracks, sent = tracks_of(camera(objects={"person": ObjectFilter(min_score=0.5)}))
    assert tracks.look(frame(0), seen(100, 300, score=0.4)) == {"detections": []}
    (detection,) = tracks.look(frame(100), seen(100))["detections"]
    assert detection.track is detection.zones is schema.Detection("", 0, 0.0, (0, 0, 0, 0)).track
    assert sent.messages == []


def test_attention_comes_with_an_entry_and_goes_with_time() -> None:
    tracks, _ = tracks_of(camera(zones={"dock": RIGHT}), camera("yard"))
    for n, x in enumerate((480, 520, 560)):
        tracks.look(frame(n * 500), seen(x))
    assert tracks.attention_changed(1_000 * NS_PER_MS) and tracks.attention == {"gate": 3.0}
    assert not tracks.attention_changed(1_500 * NS_PER_MS)
    assert tracks.attention_changed(3_100 * NS_PER_MS) and tracks.attention == {}


def test_weights_are_one_on_average() -> None:
    assert weights({"a": 1.0, "b": 1.0}, {"a": 3.0}) == {"a": 1.5, "b": 0.5}
    assert weights({"a": 2.0, "b": 6.0}, {}) == {"a": 0.5, "b": 1.5}


def test_a_reload_keeps_the_tracks_of_a_camera_whose_table_is_as_before() -> None:
    gate = camera(track=True)
    tracks, _ = tracks_of(gate)
    for n in range(2):
        tracks.look(frame(n * 100), seen(400))
    tracks.configure([gate, camera("yard", track=True)])
    assert tracks.look(frame(200), seen(400))["detections"][0].track == 1
    tracks.configure([camera(track=True, weight=2.0)])
    assert tracks.look(frame(250), seen(400))["detections"][0].track == 1
    tracks.configure([camera(track=True, rotate=90)])
    assert tracks.look(frame(300), seen(400))["detections"][0].track is not 1  # noqa: F632
