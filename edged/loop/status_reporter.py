"""The daemon's own messages: `status` per camera, `state` once a second, `telemetry`; and the governor's workload.

Runs on the engine loop's thread, except `housekeep`, which the housekeeping thread calls: it publishes every sample of
the sensors, and while the engine loop is stuck the last state, marked unhealthy.
"""

from __future__ import annotations

import logging
import os
import secrets
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final, NamedTuple

import msgspec

import edged
from edged import clock
from edged.bus import schema
from edged.bus.publisher import Publisher
from edged.clock import NS_PER_S
from edged.config import Limits
from edged.engines.manifest import Manifest
from edged.engines.pool import Pool
from edged.frames.cameras import Cameras, CameraStatus
from edged.governor.messages import Workload
from edged.health import Heartbeats
from edged.loop.governor_client import GovernorClient
from edged.loop.limit_monitor import LimitMonitor
from edged.loop.messages import log_camera
from edged.loop.motion_gates import MotionGates
from edged.loop.shadow_runner import ShadowRunner
from edged.loop.variant_residency import VariantResidency
from edged.power.telemetry import Sample, Sampler
from edged.power.throttle import Alarms

log = logging.getLogger(__name__)

EVERY_NS: Final = NS_PER_S
OVERDUE_NS: Final = 2 * NS_PER_S
LATENCIES: Final = 255
"""Batches whose time per frame the published median is taken over."""

_UNOFFERED: Final = ("rate", "corrupt", "frozen", "still")
"""Drops that happen in the camera's child: these frames were never offered to the engine."""


@dataclass(frozen=True)
class Outside:
    """What is reported on and is no part of the loop: the power mode of the profile in force, the log of decisions, the
    profiles by time of day."""

    mode: Callable[[], schema.ProfileMode | None] = lambda: None
    recording: Callable[[], schema.Recording | None] = lambda: None
    schedule: Callable[[], schema.ScheduleState | None] = lambda: None


@dataclass(frozen=True)
class Sources:
    """What is reported on."""

    manifest: Manifest
    cameras: Cameras
    pool: Pool
    governor: GovernorClient
    sampler: Sampler
    limit_monitor: LimitMonitor
    shadow: ShadowRunner
    gates: MotionGates
    heartbeats: Heartbeats
    residency: VariantResidency
    outside: Outside


class _Counted(NamedTuple):
    """Of a camera's frames."""

    captured: int
    offered: int
    still: int

    def since(self, before: _Counted) -> _Counted:
        return _Counted(*(now - then for now, then in zip(self, before, strict=True)))


def _counted(status: CameraStatus) -> _Counted:
    unoffered = sum(status.drops.get(cause, 0) for cause in _UNOFFERED)
    return _Counted(status.captured, status.captured - unoffered, status.drops.get("still", 0))


