"""A real GPU: a frame in the ring to a result on the host against the bare engine; the kernel; the host's share.

Sides alternate in each round; medians are quoted. The models are MobileNetV2 and ResNet-50 with generated weights, in
FP16 on ONNX Runtime's CUDA provider. Needs a GPU, edged[cuda] and edged[calibration]; says so where they are missing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edged import clock
from edged.engines import cuda, ort_cuda
from edged.engines.cuda import Gpu, check
from edged.engines.engine import ModelTensors, TensorSpec
from edged.engines.gpu_memory import GpuMemory
from edged.engines.manifest import InputSpec
from edged.engines.ort_cuda import OrtCudaEngine, OrtCudaRuntime
from edged.engines.scaler import Kind, Scaler, Target
from edged.errors import UsageError
from edged.frames.frame import PixelFormat
from edged.frames.ring import RingReader, RingSpec, RingWriter, create, unlink
from edged.vision.letterbox import GpuLetterboxer, fit
from edged_calibration import zoo
from edged_calibration.fp16 import halve
from edged_calibration.recipe.input_normalisation import IMAGE, Normalisation, on_pictures
from scripts.benches.report import Figure, Report

MODELS = ("mobilenet-v2", "resnet-50")
SIDE = 224
CAMERA = (1920, 1080)
BATCHES = (1, 8)
PATH_TARGET = 1.10
KERNEL_TARGET = 0.80
HOST_TARGET_US = 100.0
SWITCH_TARGET_US = 20.0
SECTOR = 32
"""What a GPU reads at least of its memory, bytes."""


def measure(quick: bool = False) -> Report:
    missing = ort_cuda.why_not()
    if missing is not None:
        raise UsageError(f"bench gpu: {missing}", "run it on a machine with an NVIDIA GPU and edged[cuda]")
    report = Report("gpu")
    rounds = 5 if quick else 15
    with _ring() as pixels:
        bench = _Bench(pixels)
        report.notes["gpu"] = bench.gpu.name
        report.notes["bus, GB/s"] = round(bench.bus_gb_s, 1)
        bench.paths(report, rounds)
        bench.switch(report, rounds)
        bench.close()
    kernel(report, rounds)
    return report


@contextlib.contextmanager
def _ring() -> Iterator[NDArray[np.uint8]]:
    """One frame of noise in a camera's ring, as the daemon maps it."""
    name = f"edged-bench-{os.getpid()}"
    spec = RingSpec(*CAMERA, PixelFormat.NV12)
    create(name, spec)
    try:
        writer = RingWriter(name)
        writer.begin()[:] = np.random.default_rng(0).integers(0, 256, spec.shape, np.uint8)
        writer.commit(1, 1, 1, "arrival")
        reader = RingReader(name)
        frame = reader.latest()
        assert frame is not None
        yield reader.pixels(frame.slot)
    finally:
        unlink(name)


