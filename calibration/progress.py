"""How long work says how far it is: a callback that takes (done, total). The command line draws bars with it."""

from __future__ import annotations

from collections.abc import Callable

Advance = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


def silent(done: int, total: int) -> None:
    """Says nothing."""
