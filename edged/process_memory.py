"""What this process holds in memory, as the kernel counts it, and how it lies there. Any thread; unknown is None."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import re
from pathlib import Path
from typing import Final

import numpy as np

_STATUS: Final = Path("/proc/self/status")
_FIELDS: Final = re.compile(r"^(RssAnon|RssFile):\s+(\d+) kB$", re.MULTILINE)
_MAPS, _PAGES = Path("/proc/self/maps"), Path("/proc/self/pagemap")
_PRIVATE: Final = re.compile(r"^(\w+)-(\w+) rw-p \w+ 00:00 0 *(?:\[heap\])?$", re.MULTILINE)
_LARGEST: Final = 4 << 30  # of a mapping that is looked at: larger ones are address space that a driver reserves
_PRESENT: Final = 63  # the bit of a page that is in memory
_HUGE_PAGES: Final = Path("/sys/kernel/mm/transparent_hugepage")
_MADV_HUGEPAGE: Final = 14
_MADV_COLLAPSE: Final = 25  # Linux 6.1
# ctypes lets other threads run meanwhile
_libc = ctypes.CDLL(None, use_errno=True)
_trim = getattr(_libc, "malloc_trim", None)  # glibc's


def give_back_freed() -> None:
    """Return freed heap to the kernel, which glibc keeps otherwise: tens of megabytes after a model was loaded."""
    if _trim is not None:
        _trim(0)


def use_huge_pages() -> int:
    """Put this process's memory into huge pages wherever it fills one already, so that nothing grows; the bytes that
    are in them now. An inference walks through all weights: with fewer address translations to look up, the model of
    `scripts/bench peers` (YOLOv8n's shape) takes 3 % less CPU. Kernels before 6.1 do it themselves, within minutes."""
    try:
        size = int((_HUGE_PAGES / "hpage_pmd_size").read_text())
        if "[never]" in (_HUGE_PAGES / "enabled").read_text():
            return 0
        blocks = _filled_blocks(size)
    except (OSError, ValueError):
        return 0
    return sum(size for start in blocks if _collapse(start, size))


def _filled_blocks(size: int) -> list[int]:
    """Where a huge page could lie of which every small page is in memory."""
    found: list[int] = []
    with _PAGES.open("rb", buffering=0) as pages:
        for first, last in _PRIVATE.findall(_MAPS.read_text()):
            start, end = -(-int(first, 16) // size) * size, int(last, 16) // size * size
            if not 0 < end - start <= _LARGEST:
                continue
            words = os.pread(pages.fileno(), (end - start) // mmap.PAGESIZE * 8, start // mmap.PAGESIZE * 8)
            present = np.frombuffer(words, np.uint64) >> _PRESENT
            filled = np.flatnonzero(present.reshape(-1, size // mmap.PAGESIZE).all(axis=1))
            found += (start + size * filled).tolist()
    return found


def _collapse(start: int, size: int) -> bool:
    """Into a huge page now, or later where the kernel only takes advice. False where there is none free."""
    where = ctypes.c_void_p(start), ctypes.c_size_t(size)
    if _libc.madvise(*where, _MADV_COLLAPSE) == 0:
        return True
    return ctypes.get_errno() == errno.EINVAL and _libc.madvise(*where, _MADV_HUGEPAGE) == 0


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
