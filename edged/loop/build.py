"""Makes the engine loop from a configuration: the same wiring for the daemon and for tests. On the thread that starts.

In: the configuration, its bundle, and what the loop is built into. Out: a `Loop`, whose parts are closed by the stack.
Nothing runs yet: the caller starts the sampler and runs the engine loop.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import selectors
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

from edged import clock
from edged.bus import schema
from edged.bus.publisher import Publisher
from edged.config import Config
from edged.engines.bundle import Bundle
from edged.engines.engine import Runtime
from edged.engines.pool import Pool
from edged.frames.cameras import Cameras
from edged.frames.schedule import Scheduler
from edged.governor.governor import OnCall
from edged.health import Heartbeats
from edged.loop.batch_executor import BatchExecutor
from edged.loop.device_info import DeviceInfo, as_simulated, mode_in_force, read_device_info, with_guessed_clocks
from edged.loop.dispatcher import Dispatcher
from edged.loop.engine_loop import STAGE, EngineLoop, Parts
from edged.loop.governor_client import GovernorClient, Hooks, battery_budget
from edged.loop.gpu_clock import CLOCK_DWELL_S, GpuClock
from edged.loop.limit_layers import LimitControl, LimitLayers
from edged.loop.limit_monitor import LimitMonitor
from edged.loop.loop_calls import LoopCalls
from edged.loop.messages import log_event
from edged.loop.motion_gates import MotionGates
from edged.loop.object_tracks import ObjectTracks
from edged.loop.result_publisher import ResultPublisher
from edged.loop.sensor_feed import SensorFeed
from edged.loop.shadow_runner import ShadowRunner
from edged.loop.snapshots import Snapshots, SnapshotWriter
from edged.loop.status_reporter import Outside, Sources, StatusReporter
from edged.loop.variant_residency import VariantResidency
from edged.power.clocks import ClockActuator
from edged.power.energy_meter import HorizonUse
from edged.power.host_paths import HERE, HostPaths
from edged.power.memory import MemoryReader
from edged.power.simulated import SimulatedProvider
from edged.power.telemetry import Provider, Sampler, open_provider
from edged.profiles import Profile
from edged.regions import check_tiles
from edged.vision.decoder import make_decoder
from edged.vision.letterbox import open_letterboxer
from edged.worker import Worker

STUCK_AFTER_S: Final = 5.0  # a turn takes milliseconds; a first CUDA call or a paged-out model may take seconds
NO_CLOCK_COSTS: Final = "the device profile is of one clock only"
NO_CLOCKS: Final = "this machine lists no GPU clocks to choose from"

log = logging.getLogger("edged")


@dataclass(frozen=True)
class Surroundings:
    """What a loop is built into. `instance` names its rings in shared memory; `profile` is the power profile to start
    with, `energy_used` the energy horizon of an earlier run; `on_call` and `on_sample` get every call of the governor
    and every sample; `workers` are threads that the watchdog looks after with the loop's own; `outside` is read for the
    state. `provider`, `runtime` and `device_info` stand in
    for what the configuration and the bundle name."""

    publisher: Publisher
    instance: str
    profile: Profile | None = None
    energy_used: HorizonUse | None = None
    machine: HostPaths = HERE
    on_call: OnCall | None = None
    on_sample: Callable[[Mapping[str, Any], int], None] | None = None
    workers: tuple[Worker, ...] = ()
    outside: Outside = field(default_factory=Outside)
    provider: Provider | None = None
    runtime: Runtime | None = None
    device_info: Callable[[Pool], DeviceInfo] | None = None


@dataclass(frozen=True)
class Loop:
    """The engine loop and its parts."""

    publisher: Publisher
    pool: Pool
    sampler: Sampler
    calls: LoopCalls
    cameras: Cameras
    governor: GovernorClient
    limits: LimitControl
    limit_monitor: LimitMonitor
    sensor_feed: SensorFeed
    reporter: StatusReporter
    heartbeats: Heartbeats
    engine_loop: EngineLoop
    residency: VariantResidency
    device_info: DeviceInfo


@runtime_checkable
class FollowsBatches(Protocol):
    """A provider that makes up watts from what the engine ran."""

    def ran(self, variant: str, begin_ns: int, end_ns: int) -> None: ...


def build_loop(stack: contextlib.ExitStack, config: Config, bundle: Bundle, around: Surroundings) -> Loop:
    """The loop with the configured limits in force, and without cameras yet: `engine_loop.configure` brings them.

    EdgedError or UsageError for an engine, a provider or limits that cannot be had."""
    publisher, now_ns = around.publisher, clock.mono_ns()
    selector = stack.enter_context(selectors.DefaultSelector())
    # first: their fork server loads its libraries while the engines load
    cameras = Cameras(selector, around.instance, lambda camera: reporter.camera_changed(camera))
    stack.callback(cameras.close)
    pool = stack.enter_context(_open_pool(config, bundle, around))
    provider = around.provider or open_provider(config.power, around.machine.root)
    sampler = Sampler(provider, config.power.interval_s)
    stack.callback(sampler.stop)
    known = around.device_info(pool) if around.device_info else _device_info(pool, bundle, config, provider, around)

    calls = LoopCalls(selector)
    stack.callback(calls.close)
    beats = Heartbeats({STAGE: STUCK_AFTER_S})
    beats.watch(sampler.worker, *publisher.workers, *around.workers)
    layers = LimitLayers(config.limits, around.profile)
    hooks = Hooks(around.on_call, provider.ran if isinstance(provider, FollowsBatches) else None)
    gpu_clock = _gpu_clock(stack, config, known, around, beats, now_ns)
    governor = GovernorClient(
        pool, known, layers.in_force, publisher, now_ns, hooks, gpu_clock, battery_budget(config.power)
    )
    monitor = LimitMonitor({v.name: v.accuracy for v in pool.variants}, publisher, around.energy_used)
    feed = SensorFeed(sampler, governor, monitor, now_ns, around.on_sample)

    manifest, decode = bundle.manifest, make_decoder(bundle.manifest)
    letterboxer = open_letterboxer(manifest.input, pool)
    shadow = ShadowRunner(manifest, pool, letterboxer, decode, publisher, governor)
    on_battery = config.power.battery_last_h is not None
    gate = "on" if config.motion.gate == "auto" and on_battery else config.motion.gate
    gates = MotionGates(cameras, publisher, governor, gate)
    reader = MemoryReader(around.machine.root)
    residency = VariantResidency(pool, governor, publisher, reader, manifest.reference, calls.wake)
    residency.worker.start()
    stack.callback(residency.close)
    beats.watch(residency.worker)
    sources = Sources(
        manifest, cameras, pool, governor, sampler, monitor, shadow, gates, beats, residency, around.outside
    )
    reporter = StatusReporter(sources, publisher)
    tracks = ObjectTracks(publisher, manifest.labels, _snapshots(stack, config, cameras, publisher, beats))
    result_publisher = ResultPublisher(publisher, decode, manifest.labels, cameras.ring_name, tracks)
    schedule = Scheduler()
    executor = BatchExecutor(cameras, pool, letterboxer, result_publisher, governor, reporter)
    dispatcher = Dispatcher(schedule, governor.governor, pool.max_batch, executor.dropped)
    work = schedule, dispatcher, executor, governor, feed, shadow, tracks, gates, reporter, residency, beats
    check = functools.partial(check_tiles, manifest.task, pool.max_batch)
    parts = Parts(selector, calls, cameras, *work, check)
    engine_loop = EngineLoop(parts)
    engine_loop.put_in_force(layers)
    limits = LimitControl(layers, engine_loop.put_in_force)
    return Loop(
        publisher, pool, sampler, calls, cameras, governor, limits, monitor, feed, reporter, beats, engine_loop,
        residency, known,
    )  # fmt: skip


def _snapshots(
    stack: contextlib.ExitStack, config: Config, cameras: Cameras, publisher: Publisher, beats: Heartbeats
) -> Snapshots | None:
    """Pictures of tracked objects, where a directory for them is configured."""
    if config.snapshots.path is None:
        return None

    def report(text: str) -> None:
        log.warning("%s", text)
        publisher.publish(schema.Event(kind="snapshots", text=text))

    writer = SnapshotWriter(config.snapshots, Path(config.snapshots.path), report)
    stack.callback(writer.close)
    beats.watch(writer.worker)
    return Snapshots(cameras.pixels, cameras.intact, writer)


def _open_pool(config: Config, bundle: Bundle, around: Surroundings) -> Pool:
    """One engine, warm, so that the first result does not wait for all; variants that cannot run here are published
    with their reasons. A batch never has two frames of a camera, so with fewer cameras larger ones need neither time to
    warm up nor memory."""
    limits = LimitLayers(config.limits, around.profile).in_force
    pictures = [
        len(config.camera) or config.engine.max_batch,
        *(math.prod(camera.grid or ()) for camera in config.camera),
    ]
    max_batch = min(config.engine.max_batch, max(pictures))
    if around.runtime is not None:
        pool = Pool(bundle, around.runtime, max_batch, limits.min_accuracy)
    else:
        engine = msgspec.structs.replace(config.engine, max_batch=max_batch)
        pool = Pool.open(bundle, engine, limits.min_accuracy)
    for variant in pool.variants:
        if variant.refused is not None:
            text = f"variant {variant.name} is refused: {variant.refused}"
            event = schema.Event(kind="engine_refused", text=text, variant=variant.name)
            log_event(around.publisher.publish(event))
    return pool


def _device_info(pool: Pool, bundle: Bundle, config: Config, provider: Provider, around: Surroundings) -> DeviceInfo:
    """What the governor starts with; a device profile that does not fit is reported and ignored."""
    mode = mode_in_force(None if around.profile is None else around.profile.mode, around.machine.tools)
    known = read_device_info(pool, bundle, mode, config.engine.threads)
    if known.refused is not None:
        text = f"the device profile is not used: {known.refused.message}"
        log.warning("%s; %s", text, known.refused.hint)
        around.publisher.publish(schema.Event(kind="profile_refused", text=text))
    if isinstance(provider, SimulatedProvider):
        known = as_simulated(known, pool, provider.device)
        provider.expect({variant.name: variant.active_w[0] for variant in known.variants})
    return with_guessed_clocks(known, around.machine.root) if config.power.clock_control else known


def _gpu_clock(
    stack: contextlib.ExitStack, config: Config, known: DeviceInfo, around: Surroundings, beats: Heartbeats, now_ns: int
) -> GpuClock:
    """The GPU's clock, controlled where that is configured and the cost of each clock is known, or guessed."""
    if not config.power.clock_control:
        return GpuClock(known.clocks_mhz)
    if not known.clock_matters:
        text = f"GPU clock control is unavailable: {NO_CLOCKS if known.device is None else NO_CLOCK_COSTS}"
        log.warning("%s", text if known.device is None else f"{text}; measure all: edged-calibrate profile")
        around.publisher.publish(schema.Event(kind="clock_control", text=text))
        return GpuClock(known.clocks_mhz)
    actuator = ClockActuator(known.clocks_mhz, around.machine.clock_helper)
    stack.callback(actuator.close)
    beats.watch(actuator.worker)
    return GpuClock(known.clocks_mhz, actuator, CLOCK_DWELL_S, now_ns)
