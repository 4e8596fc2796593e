"""The loop closed for real: the demo bundle beside a co-running load that comes and goes, governed and pinned in turn.

One daemon; governed, pinned to the best variant and pinned to the fastest take turns, several rounds of each: quiet,
then under `stress-ng --cpu N` (or as many busy Python processes where it is not installed). A fixed variant runs flat
out: under a deadline so long that no frame is given up for it. The deadline all are judged by is taken from what this
machine shows first: just above what the fastest variant needs under the load. A frame is on time if its result came
within it; those dropped as late count as missed. What a fixed variant fails in is reported: the best one in the
deadline, the fastest in accuracy, which it gives away while the machine is quiet too.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from edged.bus.schema import Result
from edged.client import Client
from edged.commands.plot import check_plot, draw
from edged.errors import UsageError
from edged.governor.messages import Budget, Variant
from edged.replay.run_summary import GivenUp, Ran, RunSummary
from scripts.benches.daemon import RunningDaemon
from scripts.benches.report import Figure, Report

CAMERA = "test://{n}?width=640&height=360&fps=20"
QUANTILE = 0.95
MARGIN = 1.15
FLAT_OUT_MS = 1000.0
SETTLE_S = 3.0
KEPT = 0.25
"""Share of the better variant's additional accuracy that the governor must keep over the fastest alone."""
MISSED = ("late", "overload", "superseded")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("closed-loop")
    group.add_argument("--plot", metavar="FILE.png", help="draw the runs side by side")
    group.add_argument("--phase", type=float, default=20.0, metavar="S", help="seconds of each phase (default 20)")
    group.add_argument(
        "--cameras",
        type=int,
        choices=range(1, 17),
        default=2,
        metavar="N",
        help="1 to 16, of 20 frames a second (default 2)",
    )
    group.add_argument("--rounds", type=int, default=2, metavar="N", help="rounds of all runs (default 2)")


def measure(
    quick: bool = False, plot: str | None = None, phase: float = 20.0, rounds: int = 2, cameras: int = 2
) -> Report:
    if plot:
        check_plot(plot)
        if not plot.lower().endswith(".png"):
            raise UsageError("--plot of a benchmark is a PNG", "name it FILE.png")
    if quick:
        phase, rounds = 8.0, 1
    report = Report("closed-loop")
    sources = {f"cam-{n}": CAMERA.format(n=n) for n in range(1, cameras + 1)}
    with RunningDaemon(sources, FLAT_OUT_MS, extra=f"deadline_quantile = {QUANTILE}") as daemon:
        daemon.wait_live(list(sources))
        variants = sorted(_variants(daemon), key=lambda v: -(v.accuracy or 0.0))
        best, fastest = variants[0].name, variants[-1].name
        deadline_ms = _deadline(daemon, report, best, fastest, phase)
        names = {"governed": None, f"{best} alone": best, f"{fastest} alone": fastest}
        records = {name: _record(name, variants, deadline_ms) for name in names}
        loaded: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        turns = [(name, pin) for _ in range(rounds) for name, pin in names.items()]
        for name, pin in track(turns, console=Console(stderr=True), description="governed and pinned", transient=True):
            daemon.ask("set", deadline_ms=deadline_ms if pin is None else FLAT_OUT_MS)
            daemon.ask("pin", variant=pin)
            time.sleep(SETTLE_S)
            _watch(daemon, records[name], phase)
            begun_s = records[name].end_s
            with load():
                _watch(daemon, records[name], phase)
            loaded[name].append((begun_s, records[name].end_s))
    _judge(report, list(records.values()), best, fastest)
    report.notes["load average at the end"] = [round(x, 1) for x in os.getloadavg()]
    if plot:
        _draw(plot, list(records.values()), list(loaded.values()), deadline_ms)
        report.notes["plot"] = plot
    return report


@contextmanager
def load() -> Iterator[None]:
    """One busy process a core: stress-ng, or Python where it is missing."""
    cores = len(os.sched_getaffinity(0))
    if tool := shutil.which("stress-ng"):
        commands = [[tool, "--cpu", str(cores), "--cpu-method", "matrixprod", "--quiet"]]
    else:
        commands = [[sys.executable, "-c", "while True: sum(range(10**6))"]] * cores
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
    try:
        time.sleep(0.2)
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(10)


def _variants(daemon: RunningDaemon) -> list[Variant]:
    variants = daemon.ask("snapshot")["state"]["variants"]
    return [Variant(v["name"], v["accuracy"], ()) for v in variants if v["refused"] is None]


