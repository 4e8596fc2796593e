"""`edged-calibrate package` and `all`: the bundle, if every file passes the gate; `all` writes the report as well."""

from __future__ import annotations

import argparse
from pathlib import Path

from edged.engines.manifest import Manifest
from edged.files import write_atomic
from edged.terminal import console
from edged_calibration.bundle.write import package
from edged_calibration.cache import disk_faults_told
from edged_calibration.commands.gate import show, show_int8
from edged_calibration.commands.terminal import job, out_of, print_json
from edged_calibration.job import Job
from edged_calibration.report import html


def run(arguments: argparse.Namespace) -> int:
    with job(arguments) as work:
        directory = out_of(arguments, work.inputs.file)
        _ = work.frames  # the pictures first: nothing else is worth doing with bad ones
        for variant in work.recipe.variant:  # quick, and first: what fails here fails before the long steps
            if variant.precision != "int8" and not variant.sparse:
                _ = [work.evaluation(variant, name) for name in work.files(variant)], work.baseline
        report = _report(work, directory) if arguments.command == "all" else None
        if not arguments.json:
            show(work.verdicts)
            show_int8(work)
        with disk_faults_told(directory):
            manifest = package(work, directory)
        verdicts = work.verdicts
    if arguments.json:
        summary = {"bundle": str(directory), "report": str(report) if report else None, "verdicts": verdicts}
        print_json(summary)
    else:
        _show(manifest, directory, report)
    return 0


def _report(work: Job, directory: Path) -> Path:
    """The HTML report beside the bundle: it is of use all the more where the gate refuses."""
    path = directory.with_name(f"{directory.name}.html")
    text = html(work.analysis, work.worst_errors, work.recipe.name)
    with disk_faults_told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode())
    return path


def _show(manifest: Manifest, directory: Path, report: Path | None) -> None:
    files = {file.path: file.bytes for variant in manifest.variants for file in variant.files}
    out = console()
    out.print(f"bundle: {directory}, {len(files)} files, {sum(files.values()) / 1e6:.2f} MB")
    if report is not None:
        out.print(f"report: {report}")
