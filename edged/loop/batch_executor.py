"""Chosen frames through the engine: prepared, submitted, collected, decoded, published. On the engine loop's thread.

In: frames and the variant they shall run on. Out: one result each on the bus, or a drop with its cause. A frame of
which the result is in doubt may be run again on a better variant before anything of it is published: then only that
second result is. With an engine of several lanes the next batch is prepared while the one before still runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from edged import clock
from edged.clock import NS_PER_MS
from edged.engines.cuda import CudaError
from edged.engines.pool import Pool, VariantError
from edged.errors import EdgedError
from edged.frames.cameras import Cameras
from edged.frames.frame import DropCause, Frame
from edged.governor.messages import BatchDone
from edged.loop.governor_client import GovernorClient
from edged.loop.result_publisher import Decoded, ResultMeta, ResultPublisher, Timing
from edged.loop.status_reporter import StatusReporter
from edged.vision.letterbox import GpuLetterboxer, Letterboxer
from edged.vision.results import Seen


@dataclass
class Batch:
    """What is in flight on one lane. Times are of the monotonic clock."""

    lane: int
    variant: str
    frames: list[Frame]
    start_ns: int
    submitted_ns: int


class CompletedBatch(NamedTuple):
    """A batch whose first results all came and are out; its lane still holds the input."""

    lane: int
    variant: str
    frames: Sequence[Frame]
    objects: Sequence[Seen]
    start_ns: int


class BatchExecutor:
    """`deadline_ms` is the one in force."""

    def __init__(
        self,
        cameras: Cameras,
        pool: Pool,
        letterboxer: Letterboxer | GpuLetterboxer,
        result_publisher: ResultPublisher,
        governor: GovernorClient,
        reporter: StatusReporter,
    ) -> None:
        self._cameras = cameras
        self._pool = pool
        self._letterboxer = letterboxer
        self._result_publisher = result_publisher
        self._governor = governor
        self._reporter = reporter
        self._free_lanes = deque(range(pool.lanes))
        self._in_flight: deque[Batch] = deque()
        self.deadline_ms = 0.0
        self.submitted_ns = 0
        self._collected_ns = 0

    @property
    def can_start(self) -> bool:
        return bool(self._free_lanes)

    @property
    def busy(self) -> bool:
        return bool(self._in_flight)

    def free_ns(self, now_ns: int) -> int:
        """When the engine can begin: after what is in flight, as far as can be told."""
        if not self._in_flight:
            return now_ns
        busy_ms = 0.0
        for batch in self._in_flight:
            predict_ms = self._governor.predict_ms(batch.variant)
            busy_ms += predict_ms[len(batch.frames) - 1] if len(batch.frames) <= len(predict_ms) else 0.0
        return max(now_ns, self._in_flight[0].submitted_ns + int(busy_ms * NS_PER_MS))

    def start(self, frames: Sequence[Frame], variant: str, start_ns: int) -> None:
        """Prepare and submit a batch on a free lane."""
        lane = self._free_lanes[0]
        whole: list[Frame] = []
        try:
            self._prepare(frames, lane, variant, whole)
            if not whole:
                return
            submitted_ns = clock.mono_ns()
            self._pool.submit(lane, len(whole), variant)
        except VariantError as error:
            self._lost(whole, error)
            return
        self.submitted_ns = submitted_ns
        self._free_lanes.popleft()
        self._in_flight.append(Batch(lane, variant, whole, start_ns, submitted_ns))

    def finish(self) -> CompletedBatch | None:
        """Collect the oldest batch in flight and publish its frames. What is returned is good until the next start."""
        batch = self._in_flight.popleft()
        try:
            return self._finish(batch)
        finally:
            self._free_lanes.append(batch.lane)

    def dropped(self, frame: Frame, cause: DropCause) -> None:
        """A frame that was handed on gives no result."""
        self._cameras.count_drop(frame.camera, cause)
        self._cameras.taken(frame)
        self._governor.dropped(cause)

    def _prepare(self, frames: Sequence[Frame], lane: int, variant: str, whole: list[Frame]) -> None:
        """Scale each frame into the lane, and add those that arrived whole. What tore a frame is a newer one of its
        camera, which the next turn takes: that is the retry. VariantError if the GPU takes no picture: then all frames
        are in `whole`, or counted."""
        for index, frame in enumerate(frames):
            geometry = self._letterboxer.geometry(frame.width, frame.height)
            try:
                self._letterboxer.fill(geometry, self._cameras.pixels(frame), frame.format, lane, len(whole))
            except CudaError as error:
                for lost in frames[index:]:
                    whole.append(lost)
                    self._cameras.taken(lost)
                raise VariantError(variant, error.message) from error
            except EdgedError:  # its ring is gone: the camera was reopened meanwhile
                self.dropped(frame, "torn")
                continue
            if self._letterboxer.reads_late or self._cameras.intact(frame):
                whole.append(frame)
                self._cameras.taken(frame)
            else:
                self.dropped(frame, "torn")

    def _finish(self, batch: Batch) -> CompletedBatch | None:
        seen: list[Decoded] = []
        ran = len(batch.frames)
        try:
            outputs = self._pool.collect(batch.lane)
            collected_before_ns, collected_ns = self._collected_ns, clock.mono_ns()
            self._collected_ns = collected_ns
            places = self._still_whole(batch)
            frames = batch.frames = [batch.frames[place] for place in places]
            for index, frame in zip(places, frames, strict=True):
                geometry = self._letterboxer.geometry(frame.width, frame.height)
                seen.append(self._result_publisher.decode(outputs, index, geometry))
        except VariantError as error:
            self._lost(batch.frames, error)
            return None
        except EdgedError as error:  # an output that is no number; the frames before it are good
            self._lost(frames[len(seen) :], VariantError(batch.variant, error.message))
        timing = Timing(batch.start_ns, batch.submitted_ns, collected_ns, self.deadline_ms)
        made = ResultMeta(batch.variant, ran, self._governor.energy_mj(batch.variant, ran), False)
        if len(seen) == ran:
            self._governor.succeeded(batch.variant)
            self._observe(batch, timing, collected_before_ns)
        for frame, what in zip(frames, seen, strict=False):
            self._publish(frame, what, made, timing)
        if len(seen) < ran:
            return None
        return CompletedBatch(batch.lane, batch.variant, frames, [what.objects for what in seen], batch.start_ns)

    def _still_whole(self, batch: Batch) -> Sequence[int]:
        """The places of the frames whose pixels were their own for as long as the engine read them. Looked at all at
        once: while the first is decoded, a camera may already write where the last one lay."""
        if not self._letterboxer.reads_late:
            return range(len(batch.frames))
        places = [place for place, frame in enumerate(batch.frames) if self._cameras.intact(frame)]
        for place in set(range(len(batch.frames))) - set(places):
            self._cameras.count_drop(batch.frames[place].camera, "torn")
            self._governor.dropped("torn")
        return places

    def _observe(self, batch: Batch, timing: Timing, collected_before_ns: int) -> None:
        """Report a batch that came back whole to the governor. Its wait behind another lane's batch is no part of its
        service: the engine was its own from when the batch before was collected."""
        frames, due_ns, done_ns = batch.frames, int(self.deadline_ms * NS_PER_MS), clock.mono_ns()
        ages_ns = [done_ns - frame.mono_capture_ns for frame in frames]
        behind_ns = max(0, min(collected_before_ns, timing.collected_ns) - batch.submitted_ns)
        service_ms = (done_ns - batch.start_ns - behind_ns) / NS_PER_MS
        done = BatchDone(
            batch.variant,
            len(frames),
            service_ms,
            max(0.0, max(ages_ns) / NS_PER_MS - service_ms),
            sum([age_ns > due_ns for age_ns in ages_ns]),
            self._governor.gpu_clock.clock,
        )
        self._governor.ran(batch.variant, batch.submitted_ns, timing.collected_ns)
        self._governor.observe(done, done_ns)
        self._reporter.batch_done(batch.variant, len(frames), service_ms)

    def _publish(self, frame: Frame, seen: Decoded, made: ResultMeta, timing: Timing) -> None:
        on_time = self._result_publisher.publish(frame, seen, made, timing)
        self._cameras.count_result(frame.camera)
        self._reporter.published(made.variant, on_time)

    def _lost(self, frames: Sequence[Frame], error: VariantError) -> None:
        """The engine gave no result for these frames."""
        for frame in frames:
            self._cameras.count_drop(frame.camera, "engine")
        self._governor.failed(error, clock.mono_ns())
