"""Every runtime that works here, with every variant of the bundle: loaded, run, compared with ONNX Runtime on the CPU.

The pictures are rendered, the same everywhere, so that two devices' reports can be laid side by side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edged import clock
from edged.checks.finding import Figures, Finding
from edged.config import EngineConfig
from edged.engines import ort_cuda, trt
from edged.engines.bundle import Bundle
from edged.engines.device_profile import Conditions, load_profile, measure_hint
from edged.engines.loading import PoolVariant
from edged.engines.pool import NothingRunsError, Pool
from edged.errors import EdgedError
from edged.frames.frame import PixelFormat
from edged.synthetic.scene import Scene
from edged.vision.letterbox import open_letterboxer

LEAST_DB: Final = {"fp32": 60.0, "fp16": 30.0, "int8": 12.0}
"""Signal to noise against the CPU's FP32 kernels on the same file: below, the engine computes something else. INT8's
tensors round at other places on each runtime, which alone costs some 20 dB."""
MOST_DB: Final = 200.0
"""For outputs that are the same; its negative for outputs that are no numbers."""
ROUNDS: Final = 50


def engines(bundle: Bundle, max_batch: int, power_mode: str | None = None) -> Iterator[Finding]:
    """One runtime after the other; each finding is yielded as soon as it is there."""
    spec = bundle.manifest.input
    pictures = _pictures(spec.width, spec.height, max_batch)
    wanted: dict[str, dict[str, NDArray[Any]]] = {}
    for device in ("cpu", "cuda", "tensorrt"):
        missing = {"cpu": None, "cuda": ort_cuda.why_not(), "tensorrt": trt.why_not()}[device]
        if missing is not None:
            yield Finding("untested", f"engines on {device}", missing)
            continue
        if device == "cpu" and not spec.raw:
            yield Finding("untested", "engines on cpu", f"the bundle's input is {spec.dtype}, which a GPU prepares")
            continue
        try:
            with Pool.open(bundle, EngineConfig(device=device, max_batch=max_batch)) as pool:
                letterboxer = open_letterboxer(spec, pool)
                box = letterboxer.geometry(spec.width, spec.height)
                for index in range(pool.max_batch):
                    letterboxer.fill(box, pictures[index], PixelFormat.BGR24, 0, index)
                yield _profile(bundle, pool, power_mode)
                for variant in pool.variants:
                    yield _variant(pool, variant, device, wanted)
                    if device == "tensorrt" and variant.refused is None:
                        yield _layers(bundle, variant)
        except NothingRunsError as error:
            yield from (_refused(variant, device) for variant in error.variants)
        except EdgedError as error:
            yield Finding("failed", f"engines on {device}", error.message)


def _profile(bundle: Bundle, pool: Pool, power_mode: str | None) -> Finding:
    """The device profile that the daemon would use with these engines."""
    subject = f"device profile on {pool.device}"
    here = Conditions(pool.machine, pool.device, power_mode)
    try:
        profile = load_profile(bundle.directory, here, pool.digests)
    except EdgedError as error:
        return Finding("failed", subject, f"not used: {error.message}", error.hint)
    if profile is None:
        return Finding("untested", subject, "the bundle has none of this device", measure_hint(bundle.directory, here))
    figures: Figures = {"runs": len(profile.runs), "batches": len({run.batch for run in profile.runs})}
    figures |= {"clocks": max(1, len(profile.clocks_mhz)), "power mode": profile.power_mode}
    figures |= {"idle_w": profile.idle_w[-1] if profile.idle_w else None}
    figures["thermal constants"] = None if profile.thermal is None else "measured"
    return Finding("ok", subject, "fits the engines", figures=figures)


def _refused(variant: PoolVariant, device: str) -> Finding:
    """A file that is there and does not run is a fault; one that is not there, or is for another place, is not."""
    why = variant.refused or ""
    return Finding("untested" if variant.file is None else "failed", f"{variant.name} on {device}", why)


def _variant(pool: Pool, variant: PoolVariant, device: str, wanted: dict[str, dict[str, NDArray[Any]]]) -> Finding:
    """The pictures lie in lane 0, for all variants."""
    subject = f"{variant.name} on {device}"
    if variant.refused is not None:
        return _refused(variant, device)
    pool.select(variant.name)
    pool.submit(0, pool.max_batch)
    outputs = {name: array.astype(np.float64) for name, array in pool.collect(0).items()}
    figures: Figures = {f"batch {n}_ms": round(_median_ms(pool, n), 3) for n in range(1, pool.max_batch + 1)}
    if device == "cpu":
        wanted[variant.name] = outputs
        return Finding("ok", subject, "runs", figures=figures)
    if variant.name not in wanted:
        return Finding("untested", subject, "runs; there is nothing to compare it with", figures=figures)
    worst_db = min(_snr_db(wanted[variant.name][name], array) for name, array in outputs.items())
    figures["against the cpu_db"] = round(worst_db, 1)
    right = worst_db >= LEAST_DB[variant.precision]
    text = "agrees with the CPU" if right else "does not agree"
    return Finding("ok" if right else "failed", subject, text, figures=figures)


def _layers(bundle: Bundle, variant: PoolVariant) -> Finding:
    """What the build found: whether the plan computes in INT8 and sparse, as its variant is called."""
    subject = f"{variant.name}, its layers"
    file = next((f for f in bundle.variant(variant.name).files if f.path == variant.file), None)
    layers = None if file is None or file.built is None else file.built.layers
    if layers is None:
        return Finding("untested", subject, "its layers are not known: build it again, edged-calibrate build --again")
    figures: Figures = {
        "with weights": layers.weighted, "int8": layers.int8, "sparse possible": layers.sparse_eligible,
        "sparse used": layers.sparse_used,
    }  # fmt: skip
    wrong = (variant.precision == "int8" and not layers.int8) or (variant.sparse and layers.sparse_used == 0)
    text = "not what it is called" if wrong else "as called"
    return Finding("failed" if wrong else "ok", subject, text, figures=figures)


def _median_ms(pool: Pool, batch: int) -> float:
    taken = []
    for _ in range(ROUNDS):
        begun = clock.mono_ns()
        pool.submit(0, batch)
        pool.collect(0)
        taken.append((clock.mono_ns() - begun) / clock.NS_PER_MS)
    return median(taken)


def _snr_db(want: NDArray[Any], have: NDArray[Any]) -> float:
    noise = float(np.mean((have - want) ** 2))
    signal = float(np.mean(want**2))
    if not math.isfinite(noise):
        return -MOST_DB
    return MOST_DB if noise == 0 else min(MOST_DB, 10 * math.log10(max(signal, 1e-30) / noise))


def _pictures(width: int, height: int, count: int) -> NDArray[np.uint8]:
    scene, pictures = Scene(11, width, height), np.empty((count, height, width, 3), np.uint8)
    for index, picture in enumerate(pictures):
        scene.render(index * 40, picture)
    return pictures
