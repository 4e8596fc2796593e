"""What the self-test found: pure data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal["ok", "failed", "untested"]
Figures = dict[str, float | int | str | None]


@dataclass(frozen=True)
class Finding:
    """`figures` are measured, with their unit in the name. `untested`: `text` says what is missing for it."""

    outcome: Outcome
    subject: str
    text: str
    figures: Figures = field(default_factory=dict)
