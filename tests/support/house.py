"""The rooms of the engine loop built as the daemon builds them, inside the test's process, with a loop on a thread."""

from __future__ import annotations

import contextlib
import selectors
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import zmq

from edged import clock
from edged.bus.publisher import Publisher
from edged.config import CameraConfig, EngineConfig, Limits, PowerConfig
from edged.engines.bundle import load_bundle
from edged.engines.engine import Runtime
from edged.engines.pool import Pool
from edged.frames.cameras import Cameras
from edged.health import Heartbeats
from edged.loop.calls import Calls
from edged.loop.pipeline import STAGE, Pipeline
from edged.loop.present import Presenter
from edged.loop.reports import Reports
from edged.loop.steering import Steering
from edged.power.telemetry import Sampler, open_provider
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


@contextlib.contextmanager
def built(
    directory: Path, models: Mapping[str, bytes], limits: Limits | None = None, runtime: Runtime | None = None
) -> Iterator[House]:
    """Everything but a running loop; on the CPU, or on `runtime`."""
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
        cameras = Cameras(
            selector, f"test-{directory.name[-16:].strip('_')}".lower(), lambda c: reports.camera_changed(c)
        )
        stack.callback(cameras.close)
        steering = Steering(pool, limits, publisher, clock.mono_ns())
        sampler = Sampler(open_provider(PowerConfig()), 1.0)
        reports = Reports(bundle.manifest, cameras, pool, steering, publisher, sampler, heartbeats)
        presenter = Presenter(publisher, make_decoder(bundle.manifest), bundle.manifest.labels, cameras.ring_name)
        letterboxer = open_letterboxer(bundle.manifest.input, pool)
        pipeline = Pipeline(selector, calls, cameras, pool, letterboxer, presenter, steering, reports, heartbeats)
        endpoint = f"ipc://{directory}/results.ipc"
        yield House(endpoint, publisher, pool, calls, cameras, steering, reports, pipeline)


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
