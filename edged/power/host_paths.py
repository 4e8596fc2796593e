"""Where a board is found: its files, its clock helper and its tools. Elsewhere than here on an emulated one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edged.power.clock_helper import SOCKET
from edged.power.nvpmodel import SYSTEM_PATH


@dataclass(frozen=True)
class HostPaths:
    """`root`: where /sys and /proc are; `tools`: as in $PATH, where nvpmodel is."""

    root: Path = Path("/")
    clock_helper: Path = SOCKET
    tools: str = SYSTEM_PATH


HERE = HostPaths()
