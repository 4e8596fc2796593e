"""One benchmark's outcome, as a table for people and as one JSON object for programs."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
from rich.console import Console
from rich.table import Table

Sense = Literal["at most", "at least"]


@dataclass(frozen=True)
class Figure:
    """One measured figure against its target. `spread` is the least and the greatest of the rounds."""

    name: str
    value: float
    unit: str
    target: float
    sense: Sense = "at most"
    spread: tuple[float, float] | None = None

    @property
    def ok(self) -> bool:
        return self.value <= self.target if self.sense == "at most" else self.value >= self.target


@dataclass
class Report:
    """`figures[0]` is the headline; the benchmark is ok if all figures are. `notes` are measured side facts."""

    name: str
    figures: list[Figure] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return all(figure.ok for figure in self.figures)

    def as_json(self) -> str:
        head = self.figures[0]
        detail = {
            "figures": [
                {
                    "name": f.name,
                    "value": f.value,
                    "unit": f.unit,
                    "target": f.target,
                    "sense": f.sense,
                    "spread": f.spread,
                    "ok": f.ok,
                }
                for f in self.figures
            ],
            **self.notes,
        }
        whole = {
            "name": self.name, "figure": head.value, "unit": head.unit, "target": head.target, "ok": self.ok,
            "detail": detail, "machine": machine(),
        }  # fmt: skip
        return msgspec.json.encode(whole).decode()

    def show(self) -> None:
        table = Table(title=f"edged bench {self.name}")
        for column in ("figure", "measured", "target", "spread", ""):
            table.add_column(column, justify="left" if column == "figure" else "right")
        for f in self.figures:
            spread = f"{f.spread[0]:.3f} .. {f.spread[1]:.3f}" if f.spread else ""
            verdict = "[green]ok[/]" if f.ok else "[red]missed[/]"
            table.add_row(f.name, f"{f.value:.3f} {f.unit}", f"{f.sense} {f.target:g}", spread, verdict)
        console = Console()
        console.print(table)
        for key, value in self.notes.items():
            console.print(f"  {key}: {value}", highlight=False)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import av
    import cv2
    import numpy
    import onnxruntime
    import zmq

    import edged

    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    versions = {
        "python": platform.python_version(),
        "edged": edged.__version__,
        **{module.__name__: module.__version__ for module in (av, cv2, numpy, onnxruntime, zmq)},
    }
    return {
        "cpu": found.group(1) if found else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": None,
        "versions": versions,
    }
