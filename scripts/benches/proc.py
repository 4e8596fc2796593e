"""What a tree of processes costs: CPU nanoseconds and memory, read from /proc."""

from __future__ import annotations

import contextlib
from pathlib import Path

PROC = Path("/proc")


def tree(root: int) -> list[int]:
    """The process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # it ended while we looked
                # the command's name is in brackets and may hold anything; the parent is the second field after it
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, queue = [], [root]
    while queue:
        pid = queue.pop()
        found.append(pid)
        queue += children.get(pid, [])
    return found


def cpu_ns(root: int) -> dict[int, int]:
    """Nanoseconds on a CPU per process of the tree, all threads, as the scheduler counted them."""
    used: dict[int, int] = {}
    for pid in tree(root):
        with contextlib.suppress(OSError):
            used[pid] = sum(
                int((task / "schedstat").read_text().split()[0]) for task in (PROC / f"{pid}/task").iterdir()
            )
    return used


def cpu_between_ns(before: dict[int, int], after: dict[int, int]) -> int:
    """What the processes that lived at both times used in between."""
    return sum(after[pid] - before[pid] for pid in before.keys() & after.keys())


def pss_mb(root: int) -> float:
    """Memory of the tree in MB, pages shared between processes counted once (proportional set size)."""
    total_kb = 0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            for line in (PROC / f"{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total_kb += int(line.split()[1])
    return total_kb / 1024
