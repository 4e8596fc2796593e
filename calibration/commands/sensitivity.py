"""`edged-calibrate sensitivity`: the accuracy that INT8 costs in each layer, and what to keep in float to pass."""

from __future__ import annotations

import argparse

from edged.errors import UsageError
from edged.terminal import console, table
from edged_calibration.commands.terminal import job, print_json
from edged_calibration.evaluate.gate import POINTS

_SHOWN = 15


def run(arguments: argparse.Namespace) -> int:
    with job(arguments) as work:
        variant = next((v for v in work.recipe.variant if v.precision == "int8"), None)
        if variant is None:
            raise UsageError(f"{arguments.source} has no int8 variant", "add one under [[variant]]")
        found, keep = work.sensitivity(variant)
        wanted = work.recipe.limit(variant)
    if arguments.json:
        print_json({"variant": variant.name, "sensitivity": found, "keep_float": keep})
        return 0
    out = console()
    out.print(f"{variant.name}: float {found.baseline:.4f}, all in INT8 {found.all_int8:.4f}")
    rows = [(layer.node, f"{layer.drop * POINTS:.2f}") for layer in found.layers[:_SHOWN]]
    out.print(table(("layer", ">points lost by it alone"), rows))
    if keep is None:
        out.print(
            f"no set of layers brings it within {wanted:g} points: calibrate on other frames, or prune fewer layers"
        )
    elif keep:
        names = ", ".join(f'"{name}"' for name in keep)
        out.print(f"within {wanted:g} points with [quantize] keep_float = [{names}]")
    else:
        out.print(f"within {wanted:g} points as it is: nothing has to stay in float")
    return 0
