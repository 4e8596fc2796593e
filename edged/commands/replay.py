"""`edged replay`: every decision of a log made again and compared byte for byte; and what other limits had done.

Exit 0 if all came out the same, 1 if not, with the first difference. With --profile or --set the recorded frames go
through the governor once more under those limits (method: edged/replay/counterfactual.py), side by side.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
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
from edged.governor.governor import Governor
from edged.governor.messages import Answer, Budget, Request
from edged.replay import log, replayer
from edged.replay.counterfactual import Counterfactual, Recorded
from edged.replay.record import Entry, Gap, Header, Sampled, Snapshot
from edged.replay.recorder import PATTERN, governor_digest, machine
from edged.replay.replayer import Outcome, Timeline
from edged.replay.run_summary import RunSummary
from edged.terminal import at, console, printable, span


def run(arguments: argparse.Namespace) -> int:
    if arguments.plot:
        check_plot(arguments.plot)
    changes, name = _changes(arguments)
    files, heads, strange = _files(Path(arguments.log))
    estimated = any(head.estimated for head in heads)
    story, recorded = RunSummary("recorded", estimated), Recorded()

    def on_call(now_ns: int, request: Request, answer: Answer, governor: Governor) -> None:
        story.on_call(now_ns, request, answer, governor)
        if changes:
            recorded.on_call(now_ns, request, answer, governor)

    with _progress("replaying", files) as advance:
        outcome = replayer.replay(_entries(files, advance), on_call)
    outcome.broken += strange
    stories = [story]
    if changes and outcome.exact and recorded.first is not None:
        stories.append(_what_if(files, recorded, changes, name))
    _tell(arguments, heads, outcome, stories)
    return 0 if outcome.healthy else 1


def _what_if(files: list[Path], recorded: Recorded, changes: Mapping[str, float | None], name: str) -> RunSummary:
    story = RunSummary(name, estimated=True)
    limits: dict[str, Any] = dict(changes)

    def change(budget: Budget) -> Budget:
        return replace(budget, **limits)

    whatif, times = Counterfactual(recorded, change, story.on_call), Timeline()
    with _progress(name, files) as advance:
        for entry in _entries(files, advance):
            if isinstance(entry, str):
                continue
            at_ns = times.at(entry.at_ns)
            if not isinstance(entry.request, Snapshot | Gap | Sampled):
                whatif.see(at_ns, entry.request, entry.answer)
    return story


def _changes(arguments: argparse.Namespace) -> tuple[dict[str, float | None], str]:
    """Limits to be laid over the recorded ones, and what to call them."""
    changes = profiles.checked_limits(changes_of(arguments.set or []), "--set")
    told = [f"{key} = {'none' if value is None else f'{value:g}'}" for key, value in changes.items()]
    if not arguments.profile:
        return changes, ", ".join(told)
    if len(arguments.profile) > 1:
        raise UsageError("--profile is given twice", "a replay takes one at a time")
    profile = profiles.find(arguments.profile[0], default_path(arguments.config))
    return {**profile.limits, **changes}, ", ".join([profile.name, *told])


def _tell(arguments: argparse.Namespace, heads: list[Header], outcome: Outcome, stories: list[RunSummary]) -> None:
    first = heads[0]
    name = printable(Path(arguments.log).resolve().name)
    title = f"{name}: {at(first.opened_s)}, {span(outcome.seconds)}, edged {printable(first.edged[:40])}"
    seen = stories[0].begun_ns is not None
    if arguments.json:
        told = {"exact": outcome.exact, **asdict(outcome), "files": len(heads), "opened_s": first.opened_s}
        print(json.dumps({**told, "runs": [compare.plain(story) for story in stories if story.begun_ns is not None]}))
    else:
        out = console()
        out.print(Text(title, style="bold"))
        for line in _verdict(outcome, heads):
            out.print(Text(line))
        if outcome.exact and seen:
            out.print(compare.table(stories))
            if len(stories) > 1:
                out.print("~ estimated: recorded latencies and watts, see edged/replay/counterfactual.py", style="dim")
    if arguments.plot and seen:
        compare.plot(arguments.plot, title, stories, told=not arguments.json)


def _verdict(outcome: Outcome, heads: list[Header]) -> Iterator[str]:
    told = (
        f"{outcome.choices:,} choices, {outcome.decisions:,} decisions in {outcome.records:,} records of "
        f"{len(heads)} file{'' if len(heads) == 1 else 's'}"
    )
    if outcome.difference is not None:
        yield f"NOT the same after {outcome.seconds:.3f} s: {outcome.difference}"
        yield f"until there: {told}"
    elif outcome.exact:
        yield f"the same, byte for byte: {told}"
    else:
        yield f"nothing differs, and nothing could be compared: {told}"
    if outcome.gaps:
        yield (
            f"{outcome.lost:,} records were never written, in {outcome.gaps} gaps: exact up to each, and again after it"
        )
    if outcome.unchecked:
        yield f"{outcome.unchecked:,} records could not be compared: what led to them is not in the log"
    yield from (f"the log is not whole: {broken}" for broken in outcome.broken)
    if outcome.difference is None:
        return
    if heads[0].governor != governor_digest():
        yield "recorded by another version of the governor than this one: differences are to be expected"
    elif heads[0].machine != machine():
        yield f"recorded on {printable(heads[0].machine[:120])}, replayed on {machine()}: last digits may differ"


def _files(path: Path) -> tuple[list[Path], list[Header], list[str]]:
    """A file, or those of a ring in their order, with their heads; and of a ring what is wrong with those left out.

    A ring outlives power cuts and upgrades: a file without a head, or of another edged, costs itself alone.
    """
    if not path.is_dir():
        return [path], [_head(path)], []
    files, heads, strange = [], [], []
    first: UsageError | None = None
    for file in sorted(path.glob(PATTERN)):
        try:
            heads.append(_head(file))
            files.append(file)
        except UsageError as error:
            first = first or error
            strange.append(f"left out: {error.message}")
    if not files:
        raise first or UsageError(f"{path} holds no log of edged", "name the directory of [record] path, or a file")
    return files, heads, strange


def _head(path: Path) -> Header:
    with _opened(path) as source:
        return log.header(source, printable(str(path)))


def _entries(files: list[Path], advance: Callable[[float], None]) -> Iterator[Entry | str]:
    """Of all files, one after the other; a file that is missing from the row counts as a gap."""
    number = None
    for path in files:
        with _opened(path) as source:
            head = log.header(source, printable(str(path)))
            if number is not None and head.number != number + 1:
                yield f"{printable(path.name)} does not follow the file before it"
            number = head.number
            for entry in log.read(source, head):
                yield entry
                advance(source.tell())
        advance(-path.stat().st_size)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    try:
        source = path.open("rb")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", "name a log, or a directory of them") from error
    with source:
        yield source


@contextlib.contextmanager
def _progress(what: str, files: list[Path]) -> Iterator[Callable[[float], None]]:
    """A bar on stderr, where a person looks; told the place in a file, and at its end its size, negative."""
    if not sys.stderr.isatty():
        yield lambda place: None
        return
    done = 0.0
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=sum(file.stat().st_size for file in files))

        def advance(place: float) -> None:
            nonlocal done
            done -= min(0.0, place)
            bar.update(task, completed=done + max(0.0, place))

        yield advance
