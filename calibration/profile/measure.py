"""What a bundle's variants cost on this machine: latency quantiles and joules per frame, for each batch size.

In: a bundle and the machine's power provider. Out: a `DeviceProfile` beside the engines, tied to their digests. A batch
is timed from the frames to the decoded objects, as the daemon works: letterbox, inference, decoding. The variants take
turns, so that a machine that gets warmer or busier costs all of them alike. Energy is what the provider reports above
idle; without a meter it is None. One thread.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edged import clock
from edged.config import EngineConfig
from edged.engines.bundle import Bundle, select_file
from edged.engines.device_profile import DeviceProfile, ProfiledRun, device_name
from edged.engines.pool import Pool
from edged.errors import EdgedError
from edged.frames.frame import PixelFormat
from edged.power.telemetry import Provider
from edged.synthetic.scene import Scene
from edged.vision.decoder import make_decoder
from edged.vision.letterbox import Letterboxer
from edged_calibration.progress import Advance, silent

_WARM_RUNS = 5
_TURNS = 5  # of each variant and batch; between them the others have theirs
_IDLE_S = 3.0
_READ_EVERY_NS = clock.NS_PER_S // 10
_FRAMES = 8
_FRAME_WIDTH, _FRAME_HEIGHT = 1280, 720  # of a camera, so that the letterbox costs what it costs in use


@dataclass
class _Measured:
    latencies_ms: list[float] = field(default_factory=list)
    energy_j: float | None = 0.0
    frames: int = 0


def measure(
    bundle: Bundle,
    provider: Provider,
    config: EngineConfig,
    batches: Sequence[int],
    seconds: float,
    progress: Advance = silent,
    idle_s: float = _IDLE_S,
) -> DeviceProfile:
    """Every usable variant at every batch size for about `seconds`. EdgedError if the bundle runs none here."""
    meter = _Meter(provider)
    with Pool.open(bundle, config) as pool:
        sizes = [batch for batch in batches if batch <= pool.max_batch]
        if not sizes:
            raise EdgedError(f"the bundle takes batches up to {pool.max_batch}", "give smaller --batches")
        bench = _Bench(bundle, pool)
        variants = [variant.name for variant in pool.variants if variant.refused is None]
        cases = [(name, batch) for name in variants for batch in sizes]
        for name, batch in cases:
            bench.run(name, batch, _WARM_RUNS)
        idle_w = meter.idle(idle_s)
        found = {case: _Measured() for case in cases}
        for turn in range(_TURNS):
            for number, (name, batch) in enumerate(cases):
                _turn(bench, meter, idle_w, found[name, batch], name, batch, seconds / _TURNS)
                progress(turn * len(cases) + number + 1, _TURNS * len(cases))
        runtime = "onnxruntime"
        runs = [_run(bundle, runtime, name, batch, found[name, batch]) for name, batch in cases]
    return DeviceProfile(
        version=1,
        device=device_name(),
        runs=runs,
        idle_w=[] if idle_w is None else [round(idle_w, 4)],
        estimated=meter.estimated,
        power_provider=provider.name,
    )


class _Bench:
    """Batches of rendered camera frames through the bundle's engines."""

    def __init__(self, bundle: Bundle, pool: Pool) -> None:
        scene = Scene(seed=7, width=_FRAME_WIDTH, height=_FRAME_HEIGHT, fps=3)
        self._frames = np.empty((_FRAMES, _FRAME_HEIGHT, _FRAME_WIDTH, 3), np.uint8)
        for index, frame in enumerate(self._frames):
            scene.render(index, frame)
        self._pool = pool
        self._letterboxer = Letterboxer(bundle.manifest.input, [pool.input_buffer(0)])
        self._letterbox = self._letterboxer.geometry(_FRAME_WIDTH, _FRAME_HEIGHT)
        self._decode = make_decoder(bundle.manifest)

    def run(self, variant: str, batch: int, runs: int) -> list[float]:
        """Milliseconds of each of so many batches."""
        self._pool.select(variant)
        times = []
        for number in range(runs):
            start_ns = clock.mono_ns()
            for index in range(batch):
                frame = self._frames[(number + index) % len(self._frames)]
                self._letterboxer.fill(self._letterbox, frame, PixelFormat.BGR24, 0, index)
            self._pool.submit(0, batch)
            outputs = self._pool.collect(0)
            for index in range(batch):
                self._decode(outputs, index, self._letterbox)
            times.append((clock.mono_ns() - start_ns) / clock.NS_PER_MS)
        return times


class _Meter:
    """Joules from a provider's watts: each reading stands for the time since the one before it."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._start_ns = self._last_ns = 0
        self._joules: float | None = None
        self.estimated = False

    @property
    def spent_s(self) -> float:
        """Seconds from the start to the last reading: the time that the joules are of."""
        return (self._last_ns - self._start_ns) / clock.NS_PER_S

    def start(self) -> None:
        """Begin at nought. What this reading says is of the time before, so it counts for nothing."""
        self._provider.read()
        self._start_ns = self._last_ns = clock.mono_ns()
        self._joules = 0.0

    def tick(self) -> None:
        """Read, if it is time to."""
        if clock.mono_ns() - self._last_ns >= _READ_EVERY_NS:
            self._read()

    def stop(self) -> float | None:
        """Joules since the start; None if a reading was unknown."""
        self._read()
        return self._joules

    def idle(self, seconds: float) -> float | None:
        """Watts of the machine with the engines loaded and still."""
        self.start()
        while self.spent_s < seconds:
            clock.sleep_s(_READ_EVERY_NS / clock.NS_PER_S)
            self._read()
        joules = self.stop()
        return None if joules is None else joules / self.spent_s

    def _read(self) -> None:
        sample = self._provider.read()
        now_ns = clock.mono_ns()
        self.estimated = self.estimated or sample.power_estimated
        if sample.power_w is None or self._joules is None:
            self._joules = None
        else:
            self._joules += sample.power_w * (now_ns - self._last_ns) / clock.NS_PER_S
        self._last_ns = now_ns


def _turn(
    bench: _Bench, meter: _Meter, idle_w: float | None, into: _Measured, name: str, batch: int, seconds: float
) -> None:
    meter.start()
    start_ns = clock.mono_ns()
    while (clock.mono_ns() - start_ns) / clock.NS_PER_S < seconds:
        into.latencies_ms += bench.run(name, batch, 1)
        into.frames += batch
        meter.tick()
    joules = meter.stop()
    if joules is None or idle_w is None or into.energy_j is None:
        into.energy_j = None
    else:
        into.energy_j += joules - idle_w * meter.spent_s


def _run(bundle: Bundle, runtime: str, name: str, batch: int, found: _Measured) -> ProfiledRun:
    file = select_file(bundle.variant(name), runtime, platform.machine())
    p50, p90, p99 = (round(float(value), 4) for value in np.percentile(found.latencies_ms, (50, 90, 99)))
    energy_j = None if found.energy_j is None else round(max(found.energy_j / found.frames, 0.0), 6)
    return ProfiledRun(
        variant=name,
        sha256=file.sha256,
        batch=batch,
        clock=0,
        latency_p50_ms=p50,
        latency_p90_ms=p90,
        latency_p99_ms=p99,
        runs=len(found.latencies_ms),
        energy_j=energy_j,
    )
