"""`edged simulate`: the real governor drives a simulated device through a scenario; its run is reported and plotted.

Without a profile the scenario's own limits hold; each --profile is a run of its own, side by side. Power, temperature
and latency are those of the simulated device (edged/simulate), so all of it is marked estimated.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from edged import profiles
from edged.commands import compare
from edged.commands.ctl import changes_of
from edged.commands.plot import check_plot
from edged.config import default_path
from edged.errors import UsageError
from edged.files import open_regular
from edged.governor.governor import Governor, OnCall
from edged.governor.messages import Answer, Budget, Request
from edged.replay.recorder import LogFile
from edged.replay.run_summary import RunSummary
from edged.simulate import scenario_file
from edged.simulate.arena import run as run_arena
from edged.simulate.device import Reading
from edged.simulate.governor_policy import GovernorPolicy
from edged.simulate.scenario import Truth
from edged.simulate.score import Score
from edged.simulate.tables import NAMES
from edged.terminal import console, printable
from edged.toml_file import MAX_FILE_BYTES, read_toml

SHIPPED = Path(scenario_file.__file__).parent / "scenarios"


def run(arguments: argparse.Namespace) -> int:
    if arguments.list:
        return _list(arguments)
    if arguments.scenario is None:
        raise UsageError("which scenario?", f"--scenario NAME|FILE; shipped are {', '.join(_shipped())}")
    if arguments.plot:
        check_plot(arguments.plot)
    scenario = scenario_file.scenario(*_read(arguments.scenario, arguments.device))
    runs = _runs(arguments)
    if arguments.record and len(runs) > 1:
        raise UsageError("--record takes one run", "give one --profile at a time")
    summaries, scores = [], []
    for name, limits in runs:
        summary, score = _drive(scenario, name, limits, arguments)
        summaries.append(summary)
        scores.append(score)
    _report(arguments, scenario, summaries, scores)
    return 0


def _drive(
    scenario: Mapping[str, Any], name: str, limits: Mapping[str, float | None], arguments: argparse.Namespace
) -> tuple[RunSummary, Score]:
    truth = Truth(scenario_file.with_limits(scenario, limits), arguments.seed)
    summary = RunSummary(name, estimated=True)
    with _recording(arguments.record) as recorded, _progress(name, truth) as advance:

        def on_call(now_ns: int, request: Request, answer: Answer, governor: Governor) -> None:
            summary.on_call(now_ns, request, answer, governor)
            if recorded is not None:
                recorded(now_ns, request, answer, governor)

        policy = _Watched(arguments.free_clock, scenario_file.budget(limits), on_call, advance)
        score = run_arena(truth, policy, not arguments.free_clock)
    return summary, score


class _Watched(GovernorPolicy):
    """The governor's policy, with a progress bar."""

    def __init__(self, free_clock: bool, limits: Budget, on_call: OnCall, advance: Callable[[float], None]) -> None:
        super().__init__(not free_clock, limits=limits, on_call=on_call)
        self._advance = advance

    def sense(self, reading: Reading) -> None:
        self._advance(reading.at_s)
        super().sense(reading)


def _runs(arguments: argparse.Namespace) -> list[tuple[str, dict[str, float | None]]]:
    """The name and the limits of each run: one for each profile, or the scenario's own."""
    changes = profiles.checked_limits(changes_of(arguments.set or []), "--set")
    config = default_path(arguments.config)
    if not arguments.profile:
        return [(_with("the scenario's limits", changes), changes)]
    return [(_with(name, changes), {**profiles.find(name, config).limits, **changes}) for name in arguments.profile]


def _with(name: str, changes: Mapping[str, float | None]) -> str:
    return ", ".join([name, *(f"{key} = {'none' if v is None else f'{v:g}'}" for key, v in changes.items())])


def _report(
    arguments: argparse.Namespace, scenario: Mapping[str, Any], summaries: Sequence[RunSummary], scores: Sequence[Score]
) -> None:
    title = printable(f"{arguments.device}, {scenario['name']}: {scenario['about']}".rstrip(": "))
    if arguments.json:
        runs = [
            {**compare.plain(summary), **_device_truth(score)} for summary, score in zip(summaries, scores, strict=True)
        ]
        print(json.dumps({"device": arguments.device, "scenario": scenario["name"], "runs": runs}))
    else:
        out = console()
        out.print(Text(title, style="bold"))
        out.print("simulated: power, temperature and latency are a model's, see edged/simulate/tables.py", style="dim")
        out.print(compare.table(summaries))
        for summary, score in zip(summaries, scores, strict=True):
            if violations := _violations(score):
                out.print(Text(f"{summary.name}: {violations}", style="yellow"))
        if arguments.record:
            out.print(Text(f"log: {arguments.record}"))
    if arguments.plot:
        compare.plot(arguments.plot, title, summaries, announce=not arguments.json)


def _device_truth(score: Score) -> dict[str, Any]:
    """What only the simulated device knows."""
    return {
        "throttles": score.throttles,
        "brownouts": score.brownouts,
        "true_mean_w": score.mean_w,
        "true_hottest_c": score.hottest_c,
    }


def _violations(score: Score) -> str:
    found = []
    if score.throttles:
        found.append(f"the hardware throttled {score.throttles} times")
    if score.brownouts:
        found.append(f"the battery ran empty {score.brownouts} times")
    if score.heat_violation:
        found.append(f"the temperature was above its limit in {score.heat_violation:.1%} of the seconds")
    return "; ".join(found)


@contextlib.contextmanager
def _recording(path: str | None) -> Iterator[OnCall | None]:
    if path is None:
        yield None
        return
    with LogFile(Path(path), "simulated", estimated=True) as log:
        yield log.on_call


@contextlib.contextmanager
def _progress(name: str, truth: Truth) -> Iterator[Callable[[float], None]]:
    """A bar on stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda at_s: None
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=truth.duration_s)
        yield lambda at_s: bar.update(task, completed=at_s)


def _read(name: str, device: str) -> tuple[Mapping[str, Any], str, str]:
    """A shipped scenario by its name, or a file: TOML, or the arena's JSON."""
    path = SHIPPED / f"{name}.toml" if name in _shipped() else Path(name)
    if path.suffix == ".json":
        try:
            with open_regular(path) as file:
                data = json.loads(file.read(MAX_FILE_BYTES))
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError(f"{path} cannot be read as JSON: {error}", "give a file in the arena's format") from error
        data = data[0] if isinstance(data, list) and data else data
    elif not path.suffix and not os.path.exists(path):
        raise UsageError(f"there is no scenario {name!r}", f"shipped are {', '.join(_shipped())}; or name a file")
    else:
        data = read_toml(path, "a scenario")
    if not isinstance(data, dict):
        raise UsageError(f"{path} contains no scenario", "see a shipped one: edged simulate --list")
    return data, device, path.stem if name in _shipped() else str(path)


def _shipped() -> list[str]:
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def _list(arguments: argparse.Namespace) -> int:
    found = {name: read_toml(SHIPPED / f"{name}.toml")["about"] for name in _shipped()}
    if arguments.json:
        print(json.dumps({"scenarios": found, "devices": list(NAMES), "files": str(SHIPPED)}))
        return 0
    for name, about in found.items():
        print(f"{name:14} {about}")
    print(f"devices: {', '.join(NAMES)}; the files, to copy and edit: {SHIPPED}")
    return 0
