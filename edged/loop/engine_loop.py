"""The engine loop: frames of the cameras in, results on the bus out. Runs on the daemon's main thread.

One turn: wait for a camera, take the newest frames, let schedule and governor choose a batch and its variant, scale it
straight out of shared memory into the engine's input, run it, decode, publish; now and then tell the governor what the
sensors say and let it plan. With an engine of several lanes the next batch is prepared while the one before still runs.

Other threads reach it only through `LoopCalls`, which run between two batches.
"""

from __future__ import annotations

import selectors
from typing import Final

from edged import clock
from edged.clock import NS_PER_MS, NS_PER_S
from edged.config import CameraConfig, Limits
from edged.engines.pool import Pool
from edged.frames.cameras import Cameras, check_sources
from edged.frames.schedule import Scheduler
from edged.governor.messages import Workload
from edged.health import Heartbeats
from edged.loop.batch_executor import BatchExecutor
from edged.loop.dispatcher import Dispatcher
from edged.loop.governor_client import GovernorClient
from edged.loop.loop_calls import LoopCalls
from edged.loop.result_publisher import ResultPublisher
from edged.loop.sensor_feed import SensorFeed
from edged.loop.shadow_runner import ShadowRunner
from edged.loop.status_reporter import StatusReporter
from edged.vision.letterbox import GpuLetterboxer, Letterboxer

STAGE: Final = "pipeline"
LONGEST_WAIT_NS: Final = NS_PER_S // 2
PROBE_AFTER_NS: Final = NS_PER_S // 4
"""With no batch for so long, the next frame runs whatever the prediction says: predictions are learnt from batches
alone, so one that lets no frame through would never be corrected."""
OVERDUE_NS: Final = NS_PER_S // 4
"""So long a plan waits for a moment without frames."""


class EngineLoop:
    def __init__(
        self,
        selector: selectors.BaseSelector,
        calls: LoopCalls,
        cameras: Cameras,
        pool: Pool,
        letterboxer: Letterboxer | GpuLetterboxer,
        presenter: ResultPublisher,
        steering: GovernorClient,
        senses: SensorFeed,
        shadow: ShadowRunner,
        reports: StatusReporter,
        heartbeats: Heartbeats,
    ) -> None:
        self._selector = selector
        self._calls = calls
        self._cameras = cameras
        self._steering = steering
        self._senses = senses
        self._shadow = shadow
        self._reports = reports
        self._heartbeats = heartbeats
        self._schedule = Scheduler()
        self._runner = BatchExecutor(cameras, pool, letterboxer, presenter, steering, reports)
        self._chooser = Dispatcher(self._schedule, steering.governor, pool.max_batch, self._runner.dropped)
        self._weights: dict[str, float] = {}
        self._stopping = False

    def configure(self, cameras: list[CameraConfig], limits: Limits) -> None:
        """Take these cameras and limits. UsageError, and nothing changed, if it cannot."""
        now_ns = clock.mono_ns()
        check_sources(cameras)
        self.set_limits(limits)
        while self._runner.busy:  # a camera may go, and its ring with it
            self._runner.finish()
        self._cameras.configure(cameras, now_ns)
        for gone in self._weights.keys() - {camera.name for camera in cameras}:
            self._schedule.forget(gone)
            self._chooser.forget(gone)
        mean = sum(camera.weight for camera in cameras) / max(1, len(cameras))
        self._weights = {camera.name: camera.weight / mean for camera in cameras}
        self._chooser.weights = self._weights
        self._shadow.configure(self._cameras.names(), now_ns)
        # Until the cameras are live and counted: as if each gave a frame at once, at no particular rate.
        self._steering.observe(Workload(len(cameras), 0.0), now_ns)

    def set_limits(self, limits: Limits) -> None:
        """UsageError, and nothing changed, if no variant could hold them."""
        now_ns = clock.mono_ns()
        self._steering.set_limits(limits, now_ns)
        self._runner.deadline_ms = limits.deadline_ms

    def stop(self) -> None:
        """End `run` after the turn in hand. From any thread, and from signal handlers."""
        self._stopping = True
        self._calls.wake()

    def run(self) -> None:
        """Turns until `stop`; then what is in flight is finished and what waits is counted."""
        while not self._stopping:
            self._turn()
        while self._runner.busy:
            self._runner.finish()
        for camera in self._weights:
            drop = self._schedule.forget(camera)
            if drop is not None:
                self._runner.dropped(drop.frame, "shutdown")
        self._reports.publish(clock.mono_ns())
        self._heartbeats.idle(STAGE)

    def _turn(self) -> None:
        self._wait()
        self._calls.run()
        now_ns = clock.mono_ns()
        self._cameras.tick(now_ns)
        self._reports.publish_changes(now_ns)
        self._take_fresh()
        if len(self._schedule) and self._runner.can_start:
            self._start_batch()
        if self._runner.busy and not (self._runner.can_start and len(self._schedule)):
            whole = self._runner.finish()
            if whole is not None:
                self._shadow.after(*whole, self._runner.deadline_ms, self._quiet)
        self._take_stock(clock.mono_ns())

    def _quiet(self) -> bool:
        """No frame waits, here or with a camera that spoke meanwhile, and nothing is in flight."""
        return not (len(self._schedule) or self._runner.busy or self._selector.select(0))

    def _wait(self) -> None:
        """Until a camera speaks, a call comes or something is due; not at all while there is work."""
        timeout_s = 0.0
        if not len(self._schedule) and not self._runner.busy:
            now_ns = clock.mono_ns()
            due_ns = min(self._reports.due_ns, self._steering.due_ns, self._senses.due_ns)
            wake_ns = min(self._cameras.next_wake_ns(), due_ns, now_ns + LONGEST_WAIT_NS)
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
            deadline_ns = frame.mono_capture_ns + int(self._runner.deadline_ms * NS_PER_MS)
            drop = self._schedule.offer(frame, deadline_ns, self._weights.get(frame.camera, 1.0))
            if drop is not None:
                self._runner.dropped(drop.frame, drop.cause)

    def _start_batch(self) -> None:
        now_ns = clock.mono_ns()
        probing = now_ns - self._runner.submitted_ns > PROBE_AFTER_NS
        chosen = self._chooser.next(now_ns, self._runner.free_ns(now_ns), probing, self._steering.gpu_clock.clock)
        if chosen is not None:
            self._runner.start(*chosen, now_ns)

    def _take_stock(self, now_ns: int) -> None:
        """What is due by the clock: the sensors, the reports, the plan."""
        self._steering.report_drops(now_ns)
        if now_ns >= self._senses.due_ns:
            self._senses.look(now_ns)
        if now_ns >= self._reports.due_ns:
            self._steering.observe(self._reports.workload(now_ns), now_ns)
            self._reports.publish(now_ns)
        late_ns = now_ns - self._steering.due_ns
        if late_ns >= 0 and (late_ns > OVERDUE_NS or not (len(self._schedule) or self._runner.busy)):
            self._steering.tick(now_ns)
