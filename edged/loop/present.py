"""What the engine saw in one frame -> one `result` on the bus. Runs on the engine loop's thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msgspec import UNSET

from edged import clock
from edged.bus import schema
from edged.bus.publisher import Publisher
from edged.clock import NS_PER_MS, NS_PER_S
from edged.engines.engine import Outputs
from edged.frames.frame import Frame
from edged.vision.classify import Classes
from edged.vision.decoder import Decode
from edged.vision.detect import Detections
from edged.vision.letterbox import Letterbox


@dataclass(frozen=True)
class Timing:
    """When a batch was begun, submitted and collected (monotonic), and the deadline in force."""

    start_ns: int
    submitted_ns: int
    collected_ns: int
    deadline_ms: float


class Presenter:
    def __init__(
        self, publisher: Publisher, decode: Decode, labels: Sequence[str], ring_name: Callable[[str], str]
    ) -> None:
        self._publisher = publisher
        self._decode = decode
        self._labels = tuple(labels)
        self._ring_name = ring_name

    def publish(
        self,
        frame: Frame,
        variant: str,
        batch: int,
        outputs: Outputs,
        index: int,
        letterbox: Letterbox,
        timing: Timing,
    ) -> bool:
        """Decode frame `index` of the batch and send it; whether it was on time. EdgedError if an output is no
        number."""
        begun_ns = clock.mono_ns()
        seen = self._decode(outputs, index, letterbox)
        latency = schema.Latency(
            queue=(timing.start_ns - frame.mono_capture_ns) / NS_PER_MS,
            pre=(timing.submitted_ns - timing.start_ns) / NS_PER_MS,
            infer=(timing.collected_ns - timing.submitted_ns) / NS_PER_MS,
            post=(clock.mono_ns() - begun_ns) / NS_PER_MS,
        )
        sent = self._publisher.publish(
            schema.Result(
                camera=frame.camera,
                frame=frame.frame,
                t_capture=frame.t_capture_ns / NS_PER_S,
                mono_capture_ns=frame.mono_capture_ns,
                variant=variant,
                batch=batch,
                latency_ms=latency,
                deadline_ms=timing.deadline_ms,
                energy_mj=None,
                width=frame.width,
                height=frame.height,
                ring=schema.RingRef(self._ring_name(frame.camera), frame.slot, frame.seq),
                detections=self._detections(seen) if isinstance(seen, Detections) else UNSET,
                classes=self._classes(seen) if isinstance(seen, Classes) else UNSET,
            )
        )
        return sent.deadline_met

    def _detections(self, seen: Detections) -> list[schema.Detection]:
        labels = self._labels
        return [
            schema.Detection(labels[class_id], class_id, score, (box[0], box[1], box[2], box[3]))
            for class_id, score, box in zip(
                seen.class_ids.tolist(), seen.scores.tolist(), seen.boxes.tolist(), strict=True
            )
        ]

    def _classes(self, seen: Classes) -> list[schema.ClassScore]:
        labels = self._labels
        return [
            schema.ClassScore(labels[class_id], class_id, score)
            for class_id, score in zip(seen.class_ids.tolist(), seen.scores.tolist(), strict=True)
        ]
