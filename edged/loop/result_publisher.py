"""What the engine saw in one frame -> one `result` on the bus. Runs on the engine loop's thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from edged import clock
from edged.bus import schema
from edged.bus.publisher import Publisher
from edged.clock import NS_PER_MS, NS_PER_S
from edged.engines.engine import Outputs
from edged.frames.frame import Frame
from edged.loop.object_tracks import ObjectTracks
from edged.loop.seen_messages import seen_fields
from edged.vision.decoder import Decode
from edged.vision.letterbox import Letterbox
from edged.vision.results import Detections, Seen, best_score


@dataclass(frozen=True)
class Timing:
    """When a batch was begun, submitted and collected (monotonic), and the deadline in force."""

    start_ns: int
    submitted_ns: int
    collected_ns: int
    deadline_ms: float


class Decoded(NamedTuple):
    """What the engine saw in one frame: not sent yet, since a better variant may look again. `post_ms`: decoding."""

    objects: Seen
    post_ms: float

    def confidence(self) -> float | None:
        """The best score, which is the first; None where nothing was seen, rightly or wrongly."""
        return best_score(self.objects)


class ResultMeta(NamedTuple):
    """How a result came about: the variant, its batch, the estimated energy, and whether it is a second look."""

    variant: str
    batch: int
    energy_mj: float | None
    escalated: bool


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

    def publish(self, frame: Frame, seen: Decoded, made: ResultMeta, timing: Timing) -> bool:
        """Send it; whether it was on time."""
        latency = schema.Latency(
            queue=(timing.start_ns - frame.mono_capture_ns) / NS_PER_MS,
            pre=(timing.submitted_ns - timing.start_ns) / NS_PER_MS,
            infer=(timing.collected_ns - timing.submitted_ns) / NS_PER_MS,
            post=seen.post_ms,
        )
        objects = seen.objects
        if isinstance(objects, Detections) and self._tracks.watches(frame.camera):
            what = self._tracks.look(frame, objects)
        else:
            what = seen_fields(objects, self._labels)
        sent = self._publisher.publish(
            schema.Result(
                camera=frame.camera,
                frame=frame.frame,
                t_capture=frame.t_capture_ns / NS_PER_S,
                mono_capture_ns=frame.mono_capture_ns,
                variant=made.variant,
                batch=made.batch,
                latency_ms=latency,
                deadline_ms=timing.deadline_ms,
                energy_mj=made.energy_mj,
                width=frame.width,
                height=frame.height,
                ring=schema.RingRef(self._ring_name(frame.camera), frame.slot, frame.seq),
                escalated=made.escalated,
                **what,
            )
        )
        return sent.deadline_met
