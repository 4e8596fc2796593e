"""Runs side by side as a plot: power against budget, temperature, latency against deadline, variants, over time.

Run summaries in, a PNG or a self-contained HTML page out. The only door to matplotlib, which is an optional extra.
"""

from __future__ import annotations

import html
import io
import math
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from edged.errors import UsageError
from edged.replay.run_summary import Array, RunSummary

INK, FAINT, LIMIT = "#1b2733", "#9aa7b4", "#c8372d"
LEFT_OUT: Final = (("given up", "#d9dfe5"), ("dropped as late", "#efc3bf"))
COLOURS: Final = ("#0b5394", "#1b9e77", "#e69f00", "#8e5bb0", "#56b4e9", "#d55e99")
"""Distinguishable with any colour vision; the first is the most accurate variant."""
BINS: Final = 240
"""Columns of a panel: a finer division shows only noise."""
TITLE_PER_INCH: Final = 9.0
"""Letters of the title."""

Axes = Any


def check_plot(path: str) -> None:
    """UsageError, before any work is done, for a plot that could not be drawn."""
    parent = Path(path).parent
    if Path(path).suffix.lower() not in (".png", ".html"):
        raise UsageError(f"--plot {path}: its name must end in .png or .html", "write for example --plot run.png")
    if not parent.is_dir():
        raise UsageError(f"--plot {path}: there is no directory {parent}", "make it first")
    if not os.access(path if os.path.exists(path) else parent, os.W_OK) or Path(path).is_dir():
        raise UsageError(f"--plot {path}: it cannot be written", "name another file")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError("--plot needs matplotlib, which is not installed", 'pip install "edged[plot]"') from None


def write_plot(path: str, title: str, summaries: Sequence[RunSummary], table: str = "") -> None:
    """PNG or HTML, by the name's ending; `table` goes under the picture of a page. UsageError if it cannot write."""
    figure = draw(title, summaries)
    out = io.BytesIO()
    if Path(path).suffix.lower() == ".png":
        figure.savefig(out, format="png", dpi=130)
        content = out.getvalue()
    else:
        figure.savefig(out, format="svg")
        svg = out.getvalue().decode()
        page = _PAGE.format(title=html.escape(title), svg=svg[svg.index("<svg") :], table=html.escape(table))
        content = page.encode()
    try:
        Path(path).write_bytes(content)
    except OSError as error:
        raise UsageError(f"--plot {path}: it cannot be written: {error.strerror}", "name another file") from error


