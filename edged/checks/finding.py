"""What `edged check` and `edged doctor` find: pure data, any thread. No command."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from edged.errors import EdgedError

Level = Literal["ok", "warning", "failed", "untested"]
"""With a warning edged would run; `untested`: the text names what the test lacks."""
Figures = dict[str, float | int | str | None]
"""Measured, with the unit in the name; None is unknown."""


@dataclass(frozen=True)
class Finding:
    """`subject`: what was tried. `fix`: what to do about it, where there is something to do."""

    level: Level
    subject: str
    text: str
    fix: str = ""
    figures: Figures = field(default_factory=dict)


def failed(subject: str, error: EdgedError) -> Finding:
    return Finding("failed", subject, error.message, error.hint)
