"""`edged doctor`: the hardware self-test. Builds nothing up and changes nothing; stop the daemon first, for the times.

Exit 0 if nothing failed, 1 if something did. What could not be tested says what is missing for it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from edged import clock
from edged.commands.terminal import console, progress
from edged.config import Config, PowerConfig, default_path, load
from edged.doctor.engines import engines
from edged.doctor.finding import Finding
from edged.doctor.gpu import gpu
from edged.doctor.machine import L4T, machine
from edged.doctor.open_questions import open_questions
from edged.doctor.sensors import sensors
from edged.engines.bundle import load_bundle
from edged.errors import EdgedError, UsageError

DEMO: Final = Path(__file__).parent.parent / "bundles" / "demo"
_UNITS: Final = {"ms": "ms", "us": "us", "w": "W", "c": "C", "mhz": "MHz", "mib": "MiB", "db": "dB"}
_STYLES: Final = {"ok": "green", "failed": "bold red", "untested": "yellow"}


def run(arguments: argparse.Namespace) -> int:
    config = _config(arguments.config)
    bundle = Path(arguments.bundle) if arguments.bundle else Path(config.bundle) if config else DEMO
    out = console()
    findings: list[Finding] = []
    with progress("testing this machine, about half a minute..."):
        for finding in examine(bundle, config.power if config else PowerConfig(), arguments.max_batch):
            findings.append(finding)
            if not arguments.json:
                _show(out, finding)
    report = json.dumps({"at": clock.wall_ns() // clock.NS_PER_S, "findings": [asdict(f) for f in findings]}, indent=2)
    if arguments.json:
        print(report)
    if arguments.out:
        _write(Path(arguments.out), report)
        if not arguments.json:
            out.print(f"the report is in {arguments.out}")
    return int(any(finding.outcome == "failed" for finding in findings))


def examine(bundle: Path, power: PowerConfig, max_batch: int) -> Iterator[Finding]:
    """Every test there is, in the order of the report."""
    told = [machine()]
    yield told[0]
    for finding in sensors(power):
        told.append(finding)
        yield finding
    try:
        loaded = load_bundle(bundle)
    except EdgedError as error:
        yield Finding("failed", "bundle", error.message)
        return
    for finding in gpu(loaded.manifest.input):
        told.append(finding)
        yield finding
    for finding in engines(loaded, max_batch):
        told.append(finding)
        yield finding
    yield open_questions(told, L4T.exists())


def _config(given: str | None) -> Config | None:
    """The configuration, if there is one: a self-test must work before anything is configured."""
    path = default_path(given)
    if given is None and not path.exists():
        return None
    return load(path)


def _show(out: Console, finding: Finding) -> None:
    line = Text(f"{finding.outcome:9}", _STYLES[finding.outcome])
    line.append(f"{finding.subject}: ", "bold")
    line.append(finding.text)
    out.print(line)
    for name, value in finding.figures.items():
        out.print(Text(f"            {_figure(name, value)}", "dim"))


def _figure(name: str, value: float | int | str | None) -> str:
    """The name "batch 1_ms" and the value 2.4 as "batch 1: 2.4 ms"."""
    label, unit = next(((name[: -len(u) - 1], u) for u in _UNITS if name.endswith(f"_{u}")), (name, ""))
    return f"{label}: unknown" if value is None else f"{label}: {value} {_UNITS.get(unit, '')}".rstrip()


def _write(path: Path, report: str) -> None:
    try:
        path.write_text(report + "\n")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}", "name another file with --out") from error
