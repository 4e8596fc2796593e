"""An energy limit held with the motion gate and without: the accuracy that it leaves to the frames that move.

Belts that run for some seconds and stand still for more, a real daemon on the demo bundle, its watts those of a
simulated Orin Nano. The limit is a share of what the cameras would draw above idle without one. Judged over the frames
in which the belt runs: the accuracy of the variant that saw each, 0 for those that none saw.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from edged.bus.schema import Result, Telemetry
from edged.client import Client
from edged.commands.plot import check_plot
from edged.simulate.tables import device_table
from edged.synthetic.scene import Scene
from scripts.benches.daemon import RunningDaemon
from scripts.benches.report import Figure, Report

FPS, RUN_S, PAUSE_S = 10.0, 5.0, 8.0
WIDTH, HEIGHT = 640, 360
SEEDS: Final = {"cam-1": 1, "cam-2": 2}
SOURCE: Final = f"test://{{}}?width={WIDTH}&height={HEIGHT}&fps={FPS:g}&run_s={RUN_S:g}&pause_s={PAUSE_S:g}"
SHARE: Final = 0.25
"""of the watts above idle that all frames take without a limit: too little for all frames on any variant"""
HELD: Final = 1.03
"""of the limit: a horizon of a minute or two is not hit to the joule"""
GAIN: Final = 1.1
DEADLINE_MS: Final = 500.0


@dataclass
class Run:
    """What a run showed; times are seconds since its cameras were live. `accuracy` has an entry for each frame that
    moves, `moving` one for each frame."""

    gate: str
    watts: list[tuple[float, float]] = field(default_factory=list)
    seen: dict[tuple[str, int], str] = field(default_factory=dict)
    """the variant that saw a camera's frame"""
    accuracy: list[tuple[float, float]] = field(default_factory=list)
    moving: list[tuple[float, bool]] = field(default_factory=list)
    used_w: float = 0.0
    still_share: float = 0.0

    @property
    def mean_accuracy(self) -> float:
        return float(np.mean([value for _, value in self.accuracy]))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plot", metavar="FILE.png", help="draw both runs")
    parser.add_argument("--seconds", type=float, default=78.0, help="of each run (default %(default)s)")


def measure(quick: bool = False, seconds: float = 78.0, plot: str | None = None) -> Report:
    if plot is not None:
        check_plot(plot)
    seconds = 39.0 if quick else seconds
    idle_w = device_table("nano").idle_w[-1]
    free_w = watch("off", 2 * (RUN_S + PAUSE_S), None).used_w
    limit_w = idle_w + SHARE * (free_w - idle_w)
    runs = [watch(gate, seconds, limit_w) for gate in ("off", "on")]
    without, with_gate = runs
    report = Report("motion-energy")
    gain = with_gate.mean_accuracy / without.mean_accuracy
    report.figures = [
        Figure("accuracy where something moves, over that without the gate", gain, "x", GAIN, "at least"),
        Figure("energy used with the gate, of the limit", with_gate.used_w / limit_w, "x", HELD),
        Figure("energy used without, of the limit", without.used_w / limit_w, "x", HELD),
    ]
    report.notes = {"without a limit, W": round(free_w, 2), "limit, W": round(limit_w, 2)}
    for run in runs:
        report.notes[f"gate {run.gate}"] = {
            "accuracy": round(run.mean_accuracy, 3),
            "moving frames seen": round(float(np.mean([value > 0 for _, value in run.accuracy])), 3),
            "mean W": round(run.used_w, 2),
            "still share": round(run.still_share, 3),
        }
    if plot is not None:
        draw(plot, runs, limit_w)
    return report


