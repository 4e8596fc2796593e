"""The one atomic write and the one file lock of the project. Paths in, files out; any thread, any process.

A file written here is either the old one or the new one after a crash or a power failure, never half of it. A lock is
an flock, which the kernel releases when its holder dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import stat
from pathlib import Path
from typing import BinaryIO, Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2

ATTEMPTS: Final = 10
"""To lock a file that its holder removes as it releases it; one attempt is the rule, two are rare."""


class LockHeldError(BlockingIOError):
    """Another process holds the lock; `holder` is its process number, or "unknown"."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is locked by process {holder}")
        self.holder = holder


def open_regular(path: Path) -> BinaryIO:
    """A file opened for reading. OSError; so is everything but a regular file: opening a pipe would wait for who writes
    to it, and a device may never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def write_atomic(path: Path, content: bytes | str, mode: int | None = None) -> None:
    """Replace `path`, in the directory of which a file `.NAME.new` is written first. OSError if it cannot be done, and
    for a device, a pipe or a socket, which others use; what was there is there then.

    When this returns, the new file is on the disk: both it and its directory are synced. `mode` holds whatever the
    umask: a service must be able to read what root writes for it. Nobody else can read the content of a file with a
    private `mode` at any time.
    """
    with contextlib.suppress(FileNotFoundError):
        there = path.stat().st_mode
        if not (stat.S_ISREG(there) or stat.S_ISDIR(there)):  # a directory cannot be replaced anyway
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    fresh = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()  # of a process that was killed; it may be a link that somebody put there
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode or 0o644)
    try:
        with open(descriptor, "wb") as file:
            if mode is not None:
                os.fchmod(descriptor, mode)
            file.write(content if isinstance(content, bytes) else content.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    sync(path.parent)


def make_directory(path: Path, mode: int) -> None:
    """Make a directory, and those above it, with this mode whatever the umask; one that is there stays as it is.
    OSError."""
    for directory in (*reversed(path.parents), path):
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode)
            directory.chmod(mode)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def remove(path: Path) -> None:
    """Remove a file, and return when that is on the disk. OSError; a file that is not there is removed already."""
    path.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Have the content of a file, or the names in a directory, on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_directory(fresh: Path, path: Path) -> None:
    """Put the directory `fresh` in the place of `path`, in one step where the file system can exchange two names, and
    remove what was there. Both must be on one file system, and `fresh` synced. OSError if it cannot be done."""
    if path.exists():
        exchanged = _LIBC.renameat2(_AT_FDCWD, os.fsencode(fresh), _AT_FDCWD, os.fsencode(path), _RENAME_EXCHANGE) == 0
        if not exchanged and ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
        old = fresh if exchanged else fresh.with_name(f"{fresh.name}-old")
        if not exchanged:
            os.rename(path, old)
            os.rename(fresh, path)
        sync(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(fresh, path)
        sync(path.parent)


def lock(path: Path, mode: int = 0o600, create: bool = True) -> int:
    """The descriptor of `path`, locked for this process alone, with our process number in the file; see `unlock`.

    A link in its place is not followed. LockHeldError if another holds it, else OSError.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)  # a child must not inherit it
    for _ in range(ATTEMPTS):
        descriptor = os.open(path, flags, mode)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, descriptor):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
                return descriptor
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise LockHeldError(path, holder) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder removed it meanwhile: what we locked is nobody's any more
    raise LockHeldError(path, "unknown")


def unlock(descriptor: int, path: Path | None = None) -> None:
    """Release a lock; with `path`, remove its file first, so that another user can make one of its own."""
    try:
        if path is not None and _is_at(path, descriptor):
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
