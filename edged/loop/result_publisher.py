"""What the engine saw in one frame -> one `result` on the bus. Runs on the engine loop's thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from msgspec import UNSET

from edged import clock
from edged.bus import schema
from edged.bus.publisher import Publisher
from edged.clock import NS_PER_MS, NS_PER_S
from edged.engines.engine import Outputs
from edged.frames.frame import Frame
from edged.loop.object_tracks import ObjectTracks
from edged.loop.result_fields import result_fields
from edged.vision.decoder import Decode
from edged.vision.letterbox import Letterbox
from edged.vision.results import Detections, Predictions


class BatchMeta(NamedTuple):
    """What the results of a batch have in common: the variant, the size of the batch, the estimated energy of one
    frame, the deadline in force, and when the batch was begun, submitted and collected (monotonic)."""

    variant: str
    size: int
    energy_mj: float | None
    deadline_ms: float
    start_ns: int
    submitted_ns: int
    collected_ns: int


class Decoded(NamedTuple):
    """What the engine saw in one frame, and how long decoding took. `tiles`: columns by rows; None: in the whole."""

    objects: Predictions
    post_ms: float
    tiles: str | None = None


class ResultPublisher:
    def __init__(
        self,
        publisher: Publisher,
        decode: Decode,
        labels: Sequence[str],
        ring_name: Callable[[str], str],
        tracks: ObjectTracks,
    ) -> None:
        self._publisher = publisher
        self._decode = decode
        self._labels = tuple(labels)
        self._ring_name = ring_name
        self._tracks = tracks

    def decode(self, outputs: Outputs, index: int, letterbox: Letterbox) -> Decoded:
        """Frame `index` of the batch. EdgedError if an output is no number."""
        begun_ns = clock.mono_ns()
        objects = self._decode(outputs, index, letterbox)
        return Decoded(objects, (clock.mono_ns() - begun_ns) / NS_PER_MS)

    def publish(self, frame: Frame, decoded: Decoded, batch: BatchMeta) -> bool:
        """Send it; whether it was on time."""
        latency = schema.Latency(
            queue=(batch.start_ns - frame.mono_capture_ns) / NS_PER_MS,
            pre=(batch.submitted_ns - batch.start_ns) / NS_PER_MS,
            infer=(batch.collected_ns - batch.submitted_ns) / NS_PER_MS,
            post=decoded.post_ms,
        )
        objects = decoded.objects
        if isinstance(objects, Detections) and self._tracks.watches(frame.camera):
            fields = self._tracks.look(frame, objects)
        else:
            fields = result_fields(objects, self._labels)
        sent = self._publisher.publish(
            schema.Result(
                camera=frame.camera,
                frame=frame.frame,
                t_capture=frame.t_capture_ns / NS_PER_S,
                mono_capture_ns=frame.mono_capture_ns,
                variant=batch.variant,
                batch=batch.size,
                latency_ms=latency,
                deadline_ms=batch.deadline_ms,
                energy_mj=batch.energy_mj,
                width=frame.width,
                height=frame.height,
                ring=schema.RingRef(self._ring_name(frame.camera), frame.slot, frame.seq),
                tiles=decoded.tiles or UNSET,
                **fields,
            )
        )
        return sent.deadline_met
