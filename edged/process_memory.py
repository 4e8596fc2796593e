"""What this process holds in memory, as the kernel counts it. Any thread; unknown is None."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Final

_STATUS: Final = Path("/proc/self/status")
_FIELDS: Final = re.compile(r"^(RssAnon|RssFile):\s+(\d+) kB$", re.MULTILINE)
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; ctypes lets other threads run meanwhile


def give_back_freed() -> None:
    """Return freed heap to the kernel, which glibc keeps otherwise: tens of megabytes after a model was loaded."""
    if _trim is not None:
        _trim(0)


def own_bytes() -> int | None:
    """Memory that is this process's alone: no files, nothing shared."""
    return _counted("RssAnon")


def held_bytes() -> int | None:
    """All resident memory but what is shared with other processes, such as the cameras' rings."""
    return _counted("RssAnon", "RssFile")


def _counted(*names: str) -> int | None:
    try:
        found = dict(_FIELDS.findall(_STATUS.read_text()))
        return 1024 * sum(int(found[name]) for name in names)
    except (OSError, KeyError):
        return None
