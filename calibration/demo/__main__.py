"""Train the demo recipe's float models: `python -m edged_calibration.demo [--iterations N]`. Needs `edged[train]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from edged.files import write_atomic
from edged_calibration.demo.export import export

try:
    from edged_calibration.demo import stages
    from edged_calibration.demo.model import Detector
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    sys.exit("edged_calibration.demo: training needs PyTorch\n  hint: pip install 'edged[train]'")

SHIPPED = Path(__file__).parents[1] / "recipes" / "demo"

# On two cores of 2.6 GHz; an estimate shown before a stage starts; the progress bar corrects it soon.
_SECONDS_PER_ITERATION, _SECONDS_PER_PRUNING = 0.28, 15.0

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
    count = arguments.iterations
    plan = stages.Plan(count, max(count // 3, 1), max(count // 2, 1), max(count // 4, 1), arguments.work)
    dense, sparse = _train(plan)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, model in (("dense.onnx", dense), ("sparse.onnx", sparse)):
        write_atomic(arguments.out / name, model.SerializeToString(deterministic=True))
    console.print(f"written to {arguments.out}: dense.onnx, sparse.onnx")
    console.print("now: edged-calibrate all calibration/recipes/demo.toml")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m edged_calibration.demo",
        description="Train the demo's dense model, prune a copy, tune both; deterministic for its arguments.",
        epilog="example: python -m edged_calibration.demo --work /tmp/demo --out /tmp/demo/float",
    )
    parser.add_argument(
        "--iterations", type=int, default=2400, help="batches of 32 pictures in the main training (default %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=SHIPPED, help="where the models go (default: beside the recipe)")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("demo-work"),
        help="results of stages, reused by the next run; delete it after changing the recipe (default %(default)s)",
    )
    arguments = parser.parse_args()
    if arguments.iterations < 1:
        parser.error("--iterations is at least 1")
    return arguments


def _train(plan: stages.Plan) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The dense and the sparse model as float graphs."""

    def trained(title: str, count: int, make: Callable[[stages.Progress], Detector]) -> Detector:
        with stage(title, count, count * _SECONDS_PER_ITERATION) as advance:
            return make(lambda done, loss: advance(done))

    base = trained("train", plan.training, lambda progress: stages.trained(plan, progress))
    settled = trained("settle", plan.settling, lambda progress: stages.settled(plan, base, progress))
    with stage("prune the 3x3 layers to 2:4", 1, _SECONDS_PER_PRUNING):
        masks = stages.pruning_masks(plan, settled)
    dense = trained("tune dense", plan.tuning, lambda progress: stages.tuned_dense(plan, settled, progress))
    tuned = trained("tune sparse", plan.tuning, lambda progress: stages.tuned_sparse(plan, settled, masks, progress))
    sparse = trained("recover sparse", plan.recovery, lambda progress: stages.recovered(plan, tuned, masks, progress))
    return export(dense), export(sparse)


if __name__ == "__main__":
    main()
