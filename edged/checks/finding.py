"""What `edged check` finds: pure data, any thread. No command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edged.errors import EdgedError

Level = Literal["ok", "warning", "failed"]
"""A warning is what edged would run with all the same."""


@dataclass(frozen=True)
class Finding:
    """`subject`: what was tried. `fix`: what to do about it, where there is something to do."""

    level: Level
    subject: str
    text: str
    fix: str = ""


def failed(subject: str, error: EdgedError) -> Finding:
    return Finding("failed", subject, error.message, error.hint)
