"""How much the C library has handed out: what native code allocates, whatever the system does with its pages."""

from __future__ import annotations

import ctypes
import gc
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
