"""`edged why`: the last decisions, for a field engineer: when, what, which bound, and how each variant stood."""

from __future__ import annotations

import argparse
import json

import msgspec
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from edged.bus.schema import Decision
from edged.commands.terminal import ask, at, console, number

_MOST = 1000

BOUNDS = {
    "deadline": "bound by the deadline",
    "load": "bound by the engine's capacity",
    "accuracy": "bound by the accuracy floor",
    "pin": "pinned by an operator",
    "none": "no limit binds",
}


def run(arguments: argparse.Namespace) -> int:
    reply = ask(arguments, "why", n=min(arguments.n, _MOST))
    if arguments.json:
        print(json.dumps(reply["decisions"]))
        return 0
    out = console()
    for decision in msgspec.convert(reply["decisions"], list[Decision]):
        show(out, decision)
    return 0


def show(out: Console, decision: Decision) -> None:
    """One decision: its line, its sentence, and how every variant stood."""
    batch = f", batches of up to {decision.max_batch}" if decision.max_batch > 1 else ""
    bound = BOUNDS.get(decision.bound, decision.bound)
    head = Text.assemble(at(decision.t_publish), "  ", (decision.variant, "bold"), f"  {bound}{batch}")
    out.print(head)
    out.print(Padding(Text(decision.reason), (0, 0, 0, 2)))
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, header_style="dim")
    for name in ("", "variant"):
        table.add_column(name, no_wrap=True)
    for name in ("accuracy", "predicted"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict")
    for other in decision.alternatives:
        mark = ">" if other.variant == decision.variant else " "
        predicted = number(other.predicted_ms, 1, " ms")
        table.add_row(mark, other.variant, number(other.accuracy, 3), predicted, Text(other.verdict))
    out.print(Padding(table, (0, 0, 1, 2)))
