"""`edged replay`: repeats every decision of a log and compares it byte for byte; also under other limits.

Exit code 0 if all are equal, else 1 with the first difference. With --profile or --set the recorded frames go
through the governor again under those limits (method: edged/replay/counterfactual.py), side by side.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

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
    files, headers, unreadable = _files(Path(arguments.log))
    estimated = any(header.estimated for header in headers)
    summary, recorded = RunSummary("recorded", estimated), Recorded()

    def on_call(now_ns: int, request: Request, answer: Answer, governor: Governor) -> None:
        summary.on_call(now_ns, request, answer, governor)
        if changes:
            recorded.on_call(now_ns, request, answer, governor)

    with _progress("replaying", files) as advance:
        outcome = replayer.replay(_entries(files, advance), on_call)
    outcome.broken += unreadable
    summaries = [summary]
    if changes and outcome.exact and recorded.first is not None:
        summaries.append(_what_if(files, recorded, changes, name))
    _report(arguments, headers, outcome, summaries)
    return 0 if outcome.healthy else 1


def _what_if(files: list[Path], recorded: Recorded, changes: Mapping[str, float | None], name: str) -> RunSummary:
    summary = RunSummary(name, estimated=True)
    limits: dict[str, Any] = dict(changes)

    def change(budget: Budget) -> Budget:
        return replace(budget, **limits)

    counterfactual, timeline = Counterfactual(recorded, change, summary.on_call), Timeline()
    with _progress(name, files) as advance:
        for entry in _entries(files, advance):
            if isinstance(entry, str):
                continue
            at_ns = timeline.at(entry.at_ns)
            if not isinstance(entry.request, Snapshot | Gap | Sampled):
                counterfactual.observe(at_ns, entry.request, entry.answer)
    return summary


def _changes(arguments: argparse.Namespace) -> tuple[dict[str, float | None], str]:
    """The limits that replace recorded ones, and the name of the run."""
    changes = profiles.checked_limits(changes_of(arguments.set or []), "--set")
    texts = [f"{key} = {'none' if value is None else f'{value:g}'}" for key, value in changes.items()]
    if not arguments.profile:
        return changes, ", ".join(texts)
    if len(arguments.profile) > 1:
        raise UsageError("--profile is given twice", "a replay takes one at a time")
    profile = profiles.find(arguments.profile[0], default_path(arguments.config))
    return {**profile.limits, **changes}, ", ".join([profile.name, *texts])


def _report(
    arguments: argparse.Namespace, headers: list[Header], outcome: Outcome, summaries: list[RunSummary]
) -> None:
    first = headers[0]
    name = printable(Path(arguments.log).resolve().name)
    title = f"{name}: {at(first.opened_s)}, {span(outcome.seconds)}, edged {printable(first.edged[:40])}"
    has_calls = summaries[0].begun_ns is not None
    if arguments.json:
        values = {"exact": outcome.exact, **asdict(outcome), "files": len(headers), "opened_s": first.opened_s}
        print(
            json.dumps(
                {**values, "runs": [compare.plain(summary) for summary in summaries if summary.begun_ns is not None]}
            )
        )
    else:
        out = console()
        out.print(Text(title, style="bold"))
        for line in _verdict(outcome, headers):
            out.print(Text(line))
        if outcome.exact and has_calls:
            out.print(compare.table(summaries))
            if len(summaries) > 1:
                out.print("~ estimated: recorded latencies and watts, see edged/replay/counterfactual.py", style="dim")
    if arguments.plot and has_calls:
        compare.plot(arguments.plot, title, summaries, announce=not arguments.json)


def _verdict(outcome: Outcome, headers: list[Header]) -> Iterator[str]:
    counts = (
        f"{outcome.choices:,} choices, {outcome.decisions:,} decisions in {outcome.records:,} records of "
        f"{len(headers)} file{'' if len(headers) == 1 else 's'}"
    )
    if outcome.difference is not None:
        yield f"NOT the same after {outcome.seconds:.3f} s: {outcome.difference}"
        yield f"until there: {counts}"
    elif outcome.exact:
        yield f"the same, byte for byte: {counts}"
    else:
        yield f"nothing differs, and nothing could be compared: {counts}"
    if outcome.gaps:
        yield (
            f"{outcome.lost:,} records were never written, in {outcome.gaps} gaps: exact up to each, and again after it"
        )
    if outcome.unchecked:
        yield f"{outcome.unchecked:,} records could not be compared: what led to them is not in the log"
    yield from (f"the log is incomplete: {broken}" for broken in outcome.broken)
    if outcome.difference is None:
        return
    if headers[0].governor != governor_digest():
        yield "recorded by another version of the governor than this one: differences are to be expected"
    elif headers[0].machine != machine():
        yield f"recorded on {printable(headers[0].machine[:120])}, replayed on {machine()}: last digits may differ"


def _files(path: Path) -> tuple[list[Path], list[Header], list[str]]:
    """The file, or those of a ring in order, with their headers; and why files of the ring were left out.

    After a power failure or an upgrade a ring may hold a file without a header, or of another version: only that file
    is left out.
    """
    if not os.path.isdir(path):
        return [path], [_header(path)], []
    files, headers, unreadable = [], [], []
    first: UsageError | None = None
    for file in sorted(path.glob(PATTERN)):
        try:
            headers.append(_header(file))
            files.append(file)
        except UsageError as error:
            first = first or error
            unreadable.append(f"left out: {error.message}")
    if not files:
        raise first or UsageError(f"{path} holds no log of edged", "name the directory of [record] path, or a file")
    return files, headers, unreadable


def _header(path: Path) -> Header:
    with _opened(path) as source:
        return log.header(source, printable(str(path)))


def _entries(files: list[Path], advance: Callable[[float], None]) -> Iterator[Entry | str]:
    """The entries of all files in order; a file missing from the sequence counts as a gap."""
    number = None
    for path in files:
        with _opened(path) as source:
            header = log.header(source, printable(str(path)))
            if number is not None and header.number != number + 1:
                yield f"{printable(path.name)} does not follow the file before it"
            number = header.number
            for entry in log.read(source, header):
                yield entry
                advance(source.tell())
        advance(-path.stat().st_size)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with open_regular(path) as source:
            yield source
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"{path} cannot be read: {reason}", "name a log, or a directory of them") from error


@contextlib.contextmanager
def _progress(what: str, files: list[Path]) -> Iterator[Callable[[float], None]]:
    """A bar on a terminal (stderr); called with the position in a file, and at its end with its negative size."""
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
