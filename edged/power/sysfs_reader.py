"""Small files of the kernel under one root: a path in, its text or number out, or None with the reason.

A file stays open between readings and is read again from its beginning, which is how sysfs and procfs give fresh
values at the least cost; one that vanished or was replaced is opened again. For one thread.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from edged import clock

FILE_LIMIT: Final = 65_536
"""No file read here is longer; one that is, is not read to its end."""
LIST_AGAIN_NS: Final = 10 * clock.NS_PER_S
"""Sensors appear and vanish with their drivers: a listing is used for so long."""
MOST_OPEN: Final = 512


class SysfsReader:
    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._open: dict[Path, int] = {}
        self._listed: dict[tuple[Path, str], tuple[int, list[Path]]] = {}

    def path(self, name: str) -> Path:
        """`name` without a leading slash, under the root."""
        return self._root / name

    def shown(self, path: Path) -> str:
        """The path as it is on the machine, without the root."""
        return "/" + str(path.relative_to(self._root))

    def entries(self, folder: Path, pattern: str) -> list[Path]:
        """The entries of a directory, by the numbers in their names; listed every ten seconds."""
        now_ns = clock.mono_ns()
        listed = self._listed.get((folder, pattern))
        if listed is None or now_ns - listed[0] > LIST_AGAIN_NS:
            listed = self._listed[folder, pattern] = now_ns, sorted(folder.glob(pattern), key=_by_number)
        return listed[1]

    def read(self, path: Path) -> str:
        """The text of a file; OSError if there is none to be had."""
        descriptor = self._open.get(path)
        if descriptor is not None and os.fstat(descriptor).st_nlink == 0:  # removed, or another put in its place
            self._shut(path)
            descriptor = None
        if descriptor is None:
            if len(self._open) >= MOST_OPEN:
                self.close()
            descriptor = self._open[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return os.pread(descriptor, FILE_LIMIT, 0).decode("utf-8", "replace")
        except OSError:
            self._shut(path)
            raise

    def text(self, path: Path, missing: list[str]) -> str | None:
        try:
            return self.read(path)
        except PermissionError:
            missing.append(f"{self.shown(path)} may not be read by this user")
        except OSError as error:
            missing.append(f"{self.shown(path)} cannot be read: {error.strerror or error}")
        return None

    def integer(self, path: Path, missing: list[str]) -> int | None:
        text = self.text(path, missing)
        if text is None:
            return None
        number = whole(text)
        if number is None:
            missing.append(f"{self.shown(path)} holds {text[:40]!r}, not a whole number")
        return number

    def optional(self, path: Path) -> int | None:
        """A number that a kernel may or may not offer: absence is normal and gives no reason."""
        try:
            return whole(self.read(path))
        except OSError:
            return None

    def label(self, path: Path) -> str | None:
        """A name the kernel gives, if it gives one: absence is normal and gives no reason."""
        try:
            text = self.read(path)
        except OSError:
            return None
        return " ".join(text.replace("\0", " ").split())[:40] or None

    def close(self) -> None:
        for path in list(self._open):
            self._shut(path)

    def _shut(self, path: Path) -> None:
        os.close(self._open.pop(path))


def whole(text: str) -> int | None:
    """A whole number of plain digits, None if the text is something else."""
    return int(text) if re.fullmatch(r"-?\d{1,18}\s*", text, re.ASCII) else None


def _by_number(path: Path) -> tuple[list[int], str]:
    return [int(number) for number in re.findall(r"\d+", path.name)], path.name
