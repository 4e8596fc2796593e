"""`edged-calibrate diff A B`: what differs between two bundles; exit code 1 if anything does, as diff has it."""

from __future__ import annotations

import argparse

from edged.engines.bundle import load_bundle
from edged.terminal import console, table
from edged_calibration.bundle.diff import differences
from edged_calibration.commands.terminal import print_json


def run(arguments: argparse.Namespace) -> int:
    found = differences(load_bundle(arguments.first).manifest, load_bundle(arguments.second).manifest)
    if arguments.json:
        print_json(found)
    elif not found:
        console().print("no difference")
    else:
        rows = [
            (entry.what, entry.first or "-", entry.second or "-", f"{entry.points:+.2f}" if entry.points else "")
            for entry in found
        ]
        console().print(table(("", "first", "second", ">points"), rows))
    return 1 if found else 0
