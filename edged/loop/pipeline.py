"""The engine loop: frames of the cameras in, results on the bus out. Runs on the daemon's main thread.

One turn: wait for a camera, take the newest frames, let the schedule choose a batch, scale it straight out of shared
memory into the engine's input, run it on the variant that the governor's decision names, decode, publish. With an
engine of several lanes the next batch is prepared while the one before still runs.

Other threads reach it only through `Calls`, which run between two batches.
"""

from __future__ import annotations

import selectors
from collections import deque
from dataclasses import dataclass
from typing import Final

from edged import clock
from edged.clock import NS_PER_MS, NS_PER_S
from edged.config import CameraConfig, Limits
from edged.engines.cuda import CudaError
from edged.engines.engine import Outputs
from edged.engines.pool import Pool, VariantError
from edged.errors import EdgedError
from edged.frames.cameras import Cameras, check_sources
from edged.frames.frame import DropCause, Frame
from edged.frames.schedule import Scheduler
from edged.governor.decision import BatchDone, Workload
from edged.health import Heartbeats
from edged.loop.calls import Calls
from edged.loop.present import Presenter, Timing
from edged.loop.reports import Reports
from edged.loop.steering import Steering
from edged.vision.letterbox import GpuLetterboxer, Letterboxer

STAGE: Final = "pipeline"
LONGEST_WAIT_NS: Final = NS_PER_S // 2
PROBE_AFTER_NS: Final = NS_PER_S // 4
"""With no batch for so long, the next frame runs whatever the prediction says: predictions are learnt from batches
alone, so one that lets no frame through would never be corrected."""
SLACK_MS: Final = 0.5
"""Kept free before each deadline: publishing and the wake-up of this thread."""


@dataclass
class Batch:
    """What is in flight on one lane. Times are of the monotonic clock."""

    lane: int
    variant: str
    frames: list[Frame]
    start_ns: int
    submitted_ns: int


