"""Runs side by side, for `edged simulate` and `edged replay`: run summaries in; a table, JSON or a plot file out."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edged.commands.plot import write_plot
from edged.replay.run_summary import RunSummary, Summary
from edged.terminal import PLAIN_WIDTH, console, number, span

UNKNOWN, NO_LIMIT = "unknown", "no limit"


def table(runs: Sequence[RunSummary]) -> Table:
    """Figures down, runs across. What is estimated is marked with ~."""
    summarised = [(run, run.summary()) for run in runs]
    grid = Table(box=None, padding=(0, 3, 0, 0), show_edge=False, pad_edge=False, header_style="bold")
    grid.add_column("", no_wrap=True)
    for run in runs:
        grid.add_column(run.name, justify="right", overflow="fold")
    for label, *cells in _rows(summarised):
        grid.add_row(label, *cells)
    return grid


def plain(run: RunSummary) -> dict[str, Any]:
    """For --json."""
    return {"name": run.name, "estimated": run.estimated, **asdict(run.summary())}


def plot(path: str, title: str, runs: Sequence[RunSummary], *, announce: bool) -> None:
    """Write the plot, with the table below it where that can be; UsageError if it cannot be written. Called last, so
    that a full disk costs no more than the plot. `announce`: print its path."""
    text = io.StringIO()
    Console(file=text, width=PLAIN_WIDTH, highlight=False).print(table(runs))
    write_plot(path, title, runs, text.getvalue())
    if announce:
        console().print(Text(f"plot: {path}"))


def _rows(runs: Sequence[tuple[RunSummary, Summary]]) -> list[list[str]]:
    summaries = [summary for _, summary in runs]
    marks = ["~" if run.estimated else "" for run, _ in runs]

    def row(label: str, values: Sequence[str], marked: bool = False) -> list[str]:
        return [
            label,
            *(m + v if marked and v not in (UNKNOWN, NO_LIMIT) else v for m, v in zip(marks, values, strict=True)),
        ]

    rows = [
        row("time", [span(s.seconds) for s in summaries]),
        row("frames offered", [f"{s.offered:,}" for s in summaries]),
        row("results", [f"{s.results:,}" for s in summaries]),
        row("  on time", [_percent(s.on_time, 2) for s in summaries]),
        row("given up to save", [f"{s.given_up:,}" for s in summaries]),
        row("dropped as late", [f"{s.dropped_late:,}" for s in summaries]),
    ]
    names = [variant.name for variant in runs[0][0].variants]
    rows += [row(f"  on {name}", [_percent(s.shares.get(name), 1) for s in summaries]) for name in names]
    rows += [
        row("accuracy of results", [number(s.accuracy, 4) for s in summaries]),
        row("accuracy per frame offered", [number(s.service, 4) for s in summaries]),
        row("mean power", [number(s.mean_w, 2, " W") for s in summaries], True),
        row("energy", [number(s.energy_wh, 2, " Wh") for s in summaries], True),
        row("time above the power budget", [_over(run, s) for run, s in runs], True),
        row("hottest", [number(s.hottest_c, 1, " °C") for s in summaries], True),
    ]
    if any(s.lowest_charge is not None for s in summaries):
        rows.append(row("battery at its lowest", [_percent(s.lowest_charge, 1) for s in summaries], True))
    for camera in dict.fromkeys(name for s in summaries for name in s.still):
        rows.append(row(f"left out as still, {camera}", [_percent(s.still.get(camera), 1) for s in summaries]))
    rows.append(row("changes of variant", [f"{s.switches:,}" for s in summaries]))
    return [r for r in rows if any(cell not in (UNKNOWN, NO_LIMIT) for cell in r[1:])]


def _over(run: RunSummary, summary: Summary) -> str:
    limited = any(budget.power_w is not None for _, budget in run.budgets)
    return _percent(summary.over_power, 2) if limited else NO_LIMIT


def _percent(share: float | None, digits: int) -> str:
    return UNKNOWN if share is None else f"{100 * share:.{digits}f} %"
