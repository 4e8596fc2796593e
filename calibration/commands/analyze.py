"""`edged-calibrate analyze`: per layer what it costs and what it can gain; a table, JSON, and an HTML report."""

from __future__ import annotations

import argparse

from edged.files import write_atomic
from edged.terminal import console
from edged_calibration.analyze import analyze
from edged_calibration.cache import disk_faults_told
from edged_calibration.commands.terminal import job, print_json
from edged_calibration.report import html, table


def run(arguments: argparse.Namespace) -> int:
    with job(arguments) as work:
        recipe = arguments.source.suffix == ".toml"
        found = work.analysis if recipe or arguments.frames else analyze(work.inputs.model)
        errors = work.worst_errors if recipe and arguments.html else []
        if arguments.html:
            with disk_faults_told(arguments.html):
                write_atomic(arguments.html, html(found, errors, arguments.source.stem).encode())
    if arguments.json:
        print_json(found)
        return 0
    out = console()
    out.print(table(found))
    for note in found.notes:
        out.print(note)
    if arguments.html:
        out.print(f"report: {arguments.html}")
    return 0