class Pipeline:
    def __init__(
        self,
        selector: selectors.BaseSelector,
        calls: Calls,
        cameras: Cameras,
        pool: Pool,
        letterboxer: Letterboxer | GpuLetterboxer,
        presenter: Presenter,
        steering: Steering,
        reports: Reports,
        heartbeats: Heartbeats,
    ) -> None:
        self._selector = selector
        self._calls = calls
        self._cameras = cameras
        self._pool = pool
        self._letterboxer = letterboxer
        self._presenter = presenter
        self._steering = steering
        self._reports = reports
        self._heartbeats = heartbeats
        self._schedule = Scheduler()
        self._weights: dict[str, float] = {}
        self._deadline_ms = 0.0
        self._free_lanes = deque(range(pool.lanes))
        self._in_flight: deque[Batch] = deque()
        self._submitted_ns = 0
        self._stopping = False

    def configure(self, cameras: list[CameraConfig], limits: Limits) -> None:
        """Take these cameras and limits. UsageError, and nothing changed, if it cannot."""
        now_ns = clock.mono_ns()
        check_sources(cameras)
        self.set_limits(limits)
        while self._in_flight:  # a camera may go, and its ring with it
            self._finish_batch()
        self._cameras.configure(cameras, now_ns)
        for gone in self._weights.keys() - {camera.name for camera in cameras}:
            self._schedule.forget(gone)
        self._weights = {camera.name: camera.weight for camera in cameras}
        # Until the cameras are live and counted: as if each gave a frame at once, at no particular rate.
        self._steering.observe(Workload(len(cameras), 0.0, 0), now_ns)

    def set_limits(self, limits: Limits) -> None:
        """UsageError, and nothing changed, if no variant could hold them."""
        self._steering.set_limits(limits, clock.mono_ns())
        self._deadline_ms = limits.deadline_ms

    def stop(self) -> None:
        """End `run` after the turn in hand. From any thread, and from signal handlers."""
        self._stopping = True
        self._calls.wake()

    def run(self) -> None:
        """Turns until `stop`; then what is in flight is finished and what waits is counted."""
        while not self._stopping:
            self._turn()
        while self._in_flight:
            self._finish_batch()
        for camera in self._weights:
            drop = self._schedule.forget(camera)
            if drop is not None:
                self._dropped(drop.frame, "shutdown")
        self._reports.publish(clock.mono_ns())
        self._heartbeats.idle(STAGE)

    def _turn(self) -> None:
        self._wait()
        self._calls.run()
        now_ns = clock.mono_ns()
        self._cameras.tick(now_ns)
        self._reports.publish_changes(now_ns)
        self._take_fresh()
        if now_ns >= self._reports.due_ns:
            self._steering.observe(self._reports.workload(now_ns), now_ns)
            self._reports.publish(now_ns)
        if len(self._schedule) and self._free_lanes:
            self._start_batch()
        if self._in_flight and not (self._free_lanes and len(self._schedule)):
            self._finish_batch()

    def _wait(self) -> None:
        """Until a camera speaks, a call comes or something is due; not at all while there is work."""
        timeout_s = 0.0
        if not len(self._schedule) and not self._in_flight:
            now_ns = clock.mono_ns()
            wake_ns = min(self._cameras.next_wake_ns(), self._reports.due_ns, now_ns + LONGEST_WAIT_NS)
            timeout_s = max(0, wake_ns - now_ns) / NS_PER_S
            self._heartbeats.idle(STAGE)
        ready = self._selector.select(timeout_s)
        self._heartbeats.beat(STAGE)
        if ready:
            now_ns = clock.mono_ns()
            for key, _ in ready:
                kind, name = key.data
                if kind == "camera":
                    self._cameras.readable(name, now_ns)

    def _take_fresh(self) -> None:
        for frame in self._cameras.fresh():
            deadline_ns = frame.mono_capture_ns + int(self._deadline_ms * NS_PER_MS)
            drop = self._schedule.offer(frame, deadline_ns, self._weights.get(frame.camera, 1.0))
            if drop is not None:
                self._dropped(drop.frame, drop.cause)

    def _start_batch(self) -> None:
        """Choose, prepare and submit the next batch on a free lane."""
        most = min(self._steering.decision.max_batch, self._pool.max_batch)
        start_ns = clock.mono_ns()
        probing = start_ns - self._submitted_ns > PROBE_AFTER_NS
        predict_ms = (0.0,) if probing else self._steering.predict_ms
        frames, drops = self._schedule.next_batch(self._engine_free_ns(start_ns), predict_ms, most, SLACK_MS)
        for drop in drops:
            self._dropped(drop.frame, drop.cause)
        lane = self._free_lanes[0]
        whole: list[Frame] = []
        try:
            self._prepare(frames, lane, whole)
            if not whole:
                return
            submitted_ns = clock.mono_ns()
            variant = self._pool.submit(lane, len(whole))
        except VariantError as error:
            self._lost(whole, error)
            return
        self._submitted_ns = submitted_ns
        self._free_lanes.popleft()
        self._in_flight.append(Batch(lane, variant, whole, start_ns, submitted_ns))

    def _engine_free_ns(self, now_ns: int) -> int:
        """When the engine can begin: after what is in flight, as far as can be told."""
        predict_ms = self._steering.predict_ms
        busy_ms = sum(predict_ms[len(batch.frames) - 1] for batch in self._in_flight) if predict_ms else 0.0
        since_ns = self._in_flight[0].submitted_ns if self._in_flight else now_ns
        return max(now_ns, since_ns + int(busy_ms * NS_PER_MS))

    def _prepare(self, frames: tuple[Frame, ...], lane: int, whole: list[Frame]) -> None:
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
                raise VariantError(self._pool.active, error.message) from error
            except EdgedError:  # its ring is gone: the camera was reopened meanwhile
                self._dropped(frame, "torn")
                continue
            if self._letterboxer.reads_late or self._cameras.intact(frame):
                whole.append(frame)
                self._cameras.taken(frame)
            else:
                self._dropped(frame, "torn")

    def _finish_batch(self) -> None:
        """Collect the oldest batch in flight and publish its frames."""
        batch = self._in_flight.popleft()
        try:
            outputs = self._pool.collect(batch.lane)
            collected_ns = clock.mono_ns()
            late = self._publish(batch, outputs, collected_ns)
        except VariantError as error:
            self._lost(batch.frames, error)
            return
        finally:
            self._free_lanes.append(batch.lane)
        self._steering.succeeded(batch.variant)
        done_ns = clock.mono_ns()
        oldest_ns = min(frame.mono_capture_ns for frame in batch.frames)
        service_ms, lead_ms = (done_ns - batch.start_ns) / NS_PER_MS, (batch.start_ns - oldest_ns) / NS_PER_MS
        self._steering.observe(BatchDone(batch.variant, len(batch.frames), service_ms, lead_ms, late), done_ns)
        self._reports.batch_done(batch.variant, len(batch.frames), service_ms)

    def _publish(self, batch: Batch, outputs: Outputs, collected_ns: int) -> int:
        """Decode and send every frame of the batch; how many missed their deadline. VariantError for an output that is
        no number; the frames not sent yet are then all that is left in the batch."""
        late = 0
        size = len(batch.frames)
        timing = Timing(batch.start_ns, batch.submitted_ns, collected_ns, self._deadline_ms)
        # all at once: while the first is decoded, a camera may already write where the last one lay
        whole = [not self._letterboxer.reads_late or self._cameras.intact(frame) for frame in batch.frames]
        for index, frame in enumerate(batch.frames):
            if not whole[index]:
                self._cameras.count_drop(frame.camera, "torn")
                continue
            geometry = self._letterboxer.geometry(frame.width, frame.height)
            try:
                on_time = self._presenter.publish(frame, batch.variant, size, outputs, index, geometry, timing)
            except EdgedError as error:
                del batch.frames[:index]
                raise VariantError(batch.variant, error.message) from error
            self._cameras.count_result(frame.camera)
            late += not on_time
        return late

    def _lost(self, frames: list[Frame], error: VariantError) -> None:
        """The engine gave no result for these frames."""
        for frame in frames:
            self._cameras.count_drop(frame.camera, "engine")
        self._steering.failed(error, clock.mono_ns())

    def _dropped(self, frame: Frame, cause: DropCause) -> None:
        self._cameras.count_drop(frame.camera, cause)
        self._cameras.taken(frame)