def draw(title: str, summaries: Sequence[RunSummary]) -> Any:
    """A column for each run, panels below one another, the same scales in a row."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: Any = {
        "font.size": 9, "font.family": "DejaVu Sans", "axes.edgecolor": FAINT, "axes.labelcolor": INK,
        "text.color": INK, "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False,
        "axes.spines.right": False, "axes.grid": True, "grid.color": "#e8ecf0", "grid.linewidth": 0.8,
        "svg.fonttype": "none", "svg.hashsalt": "edged", "text.parse_math": False,
    }  # fmt: skip
    metered = (("power_w", _power), ("temperature_c", _temperature), ("charge", _charge))
    panels = [panel for key, panel in metered if any(len(summary.sensed(key)[0]) for summary in summaries)]
    panels += [_latency, _variants]
    if any(summary.still for summary in summaries):
        panels.append(_still)
    with rc_context(style):
        width, height = 10.0 if len(summaries) == 1 else 6.5 * len(summaries), 2.15 * len(panels) + 0.9
        figure = Figure(figsize=(width, height))
        grid = figure.subplots(len(panels), len(summaries), sharex="col", sharey="row", squeeze=False)
        lines = textwrap.wrap(title, int(TITLE_PER_INCH * width))
        figure.suptitle("\n".join(lines), x=0.012, ha="left", fontsize=12, fontweight="bold")
        for column, summary in enumerate(summaries):
            unit_s, unit = _unit(summary.end_s)
            for row, panel in enumerate(panels):
                axes = grid[row][column]
                panel(axes, summary, unit_s)
                axes.tick_params(length=0)
                if column:
                    axes.set_ylabel("")
            grid[0][column].set_title(_heading(summary, len(summaries)), loc="left", fontsize=10, color=INK, pad=22)
            grid[-1][column].set_xlabel(f"time, {unit}")
            grid[-1][column].set_xlim(0, max(summary.end_s, 1e-3) / unit_s)
        _fit_rows(grid, summaries)
        figure.tight_layout(rect=(0, 0, 1, 0.985 - 0.2 * (len(lines) - 1) / height), h_pad=1.1)
    return figure


def _heading(summary: RunSummary, columns: int) -> str:
    marks = ", power and temperature estimated" if summary.estimated else ""
    return f"{summary.name}{marks}" if columns > 1 or marks else ""


def _unit(end_s: float) -> tuple[float, str]:
    return (1.0, "s") if end_s < 600 else (60.0, "min") if end_s < 3 * 3600 else (3600.0, "h")


def _power(axes: Axes, summary: RunSummary, unit_s: float) -> None:
    times, watts = summary.sensed("power_w")
    axes.set_ylabel("power, W")
    if not len(times):
        return _nothing(axes, "no power was measured")
    at, low, middle, high = _bins(times, watts, summary.end_s)
    if len(times) > 2 * BINS:
        axes.fill_between(at / unit_s, low, high, color=COLOURS[0], alpha=0.16, lw=0, label="as sensed, 5 to 95 %")
    else:  # a band over single readings has no width
        axes.plot(at / unit_s, middle, color=COLOURS[0], alpha=0.35, lw=0.9, label="as sensed")
    rolled, means = summary.rolling()
    window = summary.budgets[-1][1].power_window_s if summary.budgets else 0
    axes.plot(rolled / unit_s, means, color=COLOURS[0], lw=1.5, label=f"mean of {window:g} s")
    _limit(axes, summary, "power_w", unit_s, "budget", top=2.5 * float(watts.max()))
    axes.set_ylim(bottom=0)
    _legend(axes)


def _temperature(axes: Axes, summary: RunSummary, unit_s: float) -> None:
    times, celsius = summary.sensed("temperature_c")
    axes.set_ylabel("temperature, °C")
    if not len(times):
        return _nothing(axes, "no temperature was measured")
    at, low, middle, high = _bins(times, celsius, summary.end_s)
    axes.fill_between(at / unit_s, low, high, color=COLOURS[2], alpha=0.25, lw=0)
    axes.plot(at / unit_s, middle, color="#b86e00", lw=1.5, label="hottest zone")
    _limit(axes, summary, "temperature_c", unit_s, "limit")
    _legend(axes)


def _charge(axes: Axes, summary: RunSummary, unit_s: float) -> None:
    times, share = summary.sensed("charge")
    axes.set_ylabel("battery, %")
    if not len(times):
        return _nothing(axes, "no battery")
    axes.fill_between(times / unit_s, 0, 100 * share, color=COLOURS[1], alpha=0.18, lw=0)
    axes.plot(times / unit_s, 100 * share, color=COLOURS[1], lw=1.5)
    axes.set_ylim(0, 102)


def _latency(axes: Axes, summary: RunSummary, unit_s: float) -> None:
    axes.set_ylabel("latency, ms")
    if not summary.runs:
        return _nothing(axes, "nothing ran")
    times = np.array([run.at_s for run in summary.runs])
    ms = np.array([run.latency_ms for run in summary.runs])
    at, _, middle, high = _bins(times, ms, summary.end_s, 0.5, 0.99)
    axes.fill_between(at / unit_s, middle, high, color=COLOURS[0], alpha=0.22, lw=0, label="to its 99 % quantile")
    axes.plot(at / unit_s, middle, color=COLOURS[0], lw=1.3, label="median")
    late = np.array([run.late > 0 for run in summary.runs])
    if late.any():
        axes.plot(times[late] / unit_s, ms[late], ls="", marker=".", ms=3, color=LIMIT, alpha=0.7, label="late")
    _limit(axes, summary, "deadline_ms", unit_s, "deadline")
    _legend(axes)


def _variants(axes: Axes, summary: RunSummary, unit_s: float) -> None:
    """Share of the frames by variant, in each slice of time; what was not run on top."""
    axes.set_ylabel("share of frames, %")
    edges = np.linspace(0, max(summary.end_s, 1e-3), min(BINS, 160) + 1)
    names = [variant.name for variant in summary.variants]
    counts = [_count(edges, [(r.at_s, r.frames) for r in summary.runs if r.variant == name]) for name in names]
    counts += [
        _count(edges, [(g.at_s, g.frames) for g in summary.given_up if g.late == late]) for late in (False, True)
    ]
    labels = [*((name, COLOURS[i % len(COLOURS)]) for i, name in enumerate(names)), *LEFT_OUT]
    total = np.sum(counts, axis=0)
    below, at = np.zeros(len(edges) - 1), edges / unit_s
    for count, (label, colour) in zip(counts, labels, strict=True):
        if not count.any():
            continue
        share = np.divide(100 * count, total, out=np.zeros_like(below), where=total > 0)
        axes.stairs(below + share, at, baseline=below, fill=True, color=colour, lw=0, label=label)
        below = below + share
    axes.set_ylim(0, 100)
    axes.grid(False)
    _legend(axes, ncols=6)


def _still(axes: Axes, summary: RunSummary, unit_s: float) -> None:
    """What the motion gate of each camera left out, in each slice of time."""
    axes.set_ylabel("still, %")
    edges = np.linspace(0, max(summary.end_s, 1e-3), min(BINS, 160) + 1)
    for n, (camera, (times, shares)) in enumerate(summary.still_shares().items()):
        at = np.clip(np.searchsorted(edges, times) - 1, 0, len(edges) - 2)
        sums, counts = np.bincount(at, shares, len(edges) - 1), np.bincount(at, minlength=len(edges) - 1)
        means = np.divide(100 * sums, counts, out=np.full(len(sums), math.nan), where=counts > 0)
        known = counts > 0
        axes.plot(edges[:-1][known] / unit_s, means[known], color=COLOURS[n % len(COLOURS)], lw=1.2, label=camera)
    axes.set_ylim(0, 100)
    if summary.still:
        _legend(axes, ncols=6)


def _fit_rows(grid: Any, summaries: Sequence[RunSummary]) -> None:
    """Scales that show the limits and what matters: not the one outlier of the hour."""
    temperatures = [s.sensed("temperature_c")[1] for s in summaries]
    limits = [v for s in summaries for v in s.limit("temperature_c")[1] if math.isfinite(v)]
    if any(len(t) for t in temperatures):
        values = np.concatenate([*temperatures, limits])
        row = 1 if any(len(s.sensed("power_w")[0]) for s in summaries) else 0
        grid[row][0].set_ylim(math.floor(values.min() - 3), math.ceil(values.max() + 3))
    runs = [run.latency_ms for s in summaries for run in s.runs]
    if runs:
        deadline = max(float(np.nanmax(s.limit("deadline_ms")[1])) for s in summaries)
        grid[-2][0].set_ylim(0, max(1.25 * deadline, min(float(np.quantile(runs, 0.999)) * 1.1, 2.5 * deadline)))


def _limit(axes: Axes, summary: RunSummary, key: str, unit_s: float, label: str, top: float = math.inf) -> None:
    """The limit as a line; one that is far above everything is named in the legend only."""
    times, values = summary.limit(key)
    known = values[np.isfinite(values)]
    if not len(known):
        return
    style: Any = {"color": LIMIT, "lw": 1.2, "ls": (0, (5, 2))}
    if known.min() > top:
        axes.plot([], [], label=f"{label} {known.min():g}, off the scale", **style)
    else:
        axes.step(times / unit_s, values, where="post", label=label, **style)


def _bins(times: Array, values: Array, end_s: float, low: float = 0.05, high: float = 0.95) -> tuple[Array, ...]:
    """Middle of each slice of time that holds something; its low quantile, median and high quantile. NaN in between
    where nothing came for long: a line across would suggest data."""
    edges = np.linspace(0, max(end_s, 1e-3), BINS + 1)
    at = np.minimum(np.searchsorted(edges, times, side="right") - 1, BINS - 1)
    order = np.argsort(at, kind="stable")
    found, starts = np.unique(at[order], return_index=True)
    groups = np.split(values[order], starts[1:])
    lows, mids, highs = (np.array([np.quantile(g, q) for g in groups]) for q in (low, 0.5, high))
    steps = np.diff(found)
    gaps = np.flatnonzero(steps > max(4.0, 3 * float(np.median(steps)) if len(steps) else 0.0)) + 1
    middles = (edges[found] + edges[found + 1]) / 2
    return tuple([np.insert(values, gaps, math.nan) for values in (middles, lows, mids, highs)])


def _count(edges: Array, events: list[tuple[float, int]]) -> Array:
    times, weights = [t for t, _ in events], [n for _, n in events]
    return np.asarray(np.histogram(times, edges, weights=weights)[0], float)


def _legend(axes: Axes, ncols: int = 4) -> None:
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 0.985),
        ncols=ncols,
        frameon=False,
        fontsize=8,
        handlelength=1.4,
        columnspacing=1.2,
        borderaxespad=0.2,
        borderpad=0.1,
    )


def _nothing(axes: Axes, why: str) -> None:
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", color=FAINT)


_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body{{margin:2rem auto;max-width:1200px;padding:0 1rem;font:15px/1.5 system-ui,sans-serif;color:#1b2733}}
svg{{width:100%;height:auto}}pre{{overflow-x:auto;font:13px/1.45 ui-monospace,monospace;background:#f4f6f8;
padding:1rem;border-radius:6px}}</style></head>
<body>{svg}<pre>{table}</pre></body></html>
"""
