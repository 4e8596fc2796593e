"""`edged-calibrate halve`: the FP16 files; what overflows stays float."""

from __future__ import annotations

import argparse

from edged.terminal import console
from edged_calibration.commands.terminal import job, needs_frames, of_precision, print_json, write_files


def run(arguments: argparse.Namespace) -> int:
    needs_frames(arguments)
    with job(arguments) as work:
        variants = of_precision(arguments, work, "fp16")
        kept = {}
        for variant in variants:
            write_files(arguments.out, work.files(variant))
            kept[variant.name] = work.halved(variant)
    if arguments.json:
        print_json({name: report.kept for name, report in kept.items()})
        return 0
    out = console()
    for name, report in kept.items():
        out.print(f"{name}: {len(report.kept)} nodes stay float")
        for entry in report.kept:
            out.print(f"  {entry.node}: {entry.reason}")
    if arguments.out:
        out.print(f"written to {arguments.out}")
    return 0
