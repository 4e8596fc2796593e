"""Two settings that a process makes for itself by prctl(2). Any process; Linux."""

from __future__ import annotations

import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4


def die_with_parent(by: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when the thread that started it ends: a decoder that hangs must not
    outlive the daemon."""
    _prctl(_PR_SET_PDEATHSIG, by)


def keep_out_of_core_dumps() -> None:
    """This process is about to know a password: no core dump of it is written."""
    _prctl(_PR_SET_DUMPABLE, 0)


def _prctl(option: int, value: int) -> None:
    import ctypes  # a third of a millisecond, and only some processes need it

    ctypes.CDLL(None, use_errno=True).prctl(option, value)
