"""One build of a bundle at a time: who comes second waits, and then finds the plans of the first.

In: the bundle's directory. Out: the lock while the block runs. It is an flock on a file in the bundle, so that it ends
with its process, however that ends. Waiting is right for both who build: at boot `edged-build.service` would fail for
nothing but that somebody builds already, and who builds by hand wants the engines, whoever made them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from edged import clock
from edged.errors import EdgedError

LOCK_NAME: Final = ".build.lock"
WAIT_S: Final = 2 * 3600
"""As long as edged-build.service lets a build take."""
_POLL_S: Final = 0.2


@contextlib.contextmanager
def only_build(directory: Path, waits: Callable[[str], None], wait_s: float = WAIT_S) -> Iterator[None]:
    """Hold the bundle's lock. `waits` is told once, with the process that has it. EdgedError if that does not end."""
    path = directory / LOCK_NAME
    until_ns = clock.mono_ns() + int(wait_s * clock.NS_PER_S)
    told = False
    while (descriptor := _try(path)) is None:
        holder = _holder(path)
        if not told:
            waits(holder)
            told = True
        if clock.mono_ns() >= until_ns:
            raise EdgedError(
                f"another build of {directory} (pid {holder}) has not ended in {wait_s / 60:.0f} min",
                "end that one, then build again: it goes on from the engines that are done",
            )
        clock.sleep_s(_POLL_S)
    try:
        yield
    finally:
        if _is_at(path, descriptor):  # it goes before it is let go: another user's build must be able to make its own
            path.unlink()
        os.close(descriptor)


def _try(path: Path) -> int | None:
    """The descriptor of the lock, held; None while another has it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise EdgedError(
            f"{path} cannot be written: {error.strerror}", "build as the user who owns the bundle"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = _is_at(path, descriptor)
        if held:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d" % os.getpid(), 0)
    except BlockingIOError:
        held = False
    except OSError as error:
        os.close(descriptor)
        raise EdgedError(f"{path} cannot be locked: {error.strerror}", "is the file system full?") from error
    if held:
        return descriptor
    os.close(descriptor)
    return None


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether it is still this file that others find: not one that its holder removed, or of a replaced bundle."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    """The number of the process that has the lock."""
    try:
        return path.read_text() or "unknown"
    except OSError:
        return "unknown"  # it has just ended
