"""`scripts/soak --hours H`: runs, measures, judges, plots."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib

from edged import clock
from scripts.soaking.actions import Actions, Soaked, soaked
from scripts.soaking.measure import Sample, judge, sample

SAMPLE_S = 5.0
PLOTTED = (
    ("rss_mb", "RSS, MB"), ("children_mb", "children, MB"), ("descriptors", "descriptors"), ("threads", "threads"),
    ("shm_files", "/dev/shm"), ("unaccounted", "unaccounted"),
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak", description="Run the daemon for hours under changes.")
    parser.add_argument("--hours", type=float, default=24.0, metavar="H", help="how long (default 24)")
    parser.add_argument("--out", type=Path, default=Path("."), metavar="DIR", help="for soak.png and soak.json")
    arguments = parser.parse_args()
    if not 0.01 <= arguments.hours <= 1000:
        parser.error("--hours is a number from 0.01 to 1000")
    return soak(arguments.hours * 3600, arguments.out)


def soak(seconds: float, out: Path) -> int:
    """0 if every condition held."""
    with soaked() as daemon:
        begun_ns = clock.mono_ns()
        samples = _run(daemon, seconds, begun_ns)
        alive = daemon.process.poll() is None
        gaps_s = _gaps_s(daemon.fed_ns, begun_ns)
        code, stop_s = daemon.stop()
        log = (daemon.directory / "log").read_text(errors="replace")
    rows = judge(samples, max(gaps_s), code, stop_s)
    rows.append(("alive to the end", str(alive), alive))
    tracebacks = log.count("Traceback")
    rows.append(("tracebacks in the log", str(tracebacks), tracebacks == 0))
    for name, figure, holds in rows:
        print(f"{'ok ' if holds else 'NOT'}  {name:40} {figure}")
    print(f"{seconds / 3600:.2f} h, {daemon.received} messages received; refused: {daemon.refused}")
    out.mkdir(parents=True, exist_ok=True)
    (out / "soak.json").write_text(json.dumps({"rows": rows, "samples": [asdict(one) for one in samples]}))
    _plot(samples, gaps_s, out / "soak.png")
    if not all(holds for _, _, holds in rows):
        print(log[-4000:], file=sys.stderr)
        return 1
    return 0


def _run(daemon: Soaked, seconds: float, begun_ns: int) -> list[Sample]:
    samples: list[Sample] = []
    due = [(period, period, 0, action) for period, action in Actions(daemon).all()]
    while (at_s := (clock.mono_ns() - begun_ns) / clock.NS_PER_S) < seconds and daemon.process.poll() is None:
        for i, (period, next_s, n, action) in enumerate(due):
            if at_s >= next_s:
                action(n)
                due[i] = (period, next_s + period, n + 1, action)
        if at_s >= len(samples) * SAMPLE_S:
            samples.append(sample(at_s, daemon.process.pid, daemon.state()))
        clock.sleep_s(0.2)
    return samples


def _gaps_s(fed_ns: Sequence[int], begun_ns: int) -> list[float]:
    times = [begun_ns, *(at for at in fed_ns if at >= begun_ns), clock.mono_ns()]
    return [(b - a) / clock.NS_PER_S for a, b in itertools.pairwise(times)]


def _plot(samples: Sequence[Sample], gaps_s: Sequence[float], path: Path) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(PLOTTED) + 1, 1, figsize=(10, 14), constrained_layout=True)
    minutes = [one.at_s / 60 for one in samples]
    for axis, (name, label) in zip(axes, PLOTTED, strict=False):
        axis.plot(minutes, [asdict(one)[name] for one in samples], linewidth=1)
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
    warm_mb = [one.rss_mb for one in samples[len(samples) // 6 :]]
    axes[0].set_ylim(min(warm_mb) - 1, max(warm_mb) + 1)  # from zero, no slope could be seen
    axes[-1].plot(gaps_s, linewidth=1)
    axes[-1].set_ylabel("watchdog gaps, s")
    axes[-2].set_xlabel("minutes")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