@dataclass
class _Bench:
    """Both models resident on one runtime, as variants of one bundle would be."""

    pixels: NDArray[np.uint8]

    def __post_init__(self) -> None:
        runtime = OrtCudaRuntime(1)
        spec = InputSpec(IMAGE, SIDE, SIDE)
        image, logits = TensorSpec(IMAGE, "uint8", (SIDE, SIDE, 3)), TensorSpec("logits", "float32", (-1,))
        self.memory: GpuMemory = runtime.memory(spec, image, max(BATCHES))
        self.gpu: Gpu = self.memory.gpu
        self.letterboxer = GpuLetterboxer(spec, self.memory.scaler)
        self.box = self.letterboxer.geometry(*CAMERA)
        even = Normalisation((127.5,) * 3, (64.0,) * 3)
        self.engines: dict[str, OrtCudaEngine] = {}
        for name in MODELS:
            model = on_pictures(halve(zoo.build(name, SIDE)), even, "cast")
            tensors = ModelTensors(image, (logits,))
            self.engines[name] = runtime.load(model.SerializeToString(), f"{name}.onnx", tensors, self.memory)
        self.bus_gb_s = self._bus()

    def _bus(self) -> float:
        size = 64 << 20
        _, address = self.gpu.pinned((size,), "uint8")
        to = self.gpu.device(size)
        return size / _gpu_ms(self.gpu, lambda: self.gpu.copy(to, address, size), 5) / 1e6

    def run(self, engine: OrtCudaEngine, batch: int) -> None:
        """The whole path: frames in the ring to results on the host."""
        for index in range(batch):
            self.letterboxer.fill(self.box, self.pixels, PixelFormat.NV12, 0, index)
        engine.submit(0, batch)
        engine.collect(0)

    def bare(self, engine: OrtCudaEngine, batch: int) -> None:
        """The captured engine alone, on what lies in its input."""
        bound = engine._bound[0][batch - 1]
        engine._session.run_with_iobinding(bound.binding, bound.options)
        self.gpu.wait()

    def paths(self, report: Report, rounds: int) -> None:
        copy_us = self.pixels.nbytes / self.bus_gb_s / 1e3
        for name, engine in self.engines.items():
            for batch in BATCHES:
                ways = {"path": lambda: self.run(engine, batch), "bare": lambda: self.bare(engine, batch)}  # noqa: B023
                times = _alternate(ways, rounds, 60)
                ratios = [p / (b + batch * copy_us) for p, b in zip(times["path"], times["bare"], strict=True)]
                report.figures.append(
                    Figure(f"path of {name}, batch {batch}", median(ratios), "x", PATH_TARGET, spread=_ends(ratios))
                )
                report.notes[f"{name}, batch {batch}, us: path, bare, copies"] = (
                    f"{median(times['path']):.0f}, {median(times['bare']):.0f}, {batch * copy_us:.0f}"
                )
        for batch in BATCHES:
            host_us = median(self._host_us(self.engines[MODELS[0]], batch) for _ in range(rounds)) / batch
            name = f"host time per frame outside the driver, batch {batch}"
            report.figures.append(Figure(name, host_us, "us", HOST_TARGET_US))

    def _host_us(self, engine: OrtCudaEngine, batch: int) -> float:
        """Of one batch: the whole path's time less that of every call of the driver and of ONNX Runtime."""
        spent = [0]
        with _clocked(spent, engine):
            begun = clock.mono_ns()
            for _ in range(20):
                self.run(engine, batch)
            whole = clock.mono_ns() - begun
        return (whole - spent[0]) / 20 / 1000

    def switch(self, report: Report, rounds: int) -> None:
        """What the first batch on another variant costs the host more than one on the same; and what memory."""
        a, b = self.engines.values()

        def submits(order: list[OrtCudaEngine]) -> float:
            taken = 0
            for engine in order * 20:
                begun = clock.mono_ns()
                engine.submit(0, 1)
                taken += clock.mono_ns() - begun
                engine.collect(0)
            return taken / len(order) / 20 / 1000

        submits([a, b])
        free = self.gpu.free_bytes()
        ways = {"steady": lambda: (submits([a, a]) + submits([b, b])) / 2, "mixed": lambda: submits([a, b])}
        extra = []
        for n in range(rounds):
            figures = {name: ways[name]() for name in (list(ways) if n % 2 else list(ways)[::-1])}
            extra.append(figures["mixed"] - figures["steady"])
        figure = Figure("a switch, host time", median(extra), "us", SWITCH_TARGET_US, spread=_ends(extra))
        report.figures.append(figure)
        report.figures.append(Figure("memory taken by switches", free - self.gpu.free_bytes(), "bytes", 0))

    def close(self) -> None:
        for engine in self.engines.values():
            engine.close()
        self.memory.close()


def kernel(report: Report, rounds: int) -> None:
    """4K frames into 640x640: bytes that must move (distinct sectors read, everything written) over the time, as a
    share of what a copy on the device moves. 32 frames a launch, far more than the cache holds."""
    gpu, frames, (width, height) = Gpu(), 32, (3840, 2160)
    size = 1 << 30
    a, b = gpu.device(size), gpu.device(size)
    copy_gb_s = 2 * size / median(_gpu_ms(gpu, lambda: gpu.copy(a, b, size), 3) for _ in range(rounds)) / 1e6
    report.notes["copy on the device, GB/s"] = round(copy_gb_s)
    box = fit(width, height, 640, 640)
    kinds: tuple[Kind, ...] = ("uint8", "float16")
    for format_ in PixelFormat:
        for kind in kinds:
            target = Target(640, 640, 114, kind)
            scaler = Scaler(gpu, target, 1, frames)
            pixels = _on_device(gpu, RingSpec(width, height, format_), frames)
            for index, address in enumerate(pixels):
                scaler.place(0, index, address, format_.nv12_kind, box)
            moved = frames * (
                _read_bytes(format_, width, height, box.scaled_width, box.scaled_height) + target.frame_bytes
            )
            shares = [moved / _gpu_ms(gpu, lambda: scaler.again(0, frames), 5) / 1e6 / copy_gb_s for _ in range(rounds)]  # noqa: B023
            report.figures.append(
                Figure(
                    f"kernel, 4K {format_.name} to {kind}",
                    median(shares),
                    "of a copy",
                    KERNEL_TARGET,
                    "at least",
                    _ends(shares),
                )
            )
            scaler.close()
    gpu.close()


