"""10,000 switches of the variant under load: no frame dropped for them, no memory, and what one costs.

Two runs. In the first a real daemon plays a video without pace (every frame is inferred, none may be dropped) while an
operator's `pin` goes back and forth between two variants. In the second the pool alone runs A B A B ... against
A A ... B B ..., block by block in turn: the difference per batch is the cost of a switch, cold caches included.
"""

from __future__ import annotations

import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

from edged import clock
from edged.config import EngineConfig
from edged.engines.bundle import load_bundle
from edged.engines.pool import Pool
from scripts.benches import proc
from scripts.benches.clip import write_clip
from scripts.benches.daemon import BUNDLE, RunningDaemon
from scripts.benches.report import Figure, Report

SWITCHES = 10_000
COST_TARGET_PERCENT = 5.0
GROWTH_TARGET_MB = 2.0
WARM_SWITCHES = 1100  # the daemon remembers 1000 decisions: that memory is full then
BLOCK = 20


def measure(quick: bool = False) -> Report:
    switches, blocks = (1000, 5) if quick else (SWITCHES, 100)
    report = Report("switch")
    under_load(report, switches)
    cost(report, blocks)
    report.figures.reverse()
    return report


def under_load(report: Report, switches: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        video = write_clip(Path(directory) / "scene.mp4")
        with RunningDaemon({"video": f"file://{video}?pace=0"}) as daemon:
            daemon.wait_live(["video"])
            a, b = usable(daemon)
            pin(daemon, WARM_SWITCHES, a, b)
            results, drops = daemon.counted()
            before, begun = proc.pss_mb(daemon.pid), time.monotonic()
            pin(daemon, switches, a, b)
            after, seconds = proc.pss_mb(daemon.pid), time.monotonic() - begun
            time.sleep(1.5)  # the counts are published once a second
            results_after, drops_after = daemon.counted()
            decisions = daemon.ask("why", n=1000)["decisions"]
    dropped = sum(drops_after.values()) - sum(drops.values())
    alternating = all(x["variant"] != y["variant"] for x, y in pairwise(decisions))
    report.figures.append(Figure("frames dropped", dropped, "frames", 0))
    report.figures.append(Figure("memory gained (PSS, all processes)", after - before, "MB", GROWTH_TARGET_MB))
    report.notes["switches"] = switches
    report.notes["switches per second"] = round(switches / seconds)
    report.notes["results meanwhile"] = results_after - results
    report.notes["the last 1000 decisions alternate"] = alternating


def usable(daemon: RunningDaemon) -> tuple[str, str]:
    names = [v["name"] for v in daemon.ask("snapshot")["state"]["variants"] if v["refused"] is None]
    return names[0], names[1]


def pin(daemon: RunningDaemon, times: int, a: str, b: str) -> None:
    for n in range(times):
        daemon.ask("pin", variant=(a, b)[n % 2])


def cost(report: Report, blocks: int) -> None:
    """Median over blocks of (A B A B per batch) minus (A A, B B per batch), as a share of the mean inference."""
    with Pool.open(load_bundle(BUNDLE), EngineConfig()) as pool:
        names = [v.name for v in pool.variants if v.refused is None][:2]
        extra_us, steady_us = [], []
        for _ in range(blocks):
            steady = (run(pool, [names[0]] * BLOCK) + run(pool, [names[1]] * BLOCK)) / (2 * BLOCK)
            mixed = run(pool, names * BLOCK) / (2 * BLOCK)
            steady_us.append(steady / 1000)
            extra_us.append((mixed - steady) / 1000)
    percent = 100 * median(extra_us) / median(steady_us)
    report.figures.append(Figure("cost of a switch, of one inference", percent, "%", COST_TARGET_PERCENT))
    report.notes["mean inference, us"] = round(median(steady_us), 1)
    report.notes["cost of a switch, us"] = round(median(extra_us), 2)


def run(pool: Pool, names: list[str]) -> int:
    """Nanoseconds for one batch of one frame on each of the named variants."""
    begun = clock.mono_ns()
    for name in names:
        pool.select(name)
        pool.submit(0, 1)
        pool.collect(0)
    return clock.mono_ns() - begun
