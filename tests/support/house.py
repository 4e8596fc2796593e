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
from edged.loop.budgets import Budgets
from edged.loop.calls import Calls
from edged.loop.known import Known, what_is_known
from edged.loop.pipeline import STAGE, Pipeline
from edged.loop.present import Presenter
from edged.loop.reports import Reports
from edged.loop.senses import Senses
from edged.loop.shadow import Shadow
from edged.loop.steering import Steering
from edged.power.telemetry import Provider, Sampler, open_provider
from edged.vision.decoder import make_decoder
from edged.vision.letterbox import open_letterboxer
from tests.support.models import write_bundle


@dataclass
class House:
    endpoint: str
    publisher: Publisher
    pool: Pool
    calls: Calls
    cameras: Cameras
    steering: Steering
    reports: Reports
    pipeline: Pipeline
    sampler: Sampler
    budgets: Budgets
    senses: Senses


@contextlib.contextmanager
def built(
    directory: Path,
    models: Mapping[str, bytes],
    limits: Limits | None = None,
    known: Callable[[Pool], Known] | None = None,
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
        calls = Calls(selector)
        stack.callback(calls.close)
        heartbeats = Heartbeats({STAGE: 5.0})
        cameras = Cameras(selector, f"t{uuid4().hex[:10]}", lambda c: reports.camera_changed(c))
        stack.callback(cameras.close)
        now_ns = clock.mono_ns()
        told = known(pool) if known else what_is_known(pool, bundle)
        steering = Steering(pool, told, limits, publisher, now_ns, **more)
        sampler = Sampler(provider or open_provider(PowerConfig()), interval_s)
        stack.callback(sampler.stop)
        budgets = Budgets({v.name: v.accuracy for v in pool.variants}, publisher, now_ns)
        senses = Senses(sampler, steering, budgets, now_ns)
        manifest, decode = bundle.manifest, make_decoder(bundle.manifest)
        letterboxer = open_letterboxer(manifest.input, pool)
        shadow = Shadow(manifest, pool, letterboxer, decode, publisher, steering)
        reports = Reports(manifest, cameras, pool, steering, publisher, sampler, budgets, shadow, heartbeats)
        presenter = Presenter(publisher, decode, manifest.labels, cameras.ring_name)
        pipeline = Pipeline(
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
