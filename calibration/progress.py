"""How work reports how far it is: callbacks, which the command line draws as bars and lines."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol

Advance = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


class Stages(Protocol):
    """How a job reports what it is doing."""

    def stage(self, title: str) -> AbstractContextManager[Advance]: ...

    def say(self, text: str) -> None: ...


def silent(done: int, total: int) -> None:
    """Reports nothing."""


class _Quiet:
    def stage(self, title: str) -> AbstractContextManager[Advance]:
        return nullcontext(silent)

    def say(self, text: str) -> None:
        """Reports nothing."""


QUIET: Final[Stages] = _Quiet()
