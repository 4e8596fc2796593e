"""`edged-calibrate build [BUNDLE]`: TensorRT engines for this very device, and in plain words what they really are.

Exit 0 if every variant that has an ONNX file for TensorRT has an engine then, 1 if one could not be built.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from edged import clock
from edged.config import Config, EngineConfig, default_path, load
from edged.errors import UsageError
from edged.terminal import console, table
from edged_calibration.tensorrt.build import BuiltVariant, build_bundle
from edged_calibration.tensorrt.timing import Stopwatch

PLAIN_EVERY_NS: Final = 60 * clock.NS_PER_S
"""Without a terminal, as in the journal, so often a line says how far it is."""
_OUTCOMES: Final = {"built": "built", "current": "up to date", "failed": "failed", "no source": "left out"}


def run(arguments: argparse.Namespace) -> int:
    directory, config = configured(arguments)
    max_batch = arguments.max_batch or (EngineConfig() if config is None else config.engine).max_batch
    with TerminalWatcher(Console(stderr=True, highlight=False)) as watcher:
        done = build_bundle(directory, max_batch, watcher, arguments.again)
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode(done), indent=2).decode())
    else:
        _show(done)
    return int(any(variant.outcome == "failed" for variant in done))


def configured(arguments: argparse.Namespace) -> tuple[Path, Config | None]:
    """The bundle that is named, else the configuration's; and the configuration, where one was needed or named."""
    path = default_path(arguments.config)
    config = None
    if arguments.config is not None or arguments.bundle is None:
        if not path.exists():
            raise UsageError(f"there is no {path} that would name a bundle", "give the directory of one: BUNDLE")
        config = load(path)
    directory = arguments.bundle if config is None or arguments.bundle is not None else Path(config.bundle)
    return directory, config


class TerminalWatcher:
    """A bar with the time left on a terminal; elsewhere a line at the beginning and one a minute."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (
            TextColumn("{task.description}"), BarColumn(20), TextColumn("{task.fields[left]}"), TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[phase]}"),
        )  # fmt: skip
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("", left="", phase="", visible=False)
        self._stopwatch = Stopwatch(None)
        self._title = ""
        self._told_ns = 0

    def __enter__(self) -> TerminalWatcher:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def waits(self, pid: str) -> None:
        self._console.print(f"another build of this bundle (pid {pid}) is under way: waiting for it to end")

    def begins(self, variant: str, number: int, count: int, stopwatch: Stopwatch) -> None:
        self._stopwatch, self._title, self._told_ns = stopwatch, f"{variant}, {number} of {count}", clock.mono_ns()
        self._console.print(f"{self._title}: {self._left()}")
        self._bar.reset(self._task, total=None, description=self._title, left="", phase="", visible=True)

    def advance(self, phase: str, step: int, steps: int) -> None:
        left_s, elapsed_s = self._stopwatch.left_s(), self._stopwatch.elapsed_s
        what = f"{phase[:40]} {step}/{steps}"
        if left_s is None:
            self._bar.update(self._task, phase=what)
        else:
            self._bar.update(
                self._task, total=elapsed_s + left_s, completed=elapsed_s, left=f"{_span(left_s)} left", phase=what
            )
        now_ns = clock.mono_ns()
        if not self._console.is_terminal and now_ns - self._told_ns >= PLAIN_EVERY_NS:
            self._told_ns = now_ns
            self._console.print(f"{self._title}: after {_span(elapsed_s)} at {what}; {self._left()}")

    def ends(self) -> None:
        self._bar.update(self._task, visible=False)
        self._console.print(f"{self._title}: took {_span(self._stopwatch.elapsed_s)}")

    def _left(self) -> str:
        left_s = self._stopwatch.left_s()
        return "how long is not known, the first time here" if left_s is None else f"about {_span(left_s)} left"


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _show(done: list[BuiltVariant]) -> None:
    out = console()
    rows = []
    for variant in done:
        file = variant.file
        layers = None if file is None or file.built is None else file.built.layers
        counts = ["unknown"] * 4
        if layers is not None:
            found = (layers.weighted, layers.int8, layers.sparse_used, layers.sparse_eligible)
            counts = ["not reported" if count is None else str(count) for count in found]
        cells = [] if file is None else [*counts, f"{file.bytes / 2**20:.1f}"]
        rows.append((variant.name, _OUTCOMES[variant.outcome], *cells, *[""] * (5 - len(cells))))
    out.print(table(("variant", "", ">layers", ">in INT8", ">sparse", ">could be", ">MiB"), rows))
    for variant in done:
        if variant.why is not None:
            out.print(f"{variant.name}: {variant.why}", markup=False)
        for warning in variant.warnings:
            out.print(f"warning: {warning}", style="yellow", markup=False)