def _record(name: str, variants: list[Variant], deadline_ms: float) -> RunSummary:
    record = RunSummary(name, begun_ns=0, variants=tuple(variants))
    record.budgets.append((0.0, Budget(deadline_ms, QUANTILE, 0.0)))
    return record


def _deadline(daemon: RunningDaemon, report: Report, best: str, fastest: str, phase: float) -> float:
    """Just above what the fastest variant needs under the load."""
    seen: dict[str, list[float]] = {}
    for pin in (best, fastest):
        daemon.ask("pin", variant=pin)
        time.sleep(SETTLE_S)
        seen[f"{pin} quiet"] = _ages(daemon, phase / 2)
        with load():
            seen[f"{pin} loaded"] = _ages(daemon, phase)
    quantiles = {key: float(np.quantile(ages, QUANTILE)) for key, ages in seen.items()}
    deadline_ms = round(MARGIN * quantiles[f"{fastest} loaded"], 1)
    report.notes[f"{QUANTILE:.0%} of results within, ms"] = {key: round(ms, 1) for key, ms in quantiles.items()}
    report.notes["deadline, ms"] = deadline_ms
    late = float(np.mean(np.array(seen[f"{best} loaded"]) > deadline_ms))
    report.notes[f"{best} late under the load at that deadline"] = round(late, 3)
    if quantiles[f"{best} quiet"] > deadline_ms or late < 2 * (1 - QUANTILE):
        report.notes["warning"] = "on this machine, as it is now, the load does not tell the variants apart"
    return deadline_ms


def _ages(daemon: RunningDaemon, seconds: float) -> list[float]:
    return [result.age_ms for _, result in _results(daemon, seconds)]


def _results(daemon: RunningDaemon, seconds: float) -> Iterator[tuple[float, Result]]:
    """Results with their time from now on."""
    begun = time.monotonic()
    with Client(endpoint=daemon.results, topics=["result"], timeout_s=seconds) as client:
        for message in client:
            at_s = time.monotonic() - begun
            if at_s >= seconds:
                return
            if isinstance(message, Result):
                yield at_s, message


def _watch(daemon: RunningDaemon, record: RunSummary, seconds: float) -> None:
    """A phase, appended to its record."""
    from_s, missed = record.end_s, _missed(daemon)
    deadline_ms = record.budgets[0][1].deadline_ms
    for at_s, result in _results(daemon, seconds):
        late = int(result.age_ms > deadline_ms)
        record.runs.append(Ran(from_s + at_s, result.variant, 1, result.age_ms, late))
    record.end_s = from_s + seconds
    if gone := _missed(daemon) - missed:
        record.given_up.append(GivenUp(from_s + seconds / 2, gone, True))


def _missed(daemon: RunningDaemon) -> int:
    _, drops = daemon.counted()
    return sum(drops.get(cause, 0) for cause in MISSED)


def _judge(report: Report, records: list[RunSummary], best: str, fastest: str) -> None:
    on_time: list[float] = []
    for record in records:
        summary = record.summary()
        timely = sum(run.frames - run.late for run in record.runs)
        on_time.append(timely / max(1, summary.results + summary.dropped_late))
        report.notes[record.name] = {
            "results": summary.results,
            "dropped as late": summary.dropped_late,
            "on time": round(on_time[-1], 4),
            "accuracy": None if summary.accuracy is None else round(summary.accuracy, 4),
            "shares": {name: round(share, 3) for name, share in summary.shares.items()},
            "changes": summary.switches,
        }
    known: dict[str, Any] = {v.name: v.accuracy for v in records[0].variants}
    reached = records[0].summary().accuracy or 0.0
    kept = (reached - known[fastest]) / max(1e-9, known[best] - known[fastest])
    report.figures += [
        Figure("governed: frames on time", on_time[0], "", QUANTILE, "at least"),
        Figure(f"{best} alone: frames on time", on_time[1], "", QUANTILE, "at most"),
        Figure(f"accuracy kept over {fastest} alone", kept, "", KEPT, "at least"),
    ]


def _draw(path: str, records: list[RunSummary], loaded: list[list[tuple[float, float]]], deadline_ms: float) -> None:
    title = f"A co-running load comes and goes; {QUANTILE:.0%} of the frames are due within {deadline_ms:g} ms"
    figure = draw(title, records)
    columns = len(records)
    for n, axes in enumerate(figure.axes):
        for begin_s, end_s in loaded[n % columns]:
            axes.axvspan(begin_s, end_s, color="#c8372d", alpha=0.07, lw=0, zorder=0)
    figure.savefig(Path(path), dpi=130)
