"""Memory that fills huge pages is put into them; what does not stays as it is."""

from __future__ import annotations

import contextlib
import mmap
import re
from pathlib import Path

import numpy as np
import pytest

from edged import process_memory
from edged.process_memory import use_huge_pages

HUGE = 2 << 20


def huge_kb(address: int) -> int:
    """Of the mapping that holds the address, in huge pages."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(found[1], 16) <= address < int(found[2], 16)
        elif inside and line.startswith("AnonHugePages:"):
            return int(line.split()[1])
    return 0


def resident(address: int, size: int) -> int:
    """Bytes of a range that are in memory."""
    with Path("/proc/self/pagemap").open("rb", buffering=0) as pages:
        pages.seek(address // mmap.PAGESIZE * 8)
        words = np.frombuffer(pages.read(size // mmap.PAGESIZE * 8), np.uint64)
    return int((words >> 63).sum()) * mmap.PAGESIZE


def test_only_blocks_of_which_every_page_is_in_memory_are_taken() -> None:
    with mmap.mmap(-1, 8 * HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        with contextlib.suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        values = np.frombuffer(memory, np.uint8)
        address, start = values.ctypes.data, -values.ctypes.data % HUGE
        values[start : start + 2 * HUGE] = 7
        values[start + 3 * HUGE : start + 4 * HUGE - mmap.PAGESIZE] = 7
        found = [block - address for block in process_memory._filled_blocks(HUGE)]
        assert [at for at in found if 0 <= at < 8 * HUGE] == [start, start + HUGE]
        del values


def test_full_blocks_become_huge_pages_and_nothing_grows() -> None:
    with mmap.mmap(-1, 8 * HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        values = np.frombuffer(memory, np.uint8)
        start = -values.ctypes.data % HUGE
        values[start : start + 2 * HUGE] = 7
        values[start + 3 * HUGE : start + 4 * HUGE : 2 * mmap.PAGESIZE] = 9  # every other page
        address = values.ctypes.data
        before = resident(address, 8 * HUGE)
        moved = use_huge_pages()
        assert resident(address, 8 * HUGE) == before
        assert (values[start : start + 2 * HUGE] == 7).all()
        assert values[start + 3 * HUGE] == 9
        huge = huge_kb(address + start)
        del values
    if not moved or not huge:
        pytest.skip("the kernel has no huge pages, or none free")
