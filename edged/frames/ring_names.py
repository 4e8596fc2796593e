"""The names of this daemon's rings in /dev/shm, which nobody can know beforehand, and what dead daemons left there.

In: the instance and the directory of its lock. Out: names. Their random part stands in a file of the runtime directory,
which belongs to this user alone, beside a lock that the kernel releases when its holder dies: so the next daemon finds
which rings to remove. Files of others in /dev/shm are never touched. Any thread.
"""

from __future__ import annotations

import contextlib
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

_TOKEN: Final = re.compile(r"[0-9a-f]{16}")

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
            self._lock = files.lock(self._path)
            self._remove_rings(self._path)
            self.token = secrets.token_hex(8)
            files.write_atomic(_token_file(self._path), self.token, 0o600)
        except OSError as error:
            raise EdgedError(
                f"cannot claim the frame rings by {self._path}: {error.strerror or error}",
                "another edged with the same endpoint holds them: stop it, or give this one another endpoint",
            ) from error

    def name(self, camera: str, generation: int) -> str:
        """Of a camera's ring."""
        return f"edged-{self.token}-{camera}-{generation}"

    def release(self) -> None:
        """Give up the claim."""
        _token_file(self._path).unlink(missing_ok=True)
        files.unlock(self._lock, self._path)

    def _clear(self, lock: Path) -> None:
        """Remove what a dead daemon of another instance left."""
        with contextlib.suppress(OSError):  # a live daemon's, another user's, or gone meanwhile
            descriptor = files.lock(lock, create=False)
            try:
                self._remove_rings(lock)
                _token_file(lock).unlink(missing_ok=True)
            finally:
                files.unlock(descriptor, lock)

    def _remove_rings(self, lock: Path) -> None:
        """Those of the daemon that held the lock before."""
        try:
            token = _token_file(lock).read_text("ascii", "replace")
        except FileNotFoundError:
            return
        for ring in self._shm.glob(f"edged-{token}-*") if _TOKEN.fullmatch(token) else ():
            try:
                found = ring.lstat()
                if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                    log.warning("%s is not a frame ring of this user: it is left alone", ring)
                    continue
                ring.unlink()
            except OSError as error:
                log.warning("cannot remove the frame ring %s of a daemon that died: %s", ring, error.strerror)


def _token_file(lock: Path) -> Path:
    return lock.with_suffix(".token")
