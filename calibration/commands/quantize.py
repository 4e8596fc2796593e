"""`edged-calibrate quantize`: the INT8 files, their Q/DQ pairs verified, and the error of each layer."""

from __future__ import annotations

import argparse

from edged.terminal import console, table
from edged_calibration.commands.terminal import job, needs_frames, of_precision, print_json, write_files
from edged_calibration.evaluate.layer_error import Errors
from edged_calibration.job import Job

_SHOWN = 10


def run(arguments: argparse.Namespace) -> int:
    needs_frames(arguments)
    with job(arguments) as work:
        variants = of_precision(arguments, work, "int8")
        names = [name for variant in variants for name in work.files(variant)]
        for variant in variants:
            write_files(arguments.out, work.files(variant))
        found = {variant.name: work.errors(variant) for variant in variants}
        methods = {variant.name: _methods(work, variant.sparse) for variant in variants}
    if arguments.json:
        print_json({"files": names, "methods": methods, "errors": found})
        return 0
    for name, errors in found.items():
        _show(name, methods[name], errors)
    if arguments.out:
        console().print(f"written to {arguments.out}: {', '.join(names)}")
    return 0


def _methods(work: Job, sparse: bool) -> dict[str, str]:
    """Target -> how its ranges were calibrated."""
    return {target: work.choice("sparse" if sparse else "dense", target).method for target in work.recipe.targets}


def _show(name: str, methods: dict[str, str], errors: Errors) -> None:
    out = console()
    answers = ", ".join(f"{output} {ratio:.1f} dB" for output, ratio in errors.outputs.items())
    sources = ", ".join(f"{method} for {target}" for target, method in methods.items())
    out.print(f"{name}: ranges by {sources}; answers against float: {answers}")
    out.print(f"the layers with the largest error, of {len(errors.layers)}:")
    rows = [(error.node, error.op, f"{error.sqnr_db:.1f} dB") for error in errors.layers[:_SHOWN]]
    out.print(table(("layer", "operator", ">signal to noise"), rows))