def _on_device(gpu: Gpu, spec: RingSpec, frames: int) -> list[int]:
    """Addresses of that many frames of noise on the GPU."""
    host, source = gpu.pinned((spec.pixel_bytes,), "uint8")
    host[:] = np.random.default_rng(1).integers(0, 256, spec.pixel_bytes, np.uint8)
    base = gpu.device(frames * spec.slot_bytes)
    addresses = [base + n * spec.slot_bytes for n in range(frames)]
    for address in addresses:
        gpu.copy(address, source, spec.pixel_bytes)
    gpu.wait()
    return addresses


def _read_bytes(format_: PixelFormat, width: int, height: int, scaled_width: int, scaled_height: int) -> int:
    """Of one frame, in whole sectors: what bilinear scaling cannot do without."""

    def plane(width: int, height: int, scaled_width: int, scaled_height: int, pixel: int) -> int:
        def neighbours(source: int, scaled: int) -> NDArray[np.int64]:
            first = np.floor((np.arange(scaled) + 0.5) * source / scaled - 0.5).astype(np.int64).clip(0, source - 1)
            return np.unique(np.concatenate([first, np.minimum(first + 1, source - 1)]))

        columns = neighbours(width, scaled_width) * pixel
        sectors = np.unique(np.concatenate([columns // SECTOR, (columns + pixel - 1) // SECTOR]))
        return len(sectors) * SECTOR * len(neighbours(height, scaled_height))

    if format_ is PixelFormat.BGR24:
        return plane(width, height, scaled_width, scaled_height, 3)
    chroma = plane(width // 2, height // 2, scaled_width // 2, scaled_height // 2, 2)
    return plane(width, height, scaled_width, scaled_height, 1) + chroma


def _alternate(ways: dict[str, Callable[[], None]], rounds: int, times: int) -> dict[str, list[float]]:
    """Microseconds a call, the median of each round, the ways in turn."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for work in ways.values():
        for _ in range(10):
            work()
    for n in range(rounds):
        for name in list(ways) if n % 2 else list(ways)[::-1]:
            taken = []
            for _ in range(times):
                begun = clock.mono_ns()
                ways[name]()
                taken.append((clock.mono_ns() - begun) / 1000)
            found[name].append(median(taken))
    return found


def _gpu_ms(gpu: Gpu, work: Callable[[], Any], times: int) -> float:
    """Milliseconds of one `work`, by the GPU's clock."""
    begin, end = (check(cuda.runtime.cudaEventCreateWithFlags(0)) for _ in range(2))
    work()
    check(cuda.runtime.cudaEventRecord(begin, gpu.stream))
    for _ in range(times):
        work()
    check(cuda.runtime.cudaEventRecord(end, gpu.stream))
    check(cuda.runtime.cudaEventSynchronize(end))
    return float(check(cuda.runtime.cudaEventElapsedTime(begin, end))) / times


@contextlib.contextmanager
def _clocked(spent: list[int], engine: OrtCudaEngine) -> Iterator[None]:
    """Adds to `spent` the nanoseconds inside the driver's bindings and ONNX Runtime."""

    def clocked(call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            begun = clock.mono_ns()
            try:
                return call(*arguments)
            finally:
                spent[0] += clock.mono_ns() - begun

        return timed

    class Clocked:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            value = getattr(self._inner, name)
            if callable(value) and not isinstance(value, type):
                value = clocked(value)
            setattr(self, name, value)
            return value

    before = cuda.runtime, cuda.driver, engine._session
    cuda.runtime, cuda.driver, engine._session = (Clocked(inner) for inner in before)
    try:
        yield
    finally:
        cuda.runtime, cuda.driver, engine._session = before


def _ends(values: list[float]) -> tuple[float, float]:
    return min(values), max(values)
