"""The names of this daemon's rings in /dev/shm, which nobody can know beforehand, and what dead daemons left there.

In: the instance and the directory of its lock. Out: names. A lock file in the runtime directory, which belongs to this
user alone, holds the random part of the names; the kernel releases the lock when its holder dies, and the next daemon
then finds in the file which rings to remove. Files of others in /dev/shm are never touched. Any thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import secrets
import stat
from pathlib import Path
from typing import Final

from edged.errors import EdgedError
from edged.frames.ring import SHM

_TOKEN: Final = re.compile(r"[0-9a-f]{16}")
_ATTEMPTS: Final = 10

log = logging.getLogger(__name__)


class RingNames:
    """The claim on one instance's names, until `release`."""

    def __init__(self, instance: str, locks: Path, shm: Path = SHM) -> None:
        """Raises EdgedError if a live daemon has this instance, or the lock cannot be made."""
        self._shm = shm
        safe = re.sub("[^a-z0-9_]", "_", instance.lower())[:32]
        self._path = locks / f"rings-{safe}.lock"
        for other in locks.glob("rings-*.lock"):
            if other != self._path:
                self._clear(other)
        try:
            self._lock = _locked(self._path)
        except OSError as error:
            raise EdgedError(
                f"cannot claim the frame rings by {self._path}: {error.strerror}",
                "another edged with the same endpoint holds them: stop it, or give this one another endpoint",
            ) from error
        self._remove_rings(_token(self._lock))
        self.token = secrets.token_hex(8)
        os.pwrite(self._lock, self.token.encode(), 0)

    def name(self, camera: str, generation: int) -> str:
        """Of a camera's ring."""
        return f"edged-{self.token}-{camera}-{generation}"

    def release(self) -> None:
        """Give up the claim. The file goes before the lock, so that nobody locks a file that is about to vanish."""
        self._path.unlink(missing_ok=True)
        os.close(self._lock)

    def _clear(self, lock: Path) -> None:
        """Remove what a dead daemon of another instance left."""
        with contextlib.suppress(OSError):  # a live daemon's, another user's, or gone meanwhile
            descriptor = _locked(lock)
            try:
                self._remove_rings(_token(descriptor))
                lock.unlink(missing_ok=True)
            finally:
                os.close(descriptor)

    def _remove_rings(self, token: str | None) -> None:
        if token is None:
            return
        for ring in self._shm.glob(f"edged-{token}-*"):
            try:
                found = ring.lstat()
                if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                    log.warning("%s is not a frame ring of this user: it is left alone", ring)
                    continue
                ring.unlink()
            except OSError as error:
                log.warning("cannot remove the frame ring %s of a daemon that died: %s", ring, error.strerror)


def _locked(path: Path) -> int:
    """The descriptor of the file, locked; OSError if another holds it."""
    for _ in range(_ATTEMPTS):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        with contextlib.suppress(FileNotFoundError):  # its holder removed it between the two calls
            if os.stat(path, follow_symlinks=False).st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)
    raise OSError(f"{path} is being replaced again and again")


def _token(descriptor: int) -> str | None:
    text = os.pread(descriptor, 64, 0).decode("ascii", "replace")
    return text if _TOKEN.fullmatch(text) else None
