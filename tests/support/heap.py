"""How much memory code takes: of Python, and of the C library, whatever the system does with its pages."""

from __future__ import annotations

import ctypes
import gc
import tracemalloc
from collections.abc import Callable
from typing import Final

_FIELDS: Final = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip


class _Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS]


def allocated_bytes() -> int:
    """Bytes in blocks that were allocated and not freed, small and large, by mallinfo2 (glibc 2.33 and later).

    Unlike resident memory it does not depend on when the kernel takes pages back, or on what it has swapped.
    """
    gc.collect()
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _Mallinfo2
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd)


def python_bytes(run: Callable[[], None], rounds: int = 10) -> tuple[int, int]:
    """What one `run` keeps of Python's memory, and what it takes in passing, bytes.

    The least over the rounds: what other threads of the process allocate meanwhile is traced as well.
    """
    kept, in_passing = [], []
    tracemalloc.start()
    try:
        run()
        for _ in range(rounds):
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            run()
            after, peak = tracemalloc.get_traced_memory()
            kept.append(after - before)
            in_passing.append(peak - before)
    finally:
        tracemalloc.stop()
    return min(kept), min(in_passing)
