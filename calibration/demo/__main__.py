"""Build the shipped demo model: `python -m calibration.demo [--iterations N] [--out DIR]`. Needs `edged[train]`."""

from __future__ import annotations

import argparse
import hashlib
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from calibration.calibrators import ranges
from calibration.demo.data import (
    CALIBRATION_SEED,
    HELD_OUT_SEED,
    HELD_OUT_TEXTURES,
    TRAINING_TEXTURES,
    calibration_images,
    held_out,
)
from calibration.demo.detect import DECODER, INPUT, measure
from calibration.demo.export import PIXEL_RANGE, PIXELS, export, on_pictures
from calibration.evaluate import Accuracy
from calibration.graph import session
from calibration.halve import halve
from calibration.package import drift_statistics, engine_file, write_bundle
from calibration.quantize import calibrate, quantize
from edged.engines.manifest import EngineFile, Manifest, VariantSpec
from edged.frames.scene import LABELS

try:
    from calibration.demo import stages
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    sys.exit("calibration.demo: training needs PyTorch\n  hint: pip install 'edged[train]'")

SHIPPED = Path(__file__).parents[2] / "edged" / "bundles" / "demo"
CALIBRATION_IMAGES = 128

# On two cores of 2.6 GHz; an estimate to be told before a stage starts, the bar knows better soon after.
_SECONDS_PER_ITERATION, _SECONDS_PER_PRUNING, _SECONDS_PER_IMAGE = 0.28, 15.0, 0.012

console = Console()

Advance = Callable[[int], None]


@contextmanager
def stage(title: str, total: int, estimate_s: float) -> Iterator[Advance]:
    """Show one stage: its estimate, then a bar, or a line every tenth where there is no terminal.

    Yields what is to be called with the number of steps done so far.
    """
    console.print(f"{title}: about {max(estimate_s / 60, 0.1):.1f} min")
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("left"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total)
        tenth = max(total // 10, 1)

        def advance(done: int) -> None:
            bar.update(task, completed=done)
            if not console.is_terminal and done % tenth == 0:
                console.print(f"  {done}/{total}")

        yield advance


def main() -> None:
    arguments = _parse()
    arguments.work.mkdir(parents=True, exist_ok=True)
    plan = stages.Plan(arguments.iterations, max(arguments.iterations // 3, 1), arguments.work)
    dense, sparse = _train(plan)
    calibration = calibration_images(CALIBRATION_IMAGES)
    models = _files(dense, sparse, calibration)
    accuracies = _evaluate(models, arguments.images)
    contents = {name: model.SerializeToString() for name, model in models.items()}
    manifest = _manifest(contents, accuracies, calibration, plan)
    write_bundle(arguments.out, manifest, contents)
    total = sum(len(content) for content in contents.values())
    console.print(f"packaged {arguments.out}: {len(contents)} files, {total / 1e6:.2f} MB")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m calibration.demo",
        description="Train, prune, quantise, measure and package the demo model; deterministic for its arguments.",
        epilog="example: python -m calibration.demo --work /tmp/demo --out /tmp/demo/bundle",
    )
    parser.add_argument("--iterations", type=int, default=2400, help="batches of 32 pictures (default %(default)s)")
    parser.add_argument("--images", type=int, default=1000, help="held-out pictures to measure on (%(default)s)")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="where the bundle goes (default: the shipped one)")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("demo-work"),
        help="results of stages, reused by the next run; delete it after changing the recipe (default %(default)s)",
    )
    arguments = parser.parse_args()
    if arguments.iterations < 1 or arguments.images < 1:
        parser.error("--iterations and --images are at least 1")
    return arguments


