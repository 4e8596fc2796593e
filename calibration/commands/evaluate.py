"""`edged-calibrate evaluate`: the accuracy of every file on the held-out pictures."""

from __future__ import annotations

import argparse

import numpy as np

from edged.terminal import console, table
from edged_calibration.commands.terminal import job, print_json
from edged_calibration.evaluate.metrics import Evaluation


def run(arguments: argparse.Namespace) -> int:
    with job(arguments) as work:
        found = {"float": work.baseline}
        for variant in work.recipe.variant:
            found |= {name: work.evaluation(variant, name) for name in work.files(variant)}
    if arguments.json:
        print_json({name: {"figures": entry.figures, "images": entry.images} for name, entry in found.items()})
    else:
        _show(found)
    return 0


def _show(found: dict[str, Evaluation]) -> None:
    baseline = found["float"]
    names = list(baseline.figures)
    rows = []
    for name, entry in found.items():
        low, high = np.percentile(entry.draws, (2.5, 97.5))
        rows.append((name, *(f"{entry.figures[metric]:.4f}" for metric in names), f"{low:.3f} .. {high:.3f}"))
    out = console()
    out.print(table(("file", *(f">{name}" for name in names), f">95 % of {baseline.metric}"), rows))
    out.print(f"on {baseline.images} pictures")