class StatusReporter:
    def __init__(self, sources: Sources, publisher: Publisher) -> None:
        self._publisher = publisher
        self._manifest = sources.manifest
        self._cameras = sources.cameras
        self._pool = sources.pool
        self._governor = sources.governor
        self._sampler = sources.sampler
        self._limit_monitor = sources.limit_monitor
        self._shadow = sources.shadow
        self._gates = sources.gates
        self._heartbeats = sources.heartbeats
        self._residency = sources.residency
        self._outside = sources.outside
        self._limits = Limits()
        self._profile: str | None = None
        self._run = secrets.token_hex(4)
        self._begun_ns = clock.mono_ns()
        self._results = {variant.name: 0 for variant in sources.pool.variants}
        self._latencies = {variant.name: deque[float](maxlen=LATENCIES) for variant in sources.pool.variants}
        self._counted: tuple[int, dict[str, _Counted]] = (self._begun_ns, {})
        """when, and by camera: as of the last workload"""
        self._sample: Sample | None = None
        self._alarms = Alarms()
        self._changed: dict[str, None] = {}
        self._telemetry: schema.Telemetry | None = None
        self._state: schema.State | None = None
        self._overdue_ns = 0
        self.due_ns = self._begun_ns

    def limits_changed(self, limits: Limits, profile: str | None = None) -> None:
        """`profile`: the name of the power profile they come from."""
        self._limits, self._profile = limits, profile
        self._limit_monitor.limits_changed(limits, clock.mono_ns())

    def batch_done(self, variant: str, frames: int, service_ms: float) -> None:
        self._latencies[variant].append(service_ms / frames)

    def published(self, variant: str, on_time: bool) -> None:
        """A frame's result went out."""
        self._results[variant] += 1
        self._limit_monitor.published(variant, on_time)

    def camera_changed(self, camera: str) -> None:
        """Its state changed; called from within Cameras, so it is only noted here and published in the same turn."""
        self._changed[camera] = None

    def publish_changes(self, now_ns: int) -> None:
        """Publish the status of the cameras whose state changed since the last call."""
        if self._changed:
            for camera in self._changed.keys() & set(self._cameras.names()):
                status = self._publisher.publish(self._status(self._cameras.status(camera, now_ns)))
                log_camera(status)
            self._changed.clear()

    def workload(self, now_ns: int) -> Workload:
        """What the cameras offered since the last call. A camera whose frames are looked at in N tiles is N cameras."""
        statuses = [self._cameras.status(name, now_ns) for name in self._cameras.names()]
        counted = {s.camera: _counted(s) for s in statuses}
        offered = sum(one.offered for one in counted.values())
        self._limit_monitor.update_counters(offered, sum(s.drops.get("budget", 0) for s in statuses))
        (then_ns, before), self._counted = self._counted, (now_ns, counted)
        new = {name: one.since(before.get(name, _Counted(0, 0, 0))) for name, one in counted.items()}
        # a camera that was removed takes its counts with it
        frames = sum(s.tiles * max(0, new[s.camera].offered) for s in statuses)
        seconds = max(now_ns - then_ns, 1) / NS_PER_S
        gated = new if self._gates.on else {}
        still = tuple((name, min(1.0, one.still / one.captured)) for name, one in gated.items() if one.captured > 0)
        return Workload(sum(s.tiles for s in statuses if s.state == "live"), frames / seconds, still)

    def publish(self, now_ns: int) -> None:
        """Once a second: cameras that give no frames, the device, the complete state."""
        self.due_ns = now_ns + EVERY_NS
        statuses = [self._status(self._cameras.status(name, now_ns)) for name in self._cameras.names()]
        for status in statuses:
            if status.state != "live":
                self._publisher.publish(status)
        health = self._heartbeats.check(now_ns)
        state = schema.State(
            version=edged.__version__,
            pid=os.getpid(),
            run=self._run,
            uptime_s=(now_ns - self._begun_ns) / NS_PER_S,
            bundle=self._manifest.name,
            metric=self._manifest.metric,
            limits=msgspec.structs.asdict(self._limits),
            profile=self._profile,
            variants=self._variants(),
            cameras=statuses,
            decision=self._governor.message,
            telemetry=self._telemetry,
            healthy=health.healthy,
            stages=health.stages,
            budgets=[*self._limit_monitor.states(now_ns), self._residency.budget()],
            guard=self._shadow.report(now_ns),
            clock=self._governor.gpu_clock.report,
            mode=self._outside.mode(),
            recording=self._outside.recording(),
            schedule=self._outside.schedule(),
            memory=self._residency.report(),
        )
        self._state = self._publisher.publish(state)

    @property
    def state(self) -> schema.State | None:
        """As last published; None before the first second."""
        return self._state

    def housekeep(self, now_ns: int) -> None:
        """From the housekeeping thread, several times a second: a new sample, and the last state, corrected, while the
        engine loop does not report."""
        self._publish_telemetry(self._sampler.latest(now_ns))
        if self._state is None or now_ns < max(self.due_ns, self._overdue_ns) + OVERDUE_NS:
            return
        self._overdue_ns = now_ns - EVERY_NS
        health = self._heartbeats.check(now_ns)
        uptime_s = (now_ns - self._begun_ns) / NS_PER_S
        overdue = msgspec.structs.replace(self._state, healthy=False, stages=health.stages, uptime_s=uptime_s)
        self._state = self._publisher.publish(overdue)

    def _status(self, status: CameraStatus) -> schema.Status:
        """Inside `state` its number is that of the last one sent, so that a late reader knows where it joined."""
        seq = self._publisher.last_seq(f"status/{status.camera}")
        fields, now_s = asdict(status), clock.wall_ns() / NS_PER_S
        still_s, _ = fields.pop("still_since_s"), fields.pop("tiles")
        fields["still_since"] = None if still_s is None else now_s - still_s
        fields["gate"] = self._gates.report(
            status.camera, status.captured, status.drops.get("still", 0), clock.mono_ns()
        )
        if status.stream is not None:
            fields["stream"] = schema.Stream(**fields["stream"])
        return schema.Status(**fields, seq=seq, t_publish=now_s)

    def _publish_telemetry(self, sample: Sample) -> None:
        """A sample that grows stale is another one: its values are unknown then."""
        if sample is self._sample or sample == self._sample:
            return
        self._sample = sample
        for alarm in self._alarms.of(sample):
            log.warning("%s", alarm.text)
            self._publisher.publish(schema.Event(kind=alarm.kind, text=alarm.text))
        values = asdict(sample)
        del values["mono_ns"], values["power_lag_s"], values["power_mean_s"]
        values |= {"missing": list(sample.missing), "battery": sample.battery and schema.Battery(**values["battery"])}
        loaded = {v.name: _rounded(v.memory_mb) for v in self._pool.variants if v.resident}
        self._telemetry = self._publisher.publish(schema.Telemetry(**values, variants_mb=loaded))

    def _variants(self) -> list[schema.VariantState]:
        return [
            schema.VariantState(
                name=variant.name,
                precision=variant.precision,
                sparse=variant.sparse,
                accuracy=variant.accuracy,
                runtime=variant.runtime,
                refused=variant.refused,
                results=self._results[variant.name],
                latency_p50_ms=statistics.median(times) if (times := self._latencies[variant.name]) else None,
                resident=variant.resident,
                memory_mb=_rounded(variant.memory_mb),
                load_s=None if variant.load_s is None else round(variant.load_s, 3),
            )
            for variant in self._pool.variants
        ]


def _rounded(mb: float | None) -> float | None:
    return None if mb is None else round(mb, 1)
