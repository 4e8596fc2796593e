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
    cold: bool


class SecondLook(NamedTuple):
    """The frame of a batch that was run again, and what is to be published of it instead."""

    place: int
    seen: Decoded
    made: ResultMeta
    timing: Timing


class CompletedBatch(NamedTuple):
    """A batch whose first results all came and are out; its lane still holds the input."""

    lane: int
    variant: str
    frames: Sequence[Frame]
    objects: Sequence[Seen]
    start_ns: int


class BatchExecutor:
    """`deadline_ms` and `weights` (by camera, 1 on average) are those in force."""

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
        self.weights: dict[str, float] = {}
        self.submitted_ns = 0

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
        cold = self._governor.cold(variant, submitted_ns)
        self._in_flight.append(Batch(lane, variant, whole, start_ns, submitted_ns, cold))

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
            collected_ns = clock.mono_ns()
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
        second = None
        if len(seen) == ran:
            self._governor.succeeded(batch.variant)
            second = self._told(batch, seen, made, timing)
        for index, (frame, what) in enumerate(zip(frames, seen, strict=False)):
            if second is None or index != second.place:
                self._publish(frame, what, made, timing)
        if second is not None:
            self._publish(frames[second.place], second.seen, second.made, second.timing)
        if second is not None or len(seen) < ran:
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

    def _told(self, batch: Batch, seen: list[Decoded], made: ResultMeta, timing: Timing) -> SecondLook | None:
        """Tell the governor of a batch that came back whole; the second look at one of its frames, if it has one."""
        frames, due_ns = batch.frames, int(self.deadline_ms * NS_PER_MS)
        scores = [what.confidence() for what in seen]
        scored = [index for index, score in enumerate(scores) if score is not None]
        done_ns = clock.mono_ns()
        ages_ns = [done_ns - frame.mono_capture_ns for frame in frames]
        service_ms = (done_ns - batch.start_ns) / NS_PER_MS
        done = BatchDone(
            batch.variant,
            len(frames),
            service_ms,
            max(0.0, max(ages_ns) / NS_PER_MS - service_ms),
            sum([age_ns > due_ns for age_ns in ages_ns]),
            confidences=tuple([score for score in scores if score is not None]),
            clock=self._governor.ceiling.clock,
            cold=batch.cold,
            cameras=tuple([frames[index].camera for index in scored]),
        )
        self._governor.ran(batch.variant, batch.submitted_ns, timing.collected_ns)
        self._governor.observe(done, done_ns)
        self._reporter.batch_done(batch.variant, len(frames), service_ms)
        if not scored or self._in_flight:
            return None
        doubtful = min(range(len(scored)), key=done.confidences.__getitem__)
        index = scored[doubtful]
        weight = self.weights.get(frames[index].camera, 1.0)
        variant = self._governor.again(done, doubtful, ages_ns[index] / NS_PER_MS, weight, clock.mono_ns())
        return None if variant is None else self._look_again(batch, index, variant, made, timing)

    def _look_again(
        self, batch: Batch, index: int, variant: str, first: ResultMeta, timing: Timing
    ) -> SecondLook | None:
        """Run one frame of a collected batch on another variant: its pixels are still in the lane. None if that fails:
        then the first result is as good as it was."""
        frame, begun_ns = batch.frames[index], clock.mono_ns()
        cold = self._governor.cold(variant, begun_ns)
        try:
            outputs = self._pool.run_alone(batch.lane, index, variant)
            collected_ns = clock.mono_ns()
            seen = self._result_publisher.decode(outputs, 0, self._letterboxer.geometry(frame.width, frame.height))
        except EdgedError as error:
            failure = error if isinstance(error, VariantError) else VariantError(variant, error.message)
            self._governor.failed(failure, clock.mono_ns())
            return None
        self._governor.succeeded(variant)
        done_ns = clock.mono_ns()
        service_ms = (done_ns - begun_ns) / NS_PER_MS
        late = done_ns - frame.mono_capture_ns > self.deadline_ms * NS_PER_MS
        score = seen.confidence()
        confidences, cameras = ((), ()) if score is None else ((score,), (frame.camera,))
        lead_ms = (begun_ns - frame.mono_capture_ns) / NS_PER_MS
        self._governor.ran(variant, begun_ns, collected_ns)
        self._governor.observe(
            BatchDone(
                variant, 1, service_ms, lead_ms, int(late), confidences, clock=self._governor.ceiling.clock, cold=cold,
                again=True, cameras=cameras,
            ),
            done_ns,
        )  # fmt: skip
        self._reporter.batch_done(variant, 1, service_ms)
        energy_mj = self._governor.energy_mj(variant, 1)
        if energy_mj is not None and first.energy_mj is not None:
            energy_mj += first.energy_mj
        timing = Timing(timing.start_ns, timing.submitted_ns, collected_ns, timing.deadline_ms)
        return SecondLook(index, seen, ResultMeta(variant, 1, energy_mj, True), timing)

    def _publish(self, frame: Frame, seen: Decoded, made: ResultMeta, timing: Timing) -> None:
        on_time = self._result_publisher.publish(frame, seen, made, timing)
        self._cameras.count_result(frame.camera)
        self._reporter.published(made.variant, on_time)

    def _lost(self, frames: Sequence[Frame], error: VariantError) -> None:
        """The engine gave no result for these frames."""
        for frame in frames:
            self._cameras.count_drop(frame.camera, "engine")
        self._governor.failed(error, clock.mono_ns())
