"""The GPU beneath the engines: the preprocessing kernel against the CPU, and how a camera's pixels reach it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from statistics import median
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edged import clock
from edged.checks.finding import Figures, Finding
from edged.engines import cuda
from edged.engines.cuda import Gpu
from edged.engines.manifest import InputSpec
from edged.engines.scaler import Scaler, Target
from edged.errors import EdgedError
from edged.frames import ring
from edged.frames.frame import PixelFormat
from edged.vision.letterbox import Letterboxer, fit

CAMERA: Final = (1920, 1080)
ROUNDS: Final = 21
LAYOUTS: Final = (PixelFormat.BGR24, PixelFormat.NV12)
"""The other formats lie in memory as NV12 does."""
WORST: Final = {format_: 4 if format_.is_nv12 else 1 for format_ in PixelFormat}
"""Levels of 255 that a pixel may differ: OpenCV's vector code rounds in between, and NV12 doubles that."""


def gpu(spec: InputSpec) -> Iterator[Finding]:
    """Each subject as it is tested; or one finding with the reason why there is no GPU to test."""
    if (missing := cuda.why_not()) is not None:
        yield Finding("untested", "gpu", missing)
        return
    try:
        opened = Gpu()
        with contextlib.closing(opened):
            about: Figures = {
                "compute capability": ".".join(map(str, opened.capability)),
                "free_mib": opened.free_bytes() >> 20,
            }
            kind = "shares the host's memory" if opened.integrated else "has memory of its own"
            yield Finding("ok", "gpu", f"{opened.name}, {kind}", figures=about)
            for format_ in PixelFormat:
                yield from _camera(opened, spec, format_)
    except EdgedError as error:
        yield Finding("failed", "gpu", error.message)


def _camera(opened: Gpu, spec: InputSpec, format_: PixelFormat) -> list[Finding]:
    """One frame in a ring of this format: is it scaled rightly, and is it read where it lies?"""
    name = f"edged-doctor-{os.getpid()}"
    ring.create(name, ring.RingSpec(*CAMERA, format_))
    try:
        writer = ring.RingWriter(name)
        writer.begin()[:] = np.random.default_rng(7).integers(0, 256, writer.spec.shape, np.uint8)
        writer.commit(1, 1, 1, "arrival")
        reader = ring.RingReader(name)
        frame = reader.latest()
        assert frame is not None, "it was just written"
        pixels = reader.pixels(frame.slot)
        found = [_kernel(opened, spec, format_, pixels)]
        if format_ in LAYOUTS:
            found.append(_reach(opened, spec, format_, pixels))
        return found
    finally:
        ring.unlink(name)


def _kernel(opened: Gpu, spec: InputSpec, format_: PixelFormat, pixels: NDArray[np.uint8]) -> Finding:
    plain = InputSpec(spec.name, spec.width, spec.height, spec.pad)
    box, target = fit(*CAMERA, spec.width, spec.height), Target.of(plain)
    scaler = Scaler(opened, target, 1, 1)
    scaler.put(0, 0, pixels, format_.nv12_kind, box)
    scaler.run(0)
    held, address = opened.pinned((spec.height, spec.width, 3), "uint8")
    opened.copy(address, scaler.inputs[0], held.nbytes)
    opened.wait()
    want = np.zeros((1, spec.height, spec.width, 3), np.uint8)
    Letterboxer(plain, [want]).fill(box, pixels, format_, 0, 0)
    scaler.close()
    difference = np.abs(held.astype(int) - want[0])
    right = int(difference.max()) <= WORST[format_]
    return Finding(
        "ok" if right else "failed",
        f"kernel, {format_.name}",
        "scales as the CPU does" if right else "does not give the CPU's pixels",
        figures={"greatest difference": int(difference.max()), "mean difference": round(float(difference.mean()), 4)},
    )


def _reach(opened: Gpu, spec: InputSpec, format_: PixelFormat, pixels: NDArray[np.uint8]) -> Finding:
    """The ring registered with the GPU against a copy by the host, the whole way to the model's input."""
    subject = f"camera's memory, {format_.name}"
    if opened.reach(pixels) is None:
        return Finding(
            "untested", subject, "this GPU does not register a read-only mapping: the host copies each frame"
        )
    box, target = fit(*CAMERA, spec.width, spec.height), Target(spec.width, spec.height, spec.pad)
    scaler = Scaler(opened, target, 1, 1)
    pinned, _ = opened.pinned(pixels.shape, "uint8")

    def scale(source: NDArray[np.uint8]) -> None:
        scaler.put(0, 0, source, format_.nv12_kind, box)
        scaler.run(0)
        opened.wait()

    def copied() -> None:
        np.copyto(pinned, pixels)
        scale(pinned)

    figures: Figures = {
        "read where it lies_us": _median_us(lambda: scale(pixels)),
        "copied by the host first_us": _median_us(copied),
    }
    scaler.close()
    how = "without a copy" if opened.integrated else "copied by the GPU itself"
    return Finding("ok", subject, f"the ring is registered: {how}", figures=figures)


def _median_us(work: Callable[[], None]) -> float:
    work()
    taken = []
    for _ in range(ROUNDS):
        begun = clock.mono_ns()
        work()
        taken.append((clock.mono_ns() - begun) / 1000)
    return round(median(taken), 1)
