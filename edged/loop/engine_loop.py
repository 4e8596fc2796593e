"""The engine loop: frames of the cameras in, results on the bus out. Runs on the daemon's main thread.

One turn: wait for a camera, take the newest frames, let schedule and governor choose a batch and its variant, scale it
straight out of shared memory into the engine's input, run it, decode, publish; now and then pass the sensors' values to
the governor and let it plan. With an engine of several lanes the next batch is prepared while the one before still
runs.

Other threads reach it only through `LoopCalls`, which run between two batches.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from edged import clock
from edged.clock import NS_PER_MS, NS_PER_S
from edged.config import CameraConfig
from edged.errors import EdgedError
from edged.frames.cameras import Cameras, check_sources
from edged.frames.schedule import Scheduler
from edged.governor.messages import Workload
from edged.health import Heartbeats
from edged.loop.batch_executor import BatchExecutor
from edged.loop.dispatcher import Dispatcher
from edged.loop.governor_client import GovernorClient
from edged.loop.limit_layers import LimitLayers
from edged.loop.loop_calls import LoopCalls
from edged.loop.motion_gates import MotionGates
from edged.loop.object_tracks import ObjectTracks, weights
from edged.loop.sensor_feed import SensorFeed
from edged.loop.shadow_runner import ShadowRunner
from edged.loop.status_reporter import StatusReporter
from edged.loop.variant_residency import VariantResidency

STAGE: Final = "pipeline"
LONGEST_WAIT_NS: Final = NS_PER_S // 2
PROBE_AFTER_NS: Final = NS_PER_S // 4
"""With no batch for so long, the next frame runs whatever the prediction says: predictions are learnt from batches
alone, so one that lets no frame through would never be corrected."""
OVERDUE_NS: Final = NS_PER_S // 4
"""So long a plan waits for a moment without frames."""


@dataclass(frozen=True)
class Parts:
    """What the engine loop joins; `selector` has the cameras' sockets and the wake-up of `calls`. `check_cameras`:
    UsageError for what the engines cannot do."""

    selector: selectors.BaseSelector
    calls: LoopCalls
    cameras: Cameras
    schedule: Scheduler
    dispatcher: Dispatcher
    executor: BatchExecutor
    governor: GovernorClient
    sensor_feed: SensorFeed
    shadow: ShadowRunner
    tracks: ObjectTracks
    gates: MotionGates
    reporter: StatusReporter
    residency: VariantResidency
    heartbeats: Heartbeats
    check_cameras: Callable[[Sequence[CameraConfig]], None]


class EngineLoop:
    def __init__(self, parts: Parts) -> None:
        self._selector = parts.selector
        self._calls = parts.calls
        self._cameras = parts.cameras
        self._schedule = parts.schedule
        self._dispatcher = parts.dispatcher
        self._executor = parts.executor
        self._governor = parts.governor
        self._sensor_feed = parts.sensor_feed
        self._shadow = parts.shadow
        self._tracks = parts.tracks
        self._gates = parts.gates
        self._reporter = parts.reporter
        self._residency = parts.residency
        self._heartbeats = parts.heartbeats
        self._check_cameras = parts.check_cameras
        self._configured_weights: dict[str, float] = {}
        self._weights: dict[str, float] = {}
        self._stopping = False

    def check(self, cameras: list[CameraConfig]) -> None:
        """UsageError for cameras that could not be taken."""
        check_sources(cameras)
        self._check_cameras(cameras)

    def configure(self, cameras: list[CameraConfig]) -> None:
        """Take these cameras. UsageError, and nothing changed, if it cannot."""
        now_ns = clock.mono_ns()
        self.check(cameras)
        while self._executor.busy:  # a camera may go, and its ring with it
            self._executor.finish()
        self._cameras.configure(cameras, now_ns)
        added = {camera.name for camera in cameras} - self._weights.keys()
        for removed in self._weights.keys() - {camera.name for camera in cameras}:
            self._schedule.forget(removed)
            self._dispatcher.forget(removed)
        self._configured_weights = {camera.name: camera.weight for camera in cameras}
        self._dispatcher.grids = {camera.name: camera.grid for camera in cameras if camera.grid is not None}
        self._tracks.configure(cameras)
        self._gates.configured()
        self._weigh()
        self._shadow.configure(self._cameras.names(), now_ns)
        if added:  # until they are live and counted: as if each camera gave a frame at once, at no particular rate
            self._governor.observe(Workload(len(cameras), 0.0), now_ns)

    def _weigh(self) -> None:
        """Put the weights in force: what is configured, and more where something happens."""
        self._weights = weights(self._configured_weights, self._tracks.attention)
        self._dispatcher.weights = self._weights

    def trigger(self, camera: str) -> None:
        """Open the motion gate of a camera for some seconds. EdgedError for one that is not configured."""
        if camera not in self._weights:
            raise EdgedError(f"there is no camera {camera!r}", "cameras are " + ", ".join(self._weights))
        self._cameras.trigger(camera)

    def put_in_force(self, layers: LimitLayers) -> None:
        """UsageError, and nothing changed, if no variant could hold these limits."""
        limits = layers.in_force
        self._governor.set_limits(limits, clock.mono_ns())
        self._executor.deadline_ms = limits.deadline_ms
        self._residency.limit_mb = limits.memory_mb
        self._gates.put_in_force(limits)
        self._reporter.limits_changed(limits, layers.profile_name)

    def stop(self) -> None:
        """End `run` after the turn in hand. From any thread, and from signal handlers."""
        self._stopping = True
        self._calls.wake()

    def run(self) -> None:
        """Turns until `stop`; then what is in flight is finished and what waits is counted."""
        while not self._stopping:
            self._turn()
        while self._executor.busy:
            self._executor.finish()
        for camera in self._weights:
            drop = self._schedule.forget(camera)
            if drop is not None:
                self._executor.dropped(drop.frame, "shutdown")
        self._reporter.publish(clock.mono_ns())
        self._heartbeats.idle(STAGE)

    def _turn(self) -> None:
        self._wait()
        now_ns = clock.mono_ns()
        self._cameras.tick(now_ns)
        self._reporter.publish_changes(now_ns)
        self._take_fresh()
        held_up = self._residency.holds_up(now_ns)
        if len(self._schedule) and self._executor.can_start and not held_up:
            self._start_batch()
        if self._executor.busy and (held_up or not (self._executor.can_start and len(self._schedule))):
            completed = self._executor.finish()
            if completed is not None:
                self._gates.results(completed.frames, completed.objects)
                self._shadow.after(*completed[:5], self._executor.deadline_ms, self._quiet)
        self._do_due_work(clock.mono_ns())

    def _quiet(self) -> bool:
        """No frame waits, here or with a camera that signalled meanwhile, and nothing is in flight."""
        return not (len(self._schedule) or self._executor.busy or self._selector.select(0))

    def _wait(self) -> None:
        """Until a camera signals, a call comes or something is due; not at all while there is work."""
        timeout_s = 0.0
        if not len(self._schedule) and not self._executor.busy:
            now_ns = clock.mono_ns()
            due_ns = min(self._reporter.due_ns, self._governor.due_ns, self._sensor_feed.due_ns, self._residency.due_ns)
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
                else:
                    self._calls.run()

    def _take_fresh(self) -> None:
        for frame in self._cameras.fresh():
            deadline_ns = frame.mono_capture_ns + int(self._executor.deadline_ms * NS_PER_MS)
            drop = self._schedule.offer(frame, deadline_ns, self._weights.get(frame.camera, 1.0))
            if drop is not None:
                self._executor.dropped(drop.frame, drop.cause)

    def _start_batch(self) -> None:
        now_ns = clock.mono_ns()
        probing = now_ns - self._executor.submitted_ns > PROBE_AFTER_NS
        gpu_clock = self._governor.gpu_clock.clock
        chosen = self._dispatcher.next(now_ns, self._executor.free_ns(now_ns), probing, gpu_clock)
        if chosen is not None:
            self._executor.start(chosen, now_ns)

    def _do_due_work(self, now_ns: int) -> None:
        """What is due by the clock: the sensors, the reports, the plan."""
        self._governor.report_drops(now_ns)
        if self._tracks.attention_changed(now_ns):
            self._weigh()
        if now_ns >= self._sensor_feed.due_ns:
            self._sensor_feed.look(now_ns)
        if now_ns >= self._reporter.due_ns:
            self._governor.observe(self._reporter.workload(now_ns), now_ns)
            self._reporter.publish(now_ns)
        if now_ns >= self._residency.due_ns:
            self._residency.look(now_ns, idle=not self._executor.busy)
        late_ns = now_ns - self._governor.due_ns
        if late_ns >= 0 and (late_ns > OVERDUE_NS or not (len(self._schedule) or self._executor.busy)):
            self._governor.tick(now_ns)
