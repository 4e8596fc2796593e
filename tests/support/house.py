"""The rooms of the engine loop built as the daemon builds them, inside the test's process, with a loop on a thread."""

from __future__ import annotations

import contextlib
import selectors
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import zmq

from edged import clock
from edged.bus.publisher import Publisher
from edged.config import CameraConfig, EngineConfig, Limits, PowerConfig
from edged.engines.bundle import load_bundle
from edged.engines.engine import Runtime
from edged.engines.pool import Pool
from edged.frames.cameras import Cameras
from edged.health import Heartbeats
from edged.loop.device_info import DeviceInfo, what_is_known
from edged.loop.engine_loop import STAGE, EngineLoop
from edged.loop.governor_client import GovernorClient
from edged.loop.limit_monitor import LimitMonitor
from edged.loop.loop_calls import LoopCalls
from edged.loop.result_publisher import ResultPublisher
from edged.loop.sensor_feed import SensorFeed
from edged.loop.shadow_runner import ShadowRunner
from edged.loop.status_reporter import StatusReporter
from edged.power.telemetry import Provider, Sampler, open_provider
from edged.vision.decoder import make_decoder
from edged.vision.letterbox import open_letterboxer
from tests.support.models import write_bundle


@dataclass
class House:
    endpoint: str
    publisher: Publisher
    pool: Pool
    calls: LoopCalls
    cameras: Cameras
    steering: GovernorClient
    reports: StatusReporter
    pipeline: EngineLoop
    sampler: Sampler
    budgets: LimitMonitor
    senses: SensorFeed


@contextlib.contextmanager
def built(
    directory: Path,
    models: Mapping[str, bytes],
    limits: Limits | None = None,
    known: Callable[[Pool], DeviceInfo] | None = None,
    provider: Provider | None = None,
    interval_s: float = 1.0,
    runtime: Runtime | None = None,
    **more: Any,
) -> Iterator[House]:
    """Everything but a running loop, on the CPU or on `runtime`. `known`: what the governor begins with, by default
    what the bundle says; `more` goes to Steering. The sampler is not started."""
    limits = limits or Limits()
    bundle = load_bundle(write_bundle(directory / "bundle", dict(models)))
    with contextlib.ExitStack() as stack:
        context = zmq.Context()
        stack.callback(context.term)
        publisher = Publisher(context, f"ipc://{directory}/results.ipc")
        stack.callback(publisher.close)
        config = EngineConfig(device="cpu")
        pool = stack.enter_context(Pool(bundle, runtime, config.max_batch) if runtime else Pool.open(bundle, config))
        selector = stack.enter_context(selectors.DefaultSelector())
        calls = LoopCalls(selector)
        stack.callback(calls.close)
        heartbeats = Heartbeats({STAGE: 5.0})
        cameras = Cameras(selector, f"t{uuid4().hex[:10]}", lambda c: reports.camera_changed(c))
        stack.callback(cameras.close)
        now_ns = clock.mono_ns()
        told = known(pool) if known else what_is_known(pool, bundle)
        steering = GovernorClient(pool, told, limits, publisher, now_ns, **more)
        sampler = Sampler(provider or open_provider(PowerConfig()), interval_s)
        stack.callback(sampler.stop)
        budgets = LimitMonitor({v.name: v.accuracy for v in pool.variants}, publisher, now_ns)
        senses = SensorFeed(sampler, steering, budgets, now_ns)
        manifest, decode = bundle.manifest, make_decoder(bundle.manifest)
        letterboxer = open_letterboxer(manifest.input, pool)
        shadow = ShadowRunner(manifest, pool, letterboxer, decode, publisher, steering)
        reports = StatusReporter(manifest, cameras, pool, steering, publisher, sampler, budgets, shadow, heartbeats)
        presenter = ResultPublisher(publisher, decode, manifest.labels, cameras.ring_name)
        pipeline = EngineLoop(
            selector, calls, cameras, pool, letterboxer, presenter, steering, senses, shadow, reports, heartbeats
        )
        endpoint = f"ipc://{directory}/results.ipc"
        yield House(endpoint, publisher, pool, calls, cameras, steering, reports, pipeline, sampler, budgets, senses)


@contextlib.contextmanager
def running(house: House, cameras: list[CameraConfig], limits: Limits | None = None) -> Iterator[House]:
    """The loop turns on a thread of its own until the context ends."""
    house.pipeline.configure(cameras, limits or Limits())
    thread = threading.Thread(target=house.pipeline.run, name="loop")
    thread.start()
    try:
        yield house
    finally:
        house.pipeline.stop()
        thread.join(10)
        assert not thread.is_alive()
