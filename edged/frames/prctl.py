"""Settings that a process makes for itself by prctl(2). Any process; Linux."""

from __future__ import annotations

import functools
import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ctypes

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NAME: Final = 15


def die_with_parent(by: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when the thread that started it ends: a decoder that hangs must not
    outlive the daemon."""
    _prctl(_PR_SET_PDEATHSIG, by)


def keep_out_of_core_dumps() -> None:
    """This process is about to know a password: no core dump of it is written."""
    _prctl(_PR_SET_DUMPABLE, 0)


def name_process(name: str) -> None:
    """Give the calling thread, and in a process of one thread the process, a name of at most 15 bytes."""
    _prctl(_PR_SET_NAME, name.encode())


def _prctl(option: int, value: int | bytes) -> None:
    _libc().prctl(option, value)


@functools.cache
def _libc() -> ctypes.CDLL:
    import ctypes  # a third of a millisecond, and only some processes need it

    return ctypes.CDLL(None, use_errno=True)
