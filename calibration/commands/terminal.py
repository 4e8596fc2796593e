"""What the commands share: a job from the arguments, its progress on stderr, JSON on stdout. No command."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from edged.engines.decoder_spec import ClassifyDecoder
from edged.errors import UsageError
from edged.files import write_atomic
from edged_calibration.bundle.files import File
from edged_calibration.cache import StepCache, as_json, disk_faults_told
from edged_calibration.job import Job
from edged_calibration.options import QuantizeOptions, SparsifyOptions
from edged_calibration.progress import Advance
from edged_calibration.recipe.schema import (
    CalibrationOptions,
    InputOptions,
    Recipe,
    RecipeFile,
    ValidationOptions,
    VariantOptions,
    load_recipe,
)

_QUICK_S = 2.0  # what takes no longer needs no bar


class TerminalStages:
    """Each stage a line on stderr: a bar while it runs where there is a terminal, then how long it took."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)

    @contextlib.contextmanager
    def stage(self, title: str) -> Iterator[Advance]:
        start = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal) as bar:
            task = bar.add_task(title, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        seconds = time.monotonic() - start
        if seconds >= _QUICK_S or self._console.is_terminal:
            self._console.print(f"{title}: {seconds:.1f} s")

    def say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)  # a warning stays one line where it is read by a program


@contextlib.contextmanager
def job(arguments: argparse.Namespace) -> Iterator[Job]:
    """The job of a recipe, in its own cache; of a bare model, in one that goes when the command ends."""
    if arguments.source.suffix == ".toml":
        file = load_recipe(arguments.source)
        directory = arguments.work or out_of(arguments, file).with_name(f"{out_of(arguments, file).name}.work")
        with StepCache(directory) as cache:
            yield Job(file, cache, TerminalStages())
        return
    if not hasattr(arguments, "frames"):
        raise UsageError(f"{arguments.source} is not a recipe", "give a .toml; calibration/recipes has examples")
    with (
        tempfile.TemporaryDirectory(prefix="edged-calibrate-") as scratch,
        StepCache(arguments.work or Path(scratch)) as cache,
    ):
        yield Job(_bare(arguments), cache, TerminalStages())


def out_of(arguments: argparse.Namespace, file: RecipeFile) -> Path:
    """Where the bundle of a recipe goes."""
    given: Path | None = getattr(arguments, "out", None) if arguments.command in ("all", "package") else None
    return given or Path("bundles") / file.recipe.name


def needs_frames(arguments: argparse.Namespace) -> None:
    """UsageError for a bare model without pictures, which this command needs."""
    if arguments.source.suffix != ".toml" and not arguments.frames:
        raise UsageError(f"{arguments.command} needs pictures", "give --frames DIR, or a recipe")


def of_precision(arguments: argparse.Namespace, work: Job, precision: str) -> list[VariantOptions]:
    """The recipe's variants of "fp16" or "int8". UsageError if it has none, which this command is for."""
    variants = [variant for variant in work.recipe.variant if variant.precision == precision]
    if not variants:
        raise UsageError(f"{arguments.source} has no {precision} variant", "add one under [[variant]]")
    return variants


def _bare(arguments: argparse.Namespace) -> RecipeFile:
    """A recipe for a model and the options that came with it."""
    width, height = arguments.size or (None, None)
    sparsify, quantize = SparsifyOptions(), QuantizeOptions(method="max")
    if arguments.command == "sparsify":
        sparsify = SparsifyOptions(method=arguments.method, layers=arguments.layers)
    if arguments.command == "quantize":
        quantize = QuantizeOptions(method=arguments.method)
    recipe = Recipe(
        name="model",
        model=str(arguments.source.absolute()),
        output=ClassifyDecoder(logits=""),  # nothing is decoded without a recipe
        calibration=CalibrationOptions(_absolute(arguments.frames or ""), arguments.count),
        validation=ValidationOptions(""),
        variant=[VariantOptions("fp16", "fp16"), VariantOptions("int8", "int8")],
        input=InputOptions(arguments.mean, arguments.std, arguments.color, width=width, height=height),
        sparsify=sparsify,
        quantize=quantize,
    )
    return RecipeFile(arguments.source, recipe, "")


def _absolute(frames: str) -> str:
    return frames if frames.startswith("scene:") else str(Path(frames).absolute())


def write_files(directory: Path | None, files: Mapping[str, File]) -> None:
    """Put the files into a directory, if one is given."""
    if directory is not None:
        with disk_faults_told(directory):
            directory.mkdir(parents=True, exist_ok=True)
            for name, file in files.items():
                write_atomic(directory / name, file.model.SerializeToString(deterministic=True))


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    print(as_json(value).decode(), end="")
