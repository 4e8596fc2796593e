"""`edged-calibrate gate`: every file against the float model; exit code 1 if one fails."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from edged.terminal import console, table
from edged_calibration.bundle.write import check_gate
from edged_calibration.commands.terminal import job, print_json
from edged_calibration.evaluate.gate import Verdict
from edged_calibration.job import Job
from edged_calibration.recipe.schema import VariantOptions
from edged_calibration.sparsity.apply import sparse_layers


def run(arguments: argparse.Namespace) -> int:
    with job(arguments) as work:
        verdicts = work.verdicts
        if arguments.json:
            print_json(verdicts)
        else:
            show(verdicts)
            show_int8(work)
        check_gate(work)
    return 0


def show(verdicts: Sequence[Verdict]) -> None:
    """The table of the gate."""
    rows = [
        (
            verdict.file,
            f"{verdict.value:.4f}",
            f"{verdict.drop:.2f}",
            f"{verdict.low:.2f} .. {verdict.high:.2f}",
            f"{verdict.limit:g}",
            "passed" if verdict.passed else "refused",
        )
        for verdict in verdicts
    ]
    first = verdicts[0]
    out = console()
    out.print(table(("file", f">{first.metric}", ">drop", ">95 %", ">allowed", ""), rows))
    out.print(f"float {first.float_value:.4f}, on {first.images} pictures; drops in points")


def show_int8(work: Job) -> None:
    """Of each INT8 variant: what quantising does to its answers, and how much of it is 2:4, counted on its bytes."""
    out = console()
    for variant in (variant for variant in work.recipe.variant if variant.precision == "int8"):
        answers = ", ".join(f"{name} {ratio:.1f} dB" for name, ratio in work.errors(variant).outputs.items())
        out.print(f"{variant.name}: signal over quantisation noise: {answers}{_sparsity(work, variant)}")


def _sparsity(work: Job, variant: VariantOptions) -> str:
    if not variant.sparse:
        return ""
    layers = sparse_layers(next(iter(work.files(variant).values())).model)
    return f"; 2:4 are {sum(layers.values())} of the {len(layers)} layers that can be"
