"""The engine loop as the daemon builds it, inside the test's process, turning on a thread."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import zmq

from edged import clock
from edged.bus.publisher import Publisher
from edged.config import CameraConfig, Config, EngineConfig, Limits, MotionConfig, PowerConfig
from edged.engines.bundle import load_bundle
from edged.loop.build import Loop, Surroundings, build_loop
from tests.support.bus import PATIENCE
from tests.support.models import write_bundle


@contextlib.contextmanager
def built(
    directory: Path,
    models: Mapping[str, bytes],
    limits: Limits | None = None,
    power: PowerConfig | None = None,
    cameras: Sequence[CameraConfig] = (),
    motion: MotionConfig | None = None,
    load: bool = True,
    **around: Any,
) -> Iterator[Loop]:
    """Everything but a running loop, on the CPU. `cameras` are configured, and not started. `around` goes to
    Surroundings: a provider, a runtime, what is known of the device. The sampler is not started. Without `load` only
    the first variant is loaded."""
    bundle = load_bundle(write_bundle(directory / "bundle", dict(models)))
    config = Config(
        str(bundle.directory),
        limits or Limits(),
        power or PowerConfig(),
        camera=list(cameras),
        motion=motion or MotionConfig(),
        engine=EngineConfig(device="cpu"),
    )
    with contextlib.ExitStack() as stack:
        context = zmq.Context()
        stack.callback(context.term)
        publisher = Publisher(context, f"ipc://{directory}/results.ipc")
        stack.callback(publisher.close)
        loop = build_loop(stack, config, bundle, Surroundings(publisher, f"t{uuid4().hex[:10]}", **around))
        if load:
            load_all(loop)
        yield loop


def load_all(loop: Loop) -> None:
    """Every variant that can be is loaded, as if the loop had run so long."""
    end_s = time.monotonic() + PATIENCE
    while not loop.residency.settled:
        assert time.monotonic() < end_s, [v for v in loop.pool.variants if not v.resident]
        loop.residency.look(clock.mono_ns(), idle=True)
        time.sleep(0.001)


@contextlib.contextmanager
def running(loop: Loop, cameras: list[CameraConfig]) -> Iterator[Loop]:
    """The loop turns on a thread of its own until the context ends."""
    loop.engine_loop.configure(cameras)
    thread = threading.Thread(target=loop.engine_loop.run, name="loop")
    thread.start()
    try:
        yield loop
    finally:
        loop.engine_loop.stop()
        thread.join(10)
        assert not thread.is_alive()


def change_limits(loop: Loop, **changes: float | None) -> None:
    """As another thread asks the running loop to."""
    loop.calls.call(lambda: loop.limits.set(changes))
