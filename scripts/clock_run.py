"""`scripts/clock-run`: the GPU clock of an emulated board profiled, set, followed and restored; and a plot of it."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from edged import clock
from edged.engines.ort import OrtRuntime
from tests.support.clocked_engine import MODELS, load_at_the_ceiling
from tests.support.daemon import RunningDaemon
from tests.support.helped import Helper, clocked_config, command_on, profile_on
from tests.support.jetson_tree import JetsonTree
from tests.support.live_board import LiveBoard
from tests.support.models import write_bundle

LIMITS_W: Final = (60.0, 7.5, 12.0, 60.0)
"""One phase each."""
WINDOW_S: Final = 5.0


class Phase(NamedTuple):
    begin_s: float
    limit_w: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/clock-run", description=__doc__)
    parser.add_argument("--seconds", type=float, default=25.0, help="of each of the four limits (%(default)g)")
    parser.add_argument("--out", type=Path, default=Path("clock-run.png"), help="the plot (%(default)s)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edged-") as name:
        os.chmod(name, 0o755)
        directory = Path(name)
        helper = Helper(directory, JetsonTree(directory / "board", "thor"))
        helper.start()
        try:
            with LiveBoard(helper.tree) as board:
                phases = run(directory, helper, board, given.seconds)
                restored = helper.ceiling_mhz == board.mhz[-1]
        finally:
            helper.kill()
    held = report(board, phases)
    plot(board, phases, given.out)
    print(f"the ceiling was {'restored' if restored else 'NOT restored'}; plot: {given.out}")
    return 0 if held and restored else 1


def run(directory: Path, helper: Helper, board: LiveBoard, seconds: float) -> list[Phase]:
    """Profile, then the daemon under each limit; the last phase is the end."""
    plain, at_the_ceiling = OrtRuntime.load, load_at_the_ceiling(helper.tree.root)
    bundle = write_bundle(directory / "bundle", MODELS)
    setattr(OrtRuntime, "load", at_the_ceiling)  # noqa: B010 - mypy knows no other way
    try:
        profile_on(helper, bundle)
    finally:
        setattr(OrtRuntime, "load", plain)  # noqa: B010
    config = clocked_config(directory, bundle, LIMITS_W[0], WINDOW_S)
    phases = []
    with RunningDaemon(config, directory, command_on(helper.tree, helper.socket, config, clocked=True)) as daemon:
        for limit_w in LIMITS_W:
            phases.append(Phase(board.now_s, limit_w))
            daemon.ask("set", power_w=limit_w)
            clock.sleep_s(seconds)
        phases.append(Phase(board.now_s, LIMITS_W[-1]))
        daemon.stop()
        clock.sleep_s(1.0)
    return phases


def report(board: LiveBoard, phases: Sequence[Phase]) -> bool:
    """A line for each phase, its first two windows left out; whether the limits were held."""
    held = True
    for phase, after in pairwise(phases):
        moments = [m for m in board.history if phase.begin_s + 2 * WINDOW_S <= m.at_s < after.begin_s]
        if not moments:
            continue
        mean_w = sum(m.power_w for m in moments) / len(moments)
        mean_mhz = sum(m.clock_mhz for m in moments) / len(moments)
        held = held and mean_w <= 1.05 * phase.limit_w
        print(f"limit {phase.limit_w:5.1f} W: drew {mean_w:5.1f} W, clock {mean_mhz:6.0f} MHz")
    return held


def plot(board: LiveBoard, phases: Sequence[Phase], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    begin_s = phases[0].begin_s
    moments = [m for m in board.history if m.at_s >= begin_s - 2]
    at_s = [m.at_s - begin_s for m in moments]
    figure, (power, mhz, heat) = pyplot.subplots(3, 1, sharex=True, figsize=(9, 7))
    power.plot(at_s, [m.power_w for m in moments], label="power")
    power.step([p.begin_s - begin_s for p in phases], [p.limit_w for p in phases], "r--", where="post", label="limit")
    power.set_ylim(0, 1.3 * max(m.power_w for m in moments))
    mhz.step(at_s, [m.ceiling_mhz for m in moments], where="post", label="ceiling, as the helper set it")
    mhz.plot(at_s, [m.clock_mhz for m in moments], ":", label="clock, as the GPU runs")
    heat.plot(at_s, [m.temperature_c for m in moments], label="junction")
    for axes, unit in ((power, "W"), (mhz, "MHz"), (heat, "C")):
        axes.set_ylabel(unit)
        axes.legend(loc="upper center")
        axes.grid(alpha=0.3)
        axes.axvline(phases[-1].begin_s - begin_s, color="k", linewidth=0.8)
    heat.set_xlabel("seconds; the daemon stops at the black line")
    figure.suptitle("GPU clock control on an emulated board")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
