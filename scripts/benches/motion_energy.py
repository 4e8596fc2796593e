"""One limit on energy with the motion gate and without: the accuracy that it leaves to each frame.

The governor on a simulated Orin Nano for half an hour, once with cameras whose gates leave out what is still, once with
all their frames. Without a gate the frames in which something moves fare as all do; with it they are most of what is
left. Simulated, so that the load of this machine has no part in it: the same figures each time.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from edged.commands.plot import check_plot, draw
from edged.replay.run_summary import RunSummary
from edged.simulate import scenario_file
from edged.simulate.arena import run as run_arena
from edged.simulate.governor_policy import GovernorPolicy
from edged.simulate.scenario import Truth
from scripts.benches.report import Figure, Report

CAMERAS: Final[dict[str, Any]] = {"T": 1800, "n": 2, "fps": 15, "D": 100, "cap": 12.0, "W": 60}
STILL: Final = {"k": "markov", "v": [0.96, 0.05], "d": [30, 20]}
"""Some 55 % of the frames: thirty seconds in which nothing moves, twenty in which something does."""
LIMIT_WH: Final = 3.0
GAIN: Final = 1.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plot", metavar="FILE.png", help="draw both runs side by side")


def measure(quick: bool = False, plot: str | None = None) -> Report:
    if plot is not None:
        check_plot(plot)
    seconds = 600 if quick else CAMERAS["T"]
    limit_wh = LIMIT_WH * seconds / CAMERAS["T"]
    without = simulated("without the gate", {**CAMERAS, "T": seconds}, limit_wh)
    gated = simulated("with the gate", {**CAMERAS, "T": seconds, "still": STILL}, limit_wh)
    before, after = without.summary(), gated.summary()
    assert before.service and after.service and before.energy_wh and after.energy_wh
    report = Report("motion-energy")
    gain = after.service / before.service
    report.figures = [
        Figure("accuracy per frame with the gate, over that without", gain, "x", GAIN, "at least"),
        Figure("energy with the gate, of the limit", after.energy_wh / limit_wh, "x", 1.0),
        Figure("energy without, of the limit", before.energy_wh / limit_wh, "x", 1.0),
    ]
    for run, found in ((without, before), (gated, after)):
        report.notes[run.name] = {
            "accuracy per frame offered": round(found.service or 0.0, 4),
            "Wh": round(found.energy_wh or 0.0, 3),
            "offered": found.offered,
            "given up to save": found.given_up,
            "still": {camera: round(share, 3) for camera, share in found.still.items()},
        }
    if plot is not None:
        title = f"{limit_wh:g} Wh for {seconds / 60:g} minutes, two cameras of 15 frames a second"
        draw(title, [without, gated]).savefig(Path(plot), dpi=80)
    return report


def simulated(name: str, cameras: dict[str, Any], limit_wh: float) -> RunSummary:
    truth = Truth(scenario_file.scenario(cameras, "orin-nano", name), 1)
    summary = RunSummary(name, estimated=True)
    limits = scenario_file.budget({"energy_wh": limit_wh, "energy_horizon_h": cameras["T"] / 3600})
    run_arena(truth, GovernorPolicy(fixed_clock=True, limits=limits, on_call=summary.on_call), True)
    return summary
