"""`edged-calibrate sparsify`: the pruned float model, and what became of each layer."""

from __future__ import annotations

import argparse

import onnx

from edged.files import write_atomic
from edged.terminal import console, table
from edged_calibration.cache import disk_faults_told
from edged_calibration.commands.terminal import job, needs_frames, print_json
from edged_calibration.sparsity.apply import SparsityReport


def run(arguments: argparse.Namespace) -> int:
    if arguments.method != "magnitude":
        needs_frames(arguments)
    with job(arguments) as work:
        report, model = work.sparsity, work.float_model("sparse")
        if arguments.out:
            onnx.checker.check_model(model)
            with disk_faults_told(arguments.out):
                write_atomic(arguments.out, model.SerializeToString(deterministic=True))
    if arguments.json:
        print_json(report)
    else:
        _show(report)
        if arguments.out:
            console().print(f"written: {arguments.out}")
    return 0


def _show(report: SparsityReport) -> None:
    rows = [
        (
            layer.node,
            layer.state,
            "" if layer.error is None else f"{layer.error:.3f}",
            "" if layer.kept is None else f"{layer.kept:.0%}",
            layer.reason,
        )
        for layer in report.layers
    ]
    out = console()
    out.print(table(("layer", "state", ">error", ">kept", "why"), rows))
    out.print(
        f"{report.pruned} of {report.eligible} layers that can be are 2:4 ({report.method}): "
        f"{report.mac_share:.0%} of the multiply-accumulates"
    )
