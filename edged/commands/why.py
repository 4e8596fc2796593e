"""`edged why`: the last decisions, for a field engineer: when, what, which bound, and how each variant stood."""

from __future__ import annotations

import argparse
import json

import msgspec
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from edged.bus.decision_words import BOUNDS, consequences
from edged.bus.schema import Alternative, Decision, Number
from edged.commands.daemon_requests import ask
from edged.terminal import at, console, number, span

_MOST = 1000


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
    """One decision: what ran, why, what is relaxed, how every variant stood, and the numbers used."""
    batch = f", batches of up to {decision.max_batch}" if decision.max_batch > 1 else ""
    bound = BOUNDS.get(decision.bound, decision.bound)
    head = Text.assemble(at(decision.t_publish), "  ", (decision.variant, "bold"), f"  {bound}{batch}")
    out.print(head)
    for sentence in (decision.reason, *consequences(decision)):
        out.print(Padding(Text(sentence), (0, 0, 0, 2)))
    for other in decision.alternatives:
        chosen = other.variant == decision.variant
        out.print(Padding(Text(f"{'>' if chosen else ' '} {_figures(other)}", style="bold" if chosen else ""), (0, 2)))
        out.print(Padding(Text(other.verdict, style="dim"), (0, 0, 0, 6)))
    if decision.numbers:
        out.print(Padding(_numbers(decision.numbers), (0, 0, 0, 4)))
    out.print()


def _figures(other: Alternative) -> str:
    """What is known of a variant, in one line; what is not is left out."""
    figures = [f"accuracy {number(other.accuracy, 3)}", f"predicted {number(other.predicted_ms, 1, ' ms')}"]
    if other.energy_mj is not None:
        figures.append(f"{number(other.energy_mj, 0 if other.energy_mj >= 100 else 1)} mJ a frame")
    if other.power_w is not None:
        figures.append(f"{other.power_w:.3g} W")
    return f"{other.variant}: {', '.join(figures)}"


def _numbers(numbers: list[Number]) -> Table:
    """Name, value and error, age: the estimates behind the decision."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, show_header=False, style="dim")
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    for one in numbers:
        error = "" if one.error is None else f" ± {one.error:.2g}"
        age = "" if one.age_s is None else f"{span(one.age_s)} old"
        assumed = "assumed" if one.assumed else ""
        table.add_row(one.name, f"{one.value:.4g}{error} {one.unit}", f"{age} {assumed}".strip())
    return table