def _train(plan: stages.Plan) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The dense and the sparse model as float graphs."""

    def shown(advance: Advance) -> stages.Progress:
        return lambda done, loss: advance(done)

    with stage("train", plan.iterations, plan.iterations * _SECONDS_PER_ITERATION) as advance:
        base = stages.trained(plan, shown(advance))
    with stage("prune the 3x3 layers to 2:4", 1, _SECONDS_PER_PRUNING):
        masks = stages.pruning_masks(plan, base)
    with stage("fine-tune dense", plan.tuning, plan.tuning * _SECONDS_PER_ITERATION) as advance:
        dense = stages.tuned_dense(plan, base, shown(advance))
    with stage("fine-tune sparse", plan.tuning, plan.tuning * _SECONDS_PER_ITERATION) as advance:
        sparse = stages.tuned_sparse(plan, base, masks, shown(advance))
    return export(dense), export(sparse)


def _files(
    dense: onnx.ModelProto, sparse: onnx.ModelProto, calibration: NDArray[np.uint8]
) -> dict[str, onnx.ModelProto]:
    """File name -> graph on raw pictures.

    One FP16 file serves both runtimes: where a processor has no FP16, ONNX Runtime computes it in float, within 1 % of
    the time that a float file takes. There is no dense INT8 variant because the bundle is to stay below 3 MB.
    """
    with stage("calibrate and quantise", 1, 10):
        measured = ranges(calibrate(sparse, stages.feeds(calibration))) | {PIXELS: PIXEL_RANGE}
        return {
            "fp16.onnx": halve(on_pictures(dense, "cast")),
            "int8-sparse.x86_64.onnx": on_pictures(quantize(sparse, measured, "x86"), "dequantize"),
            "int8-sparse.aarch64.onnx": on_pictures(quantize(sparse, measured, "arm"), "dequantize"),
            "int8-sparse.tensorrt.onnx": on_pictures(quantize(sparse, measured, "trt"), "cast"),
        }


def _evaluate(models: dict[str, onnx.ModelProto], images: int) -> dict[str, Accuracy]:
    """Accuracy of every file, run as it is by ONNX Runtime, on pictures and grounds that no training saw."""
    labelled = held_out(images)
    found = {}
    for name, model in models.items():
        with stage(f"evaluate {name}", images, images * _SECONDS_PER_IMAGE) as advance:
            found[name] = measure(session(model), labelled, advance)
        console.print("  " + ", ".join(f"{metric} {value:.4f}" for metric, value in found[name].figures().items()))
    return found


def _manifest(
    contents: dict[str, bytes], accuracies: dict[str, Accuracy], calibration: NDArray[np.uint8], plan: stages.Plan
) -> Manifest:
    def file(runtime: str, arch: str, path: str) -> EngineFile:
        return engine_file(runtime, arch, path, contents[path], accuracies[path])

    half = [file("onnxruntime", "any", "fp16.onnx"), file("tensorrt", "any", "fp16.onnx")]
    sparse = [
        file("onnxruntime", "x86_64", "int8-sparse.x86_64.onnx"),
        file("onnxruntime", "aarch64", "int8-sparse.aarch64.onnx"),
        file("tensorrt", "any", "int8-sparse.tensorrt.onnx"),
    ]
    return Manifest(
        version=1,
        name="demo",
        task="detect",
        labels=list(LABELS),
        input=INPUT,
        output=DECODER,
        metric="map50_95",
        reference="fp16",
        variants=[VariantSpec("fp16", "fp16", False, half), VariantSpec("int8-sparse", "int8", True, sparse)],
        drift=drift_statistics(calibration),
        provenance=_provenance(calibration, plan),
    )


def _provenance(calibration: NDArray[np.uint8], plan: stages.Plan) -> dict[str, str]:
    tools = ("torch", "onnx", "onnxruntime", "numpy", "opencv-python-headless", "pycocotools")
    seeds = {
        "weights": stages.WEIGHTS_SEED,
        "training": stages.TRAINING_SEED,
        "tuning": stages.TUNING_SEED,
        "pruning": stages.PRUNING_SEED,
        "calibration": CALIBRATION_SEED,
        "held-out": HELD_OUT_SEED,
        "training textures": TRAINING_TEXTURES,
        "held-out textures": HELD_OUT_TEXTURES,
    }
    return {
        "recipe": f"python -m calibration.demo --iterations {plan.iterations}",
        "training": f"{plan.pictures} rendered pictures for either variant, a quarter of them in fine-tuning",
        "sparsity": "2:4 along the input channels of the 3x3 convolutions, masks by optimal brain surgeon, fine-tuned",
        "quantisation": "int8, symmetric weights per output channel, activations by their extremes",
        "calibration_images": str(len(calibration)),
        "calibration_sha256": hashlib.sha256(calibration.tobytes()).hexdigest(),
        "seeds": ", ".join(f"{name} {seed}" for name, seed in seeds.items()),
        "tools": ", ".join([f"python {platform.python_version()}", *(f"{tool} {version(tool)}" for tool in tools)]),
    }


if __name__ == "__main__":
    main()
