"""One build of a bundle at a time: who comes second waits, and then finds the plans of the first.

In: the bundle's directory. Out: the lock while the block runs. It is an flock on a file in the bundle, so that it ends
with its process, however that ends. Waiting is right for both who build: at boot `edged-build.service` would fail for
nothing but that somebody builds already, and who builds by hand wants the engines, whoever made them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from edged import clock, files
from edged.errors import EdgedError

LOCK_NAME: Final = ".build.lock"
WAIT_S: Final = 2 * 3600
"""As long as edged-build.service lets a build take."""
_POLL_S: Final = 0.2


@contextlib.contextmanager
def only_build(directory: Path, waits: Callable[[str], None], wait_s: float = WAIT_S) -> Iterator[None]:
    """Hold the bundle's lock. `waits` is called once, with the process that has it. EdgedError if that does not end."""
    path = directory / LOCK_NAME
    until_ns = clock.mono_ns() + int(wait_s * clock.NS_PER_S)
    reported = False
    while True:
        try:
            descriptor = files.lock(path, 0o644)
            break
        except files.LockHeldError as error:
            holder = error.holder
        except OSError as error:
            text = f"{path} cannot be locked: {error.strerror}"
            raise EdgedError(text, "build as the user who owns the bundle; is the file system full?") from error
        if not reported:
            waits(holder)
            reported = True
        if clock.mono_ns() >= until_ns:
            raise EdgedError(
                f"another build of {directory} (pid {holder}) has not ended in {wait_s / 60:.0f} min",
                "end that one, then build again: it continues after the engines that are done",
            )
        clock.sleep_s(_POLL_S)
    try:
        yield
    finally:
        files.unlock(descriptor, path)  # removed as well: another user's build must be able to make its own
