"""`edged doctor`: the hardware self-test. It changes nothing; stop the daemon first, so that the times are right.

Exit 0 if nothing failed, 1 if something did. What could not be tested names what it lacks.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from edged import clock
from edged.checks.device import L4T, machine, sensors
from edged.checks.engines import engines
from edged.checks.finding import Figures, Finding, failed
from edged.checks.gpu import gpu
from edged.checks.open_questions import open_questions
from edged.checks.power import gpu_clock, power_modes
from edged.config import Config, PowerConfig, default_path, load
from edged.engines.bundle import load_bundle
from edged.errors import EdgedError, UsageError
from edged.loop.device_info import mode_in_force
from edged.power.host_paths import HERE, HostPaths
from edged.terminal import console, printable, progress

DEMO: Final = Path(__file__).parent.parent / "bundles" / "demo"
_UNITS: Final = {"ms": "ms", "us": "us", "w": "W", "c": "C", "mhz": "MHz", "mib": "MiB", "db": "dB", "percent": "%"}
INDENT: Final = 10
SENTENCE: Final = 40
"""A figure that is longer is one."""
NO_BREAK: Final = "\N{NO-BREAK SPACE}"
_STYLES: Final = {"ok": "green", "warning": "yellow", "failed": "bold red", "untested": "yellow"}


def run(arguments: argparse.Namespace) -> int:
    config = _config(arguments.config)
    bundle = Path(arguments.bundle) if arguments.bundle else Path(config.bundle) if config else DEMO
    if arguments.out:
        _write(Path(arguments.out), "", "a")  # that it can be, before half a minute of tests
    out = console()
    findings: list[Finding] = []
    with progress("testing this machine, about half a minute..."):
        for finding in examine(bundle, config.power if config else PowerConfig(), arguments.max_batch):
            findings.append(finding)
            if not arguments.json:
                _show(out, finding)
    report = json.dumps({"at": clock.wall_ns() // clock.NS_PER_S, "findings": [_json(f) for f in findings]}, indent=2)
    if arguments.json:
        print(report)
    if arguments.out:
        _write(Path(arguments.out), report + "\n", "w")
        if not arguments.json:
            out.print(f"the report is in {arguments.out}")
    return int(any(finding.level == "failed" for finding in findings))


def examine(bundle: Path, power: PowerConfig, max_batch: int, board: HostPaths = HERE) -> Iterator[Finding]:
    """Every test there is, in the order of the report."""
    found: list[Finding] = []
    for finding in _tests(bundle, power, max_batch, board):
        found.append(finding)
        yield finding
    yield open_questions(found, (board.root / L4T).exists())


def _tests(bundle: Path, power: PowerConfig, max_batch: int, board: HostPaths) -> Iterator[Finding]:
    yield machine(board.root)
    yield from sensors(power, board.root)
    if (board.root / L4T).exists():
        yield power_modes(power, None, board.tools)
        yield gpu_clock(board.clock_helper)
    try:
        loaded = load_bundle(bundle)
    except EdgedError as error:
        yield failed("bundle", error)
        return
    yield from gpu(loaded.manifest.input)
    yield from engines(loaded, max_batch, mode_in_force(None, board.tools))


def _json(finding: Finding) -> dict[str, object]:
    return {
        "outcome": finding.level, "subject": finding.subject, "text": finding.text, "fix": finding.fix,
        "figures": finding.figures,
    }  # fmt: skip


def _config(named: str | None) -> Config | None:
    """The configuration, if there is one: a self-test must work before anything is configured."""
    path = default_path(named)
    if named is None and not path.exists():
        return None
    return load(path)


def _show(out: Console, finding: Finding) -> None:
    head, *rest = _wrapped(f"{finding.subject}: {finding.text}", out.width)
    subject = len(finding.subject) + 1
    outcome = (f"{finding.level:{INDENT}}", _STYLES[finding.level])
    out.print(
        Text.assemble(outcome, (head[:subject], "bold"), head[subject:]),
        *(Text(" " * INDENT + more) for more in rest),
        sep="\n",
    )
    fix = [f"fix: {finding.fix}"] if finding.fix else []
    for text in fix + figures(finding.figures):
        for more in _wrapped(text, out.width):
            out.print(Text(" " * INDENT + more, "dim"))


def _wrapped(text: str, width: int) -> list[str]:
    lines = textwrap.wrap(text, width - INDENT, break_on_hyphens=False) or [""]
    return [printable(line.replace(NO_BREAK, " ")) for line in lines]


def figures(found: Figures) -> list[str]:
    """Paragraphs: sentences one by one, the rest together, and what is unknown at the end."""
    known = {name: value for name, value in found.items() if value is not None}
    sentences = [
        f"{name}: {value}" for name, value in known.items() if isinstance(value, str) and len(value) > SENTENCE
    ]
    short = [
        _figure(name, value) for name, value in known.items() if not (isinstance(value, str) and len(value) > SENTENCE)
    ]
    unknown = [_split(name)[0] for name, value in found.items() if value is None]
    figures_line = [", ".join(short)] if short else []
    return figures_line + sentences + ([f"unknown or not there: {', '.join(unknown)}"] if unknown else [])


def _figure(name: str, value: float | int | str) -> str:
    """The name "batch 1_ms" and the value 2.4 as "batch 1 2.4 ms": figures of one kind keep together."""
    label, unit = _split(name)
    return f"{label}{NO_BREAK}{value}{NO_BREAK + unit if unit else ''}".replace(" ", NO_BREAK)


def _split(name: str) -> tuple[str, str]:
    """(the label, its unit)"""
    return next(((name[: -len(u) - 1], unit) for u, unit in _UNITS.items() if name.endswith(f"_{u}")), (name, ""))


def _write(path: Path, text: str, mode: str) -> None:
    try:
        with path.open(mode) as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}", "name another file with --out") from error
