"""Objects over time, camera by camera: a frame's detections in; those that count and `track` messages out.

Runs on the engine loop's thread, for the cameras whose configuration asks for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from edged.bus import schema
from edged.bus.publisher import Publisher
from edged.clock import NS_PER_S
from edged.config import CameraConfig
from edged.frames.frame import Frame
from edged.loop.result_fields import result_fields
from edged.loop.snapshots import Snapshots
from edged.tracking.camera_tracks import CameraTracks, Observed, TrackEvent
from edged.vision.results import Detections


class ObjectTracks:
    """`attention` is by camera: the factor by which it counts more just now, 1 for those not named."""

    def __init__(self, publisher: Publisher, labels: Sequence[str], snapshots: Snapshots | None = None) -> None:
        self._snapshots = snapshots
        self._publisher = publisher
        self._labels = tuple(labels)
        self._configs: dict[str, CameraConfig] = {}
        self._tracks: dict[str, CameraTracks] = {}
        self.attention: dict[str, float] = {}

    def configure(self, cameras: Sequence[CameraConfig]) -> None:
        """Take these cameras; one of which nothing changed but rate and weight keeps its tracks."""
        before, self._tracks = self._tracks, {}
        for camera in cameras:
            if not (camera.tracked or camera.mask or camera.objects):
                continue
            known = self._configs.get(camera.name)
            same = known is not None and known.same_stream(camera)
            self._tracks[camera.name] = before[camera.name] if same else CameraTracks(camera, self._labels)
        self._configs = {camera.name: camera for camera in cameras}

    def watches(self, camera: str) -> bool:
        return camera in self._tracks

    def look(self, frame: Frame, detections: Detections) -> dict[str, Any]:
        """The fields of the frame's result: the detections that count, with their tracks and zones. Publishes what
        happened to them."""
        tracks = self._tracks[frame.camera]
        observed, events = tracks.look(
            frame.mono_capture_ns / NS_PER_S,
            (frame.width, frame.height),
            detections.boxes,
            detections.scores,
            detections.class_ids,
        )
        fields = result_fields(detections.pick([o.row for o in observed]), self._labels)
        if self._snapshots is not None:
            for one in observed:
                if one.track is not None:
                    x0, y0, x1, y1 = detections.boxes[one.row].tolist()
                    self._snapshots.offer(frame, one.track, (x0, y0, x1, y1), float(detections.scores[one.row]))
        for event in events:
            self._publish(frame, event)
        if not tracks.tracked:
            return fields
        return {"detections": [_tracked(d, o) for d, o in zip(fields["detections"], observed, strict=True)]}

    def attention_changed(self, now_ns: int) -> bool:
        """Whether the cameras that deserve more weight have changed."""
        now_s = now_ns / NS_PER_S
        found = {name: factor for name, tracks in self._tracks.items() if (factor := tracks.attention(now_s)) > 1.0}
        changed = found != self.attention
        self.attention = found
        return changed

    def _publish(self, frame: Frame, happened: TrackEvent) -> None:
        event = happened.event
        snapshot = None
        if self._snapshots is not None:
            snapshot = self._snapshots.write(frame.camera, happened.track, last=event.kind == "end")
        ago_s = frame.mono_capture_ns / NS_PER_S - happened.at_s
        self._publisher.publish(
            schema.Track(
                camera=frame.camera,
                kind=event.kind,
                track=happened.track,
                label=self._labels[happened.class_id],
                class_id=happened.class_id,
                t_capture=frame.t_capture_ns / NS_PER_S - max(ago_s, 0.0),
                box=happened.box,
                point=happened.point,
                duration_s=round(happened.duration_s, 3),
                best_score=happened.best_score,
                zone=event.zone,
                line=event.line,
                direction=event.direction,
                snapshot=snapshot,
            )
        )


def _tracked(detection: schema.Detection, observed: Observed) -> schema.Detection:
    fields = {name: getattr(detection, name) for name in detection.__struct_fields__}
    if observed.track is not None:
        fields["track"] = observed.track
    return schema.Detection(**(fields | {"zones": observed.zones}))


def weights(cameras: dict[str, float], attention: dict[str, float]) -> dict[str, float]:
    """Of each camera, 1 on average, from its configured weight and what it attracts just now."""
    raw = {name: weight * attention.get(name, 1.0) for name, weight in cameras.items()}
    mean = math.fsum(raw.values()) / max(1, len(raw))
    return {name: weight / mean for name, weight in raw.items()}
