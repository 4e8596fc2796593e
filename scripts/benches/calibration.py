"""A ResNet-50 of generated weights through analysis, pruning and quantisation: time, memory; and the demo detector.

The first runs in a process of its own, single-threaded, so that its peak memory is its own. The second measures what
the shipped bundle costs against its float model: accuracy as its manifest has it, and speed side by side, in turns.
"""

from __future__ import annotations

import multiprocessing
import platform
import resource
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx

from scripts.benches.report import Figure, Report

MAX_S, MAX_GIB, MAX_POINTS, MIN_SPEED_UP = 180.0, 4.0, 1.5, 1.5
FRAMES, SIZE = 64, 224
ROUNDS, QUICK_ROUNDS = 200, 20
ROOT = Path(__file__).parents[2]


def measure(quick: bool = False) -> Report:
    report = Report("calibration")
    found = _in_a_process(_resnet, (96 if quick else SIZE, 16 if quick else FRAMES))
    report.figures.append(Figure("ResNet-50: analyse, prune, quantise", found["seconds"], "s", MAX_S))
    report.figures.append(Figure("its peak memory", found["gib"], "GiB", MAX_GIB))
    report.notes["ResNet-50"] = found
    _demo(report, QUICK_ROUNDS if quick else ROUNDS)
    return report


def _in_a_process(work: Any, arguments: tuple[int, int]) -> dict[str, Any]:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=work, args=(theirs, *arguments))
    process.start()
    theirs.close()
    found: dict[str, Any] = ours.recv()
    process.join()
    return found


def _resnet(pipe: Connection, size: int, frames: int) -> None:
    from edged.engines.manifest import InputSpec
    from edged_calibration.analyze import analyze
    from edged_calibration.evaluate.layer_error import measure_errors
    from edged_calibration.graph.model_file import from_zoo
    from edged_calibration.int8.calibrate import ranges
    from edged_calibration.int8.verify import verify_qdq
    from edged_calibration.int8.write import calibrate, quantize
    from edged_calibration.options import SparsifyOptions
    from edged_calibration.recipe.frames import Feeds, open_frames
    from edged_calibration.recipe.input_normalisation import Normalisation
    from edged_calibration.sparsity.apply import sparse_layers, sparsify

    model = from_zoo(f"zoo://resnet-50?size={size}&seed=0")
    pictures = open_frames(f"scene://1?count={frames}", Path(), InputSpec("image", size, size), frames)
    feeds = Feeds(pictures, model.graph.input[0].name, Normalisation((114.0,) * 3, (58.0,) * 3))
    seconds: dict[str, float] = {}
    wall, cpu = time.monotonic(), time.process_time()

    def lap(name: str) -> None:
        seconds[name] = round(time.monotonic() - wall - sum(seconds.values()), 2)

    sparse, sparsity = sparsify(model, feeds, SparsifyOptions())
    lap("prune")
    measured = ranges(calibrate(sparse, feeds))
    lap("calibrate")
    analyze(sparse, measured)
    lap("analyse")
    quantised = quantize(sparse, measured, "trt")
    problems = verify_qdq(quantised, "trt")
    lap("quantise and verify")
    whole_s, cpu_s = time.monotonic() - wall, time.process_time() - cpu
    errors = measure_errors(sparse, quantised, feeds[:1])
    pipe.send(
        {
            "seconds": whole_s,
            "cpu_seconds": round(cpu_s, 1),
            "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20),
            "parameters_million": round(float(sum(np.prod(t.dims) for t in model.graph.initializer)) / 1e6, 1),
            "frames": frames,
            "laps": seconds,
            "sparse_layers": f"{sum(sparse_layers(quantised).values())} of {sparsity.eligible} eligible, in INT8",
            "broken_rules": len(problems),
            "output_sqnr_db": errors.outputs,
            "worst_layers": {error.node: error.sqnr_db for error in errors.layers[:3]},
        }
    )
    pipe.close()


def _demo(report: Report, rounds: int) -> None:
    from edged.engines.bundle import load_bundle, select_file
    from edged_calibration.recipe.input_normalisation import on_pictures
    from edged_calibration.recipe.inputs import Inputs
    from edged_calibration.recipe.schema import load_recipe

    bundle = load_bundle(ROOT / "edged" / "bundles" / "demo")
    inputs = Inputs(load_recipe(ROOT / "calibration" / "recipes" / "demo.toml"))
    entry = select_file(bundle.variant("int8-sparse"), "onnxruntime", platform.machine())
    metric = bundle.manifest.metric
    floats = bundle.manifest.provenance["float"].split(", ")
    whole = next(float(text.split()[1]) for text in floats if text.split()[0] == metric)
    drop = (whole - entry.accuracy[metric]) * 100
    report.figures.append(Figure("demo int8-sparse below float", drop, "points", MAX_POINTS))
    float_file = on_pictures(inputs.model, inputs.normalisation, "cast")
    ratios = _speed_up(float_file, onnx.load(bundle.directory / entry.path), rounds)
    low, high = (float(value) for value in np.percentile(ratios, (5, 95)))
    speed_up = Figure("demo int8-sparse against float", median(ratios), "times", MIN_SPEED_UP, "at least", (low, high))
    report.figures.append(speed_up)


def _speed_up(first: onnx.ModelProto, second: onnx.ModelProto, rounds: int) -> list[float]:
    """Time of the first file over that of the second, run in turns on one thread."""
    from edged_calibration.graph.index import session
    from edged_calibration.recipe.input_normalisation import IMAGE

    running = [session(model) for model in (first, second)]
    shape = [side if isinstance(side, int) else 1 for side in running[0].get_inputs()[0].shape]
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    ratios = []
    for number in range(rounds + 5):
        times = []
        for each in running:
            start_ns = time.perf_counter_ns()
            each.run(None, {IMAGE: image})
            times.append(time.perf_counter_ns() - start_ns)
        if number >= 5:
            ratios.append(times[0] / times[1])
    return ratios
