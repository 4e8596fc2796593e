"""The names of this daemon's rings in /dev/shm, which nobody can know beforehand, and what dead daemons left there.

In: the instance and the directory of its lock. Out: names. A lock file in the runtime directory keeps two daemons of
one instance apart. Each ring's file is locked by its daemon as well, and the kernel releases that when the daemon dies:
a ring of this user that nobody has locked is a dead daemon's. Other files in /dev/shm are never touched. Any thread.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import secrets
import stat
from pathlib import Path
from typing import Final

from edged import files
from edged.errors import EdgedError
from edged.frames.ring import SHM

_NAME: Final = re.compile(r"edged-[0-9a-f]{20}-.+")

log = logging.getLogger(__name__)


class RingNames:
    """The claim on one instance, until `release`."""

    def __init__(self, instance: str, locks: Path, shm: Path = SHM) -> None:
        """Raises EdgedError if a live daemon has this instance, or the lock cannot be made."""
        safe = re.sub("[^a-z0-9_]", "_", instance.lower())[:32]
        self._path = locks / f"rings-{safe}.lock"
        try:
            self._lock = files.lock(self._path)
        except files.LockHeldError as error:
            raise EdgedError(
                f"another edged (pid {error.holder}) holds the frame rings by {self._path}",
                "stop it, or give this one another endpoint",
            ) from error
        except OSError as error:
            raise EdgedError(
                f"cannot claim the frame rings by {self._path}: {error.strerror}",
                "check who owns its directory, and whether the file system is full",
            ) from error
        self.token = secrets.token_hex(10)
        remove_dead_rings(shm)

    def name(self, camera: str, generation: int) -> str:
        """Of a camera's ring."""
        return f"edged-{self.token}-{camera}-{generation}"

    def release(self) -> None:
        """Give up the claim."""
        files.unlock(self._lock, self._path)


def hold(name: str, shm: Path = SHM) -> int:
    """Lock a ring's file as long as the descriptor that is returned is open. EdgedError if the file is gone."""
    try:
        descriptor = os.open(shm / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise EdgedError(f"cannot open the frame ring {shm / name}: {error.strerror}") from error
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def remove_dead_rings(shm: Path = SHM) -> None:
    """Remove the rings of this user that no daemon has locked."""
    for ring in shm.glob("edged-*"):
        if not _NAME.fullmatch(ring.name):
            continue
        try:
            found = ring.lstat()
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                log.info("%s is not a frame ring of this user: it is left alone", ring)
                continue
            descriptor = os.open(ring, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                ring.unlink()
            finally:
                os.close(descriptor)
        except (BlockingIOError, FileNotFoundError):
            continue  # a live daemon's, or gone meanwhile
        except OSError as error:
            log.warning("cannot remove the frame ring %s of a daemon that died: %s", ring, error.strerror)