def watch(gate: str, seconds: float, limit_w: float | None) -> Run:
    """One daemon for so long, under a limit on its energy that allows this mean power."""
    run = Run(gate)
    hours = (1.5 * seconds + 60) / 3600  # the horizon must not end while the run is watched
    energy = "" if limit_w is None else f"energy_wh = {limit_w * hours}\nenergy_horizon_h = {hours}"
    more = f'{energy}\n[power]\nprovider = "simulated"\ninterval_s = 0.5\n[motion]\ngate = "{gate}"'
    sources = {name: SOURCE.format(seed) for name, seed in SEEDS.items()}
    with RunningDaemon(sources, DEADLINE_MS, extra=more) as daemon:
        daemon.wait_live(list(sources))
        first = daemon.ask("snapshot")["state"]
        for at_s, message in _messages(daemon, seconds):
            if isinstance(message, Telemetry) and message.power_w is not None:
                run.watts.append((at_s, message.power_w))
            elif isinstance(message, Result):
                run.seen[message.camera, message.frame] = message.variant
        last = daemon.ask("snapshot")["state"]
    before, after = first["telemetry"], last["telemetry"]
    run.used_w = (after["energy_j"] - before["energy_j"]) / (after["t_publish"] - before["t_publish"])
    captured = sum(camera["captured"] for camera in last["cameras"])
    run.still_share = sum(camera["drops"].get("still", 0) for camera in last["cameras"]) / captured
    known = {variant["name"]: variant["accuracy"] or 0.0 for variant in last["variants"]}
    for begin, end in zip(first["cameras"], last["cameras"], strict=True):
        _judge(run, end["camera"], range(begin["captured"], end["captured"] - 1), known)
    return run


def _judge(run: Run, camera: str, frames: range, known: dict[str, float]) -> None:
    """Whether each of these frames of a camera moves, and how well it was seen."""
    scene = Scene(SEEDS[camera], WIDTH, HEIGHT, FPS, RUN_S, PAUSE_S)
    for n, frame in enumerate(frames):
        moves, variant = scene.moves(frame), run.seen.get((camera, frame))
        run.moving.append((n / FPS, moves))
        if moves:
            run.accuracy.append((n / FPS, known[variant] if variant is not None else 0.0))


def _messages(daemon: RunningDaemon, seconds: float) -> Iterator[tuple[float, Any]]:
    begun = time.monotonic()
    with Client(endpoint=daemon.results, topics=["result", "telemetry"], timeout_s=seconds) as client:
        for message in client:
            at_s = time.monotonic() - begun
            if at_s >= seconds:
                return
            yield at_s, message


def draw(path: str, runs: list[Run], limit_w: float) -> None:
    from matplotlib.figure import Figure as Picture

    picture = Picture(figsize=(11, 5.2), layout="constrained")
    grid = picture.subplots(2, len(runs), sharex=True, sharey="row", squeeze=False)
    for column, run in enumerate(runs):
        power, accuracy = grid[0][column], grid[1][column]
        power.plot(*zip(*run.watts, strict=True), color="#1769aa", lw=1.2)
        power.axhline(limit_w, color="#c8372d", lw=1, ls="--")
        power.axhline(run.used_w, color="#1769aa", lw=1, ls=":")
        power.set_title(
            f"gate {run.gate}: accuracy {run.mean_accuracy:.2f} where something moves, mean {run.used_w:.2f} W",
            loc="left", fontsize=10,
        )  # fmt: skip
        times, values = np.array(sorted(run.accuracy)).T
        middle = np.arange(0.5, times.max(), 1.0)
        means = [values[np.abs(times - at_s) <= 0.5].mean() if (np.abs(times - at_s) <= 0.5).any() else np.nan
                 for at_s in middle]  # fmt: skip
        accuracy.plot(middle, means, color="#2e7d32", lw=1.4)
        accuracy.set_xlabel("time, s")
        for at_s, moves in run.moving:
            if not moves:
                for axes in (power, accuracy):
                    axes.axvspan(at_s, at_s + 1 / FPS, color="#90a4ae", alpha=0.1, lw=0)
    grid[0][0].set_ylabel("power, W")
    grid[1][0].set_ylabel("accuracy")
    picture.suptitle(
        "One energy limit (dashed: its mean power; dotted: what was used); grey: the belts stand still",
        x=0.01,
        ha="left",
        fontweight="bold",
    )
    picture.savefig(Path(path), dpi=110)
