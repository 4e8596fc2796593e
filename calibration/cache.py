"""Where a run keeps what its steps made, so that the next run continues from there.

A step is a function of its inputs alone: no closure, no state. Its result is a directory named after the step and the
digest of the function's name, this package's code and every input, so a result cannot be older than what it is made
from. It is written under another name, synced and renamed: it is there whole, or not at all. A result is reused if its
files still have the digests they were written with.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import inspect
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec

import msgspec
import numpy as np

import edged
from edged import files
from edged.errors import EdgedError
from edged_calibration.digest import digest_of, file_digest
from edged_calibration.progress import Advance

_DONE: Final = "done.json"
_PARTIAL: Final = ".partial"
_TOOLS: Final = ("onnx", "numpy", "pycocotools")
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Inputs = ParamSpec("Inputs")


@contextlib.contextmanager
def disk_faults_told(where: Path) -> Iterator[None]:
    """Turns a full or read-only disk into a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise EdgedError(
                f"no space left for {where}: {error.strerror}",
                "make room and run the same command again: it continues after the last finished step",
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
            raise EdgedError(
                f"{error.filename or where} cannot be written: {error.strerror}",
                "choose another place with --out or --work",
            ) from error
        raise


class StepCache:
    """One directory of step results, held by one run at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock: int | None = None

    def __enter__(self) -> StepCache:
        with disk_faults_told(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
        try:
            with disk_faults_told(self.directory):
                self._lock = files.lock(self.directory / ".lock", 0o644)
        except files.LockHeldError:
            raise EdgedError(
                f"another edged-calibrate works in {self.directory}", "wait for it, or give this one its own --work"
            ) from None
        for left in self.directory.glob(f"*{_PARTIAL}"):  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            files.unlock(self._lock)

    def step(
        self,
        name: str,
        advance: Advance,
        make: Callable[Concatenate[Path, Advance, Inputs], None],
        *inputs: Inputs.args,
        **named: Inputs.kwargs,
    ) -> Path:
        """The directory of the step's files: what lies there from these inputs, or else what `make` writes now.

        `make(into, advance, *inputs, **named)` writes files into a directory. ValueError if it could see anything but
        its inputs; TypeError for an input without a digest.
        """
        if not inspect.isfunction(make) or make.__closure__ or "<" in make.__qualname__:
            raise ValueError(f"{make!r} may read more than its inputs: make it a function of its module")
        key = digest_of([_code(), f"{make.__module__}.{make.__qualname__}", list(inputs), named])[:16]
        target = self.directory / f"{name}-{key}"
        if _is_whole(target):
            return target
        partial = self.directory / f"{name}-{key}{_PARTIAL}"
        try:
            with disk_faults_told(self.directory):
                shutil.rmtree(target, ignore_errors=True)
                partial.mkdir()
                make(partial, advance, *inputs, **named)
                _seal(partial)
                os.rename(partial, target)
                files.sync(self.directory)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        for old in self.directory.glob(f"{name}-*"):
            if old != target and len(old.name) == len(target.name):
                shutil.rmtree(old, ignore_errors=True)
        return target


@functools.cache
def _code() -> str:
    """Digest of both packages and of the libraries that compute: what another version made is made again."""
    found = hashlib.sha256(" ".join(version(tool) for tool in _TOOLS).encode())
    for package in (Path(__file__).parent, Path(edged.__file__).parent):
        for path in sorted(package.rglob("*.py")):
            found.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return found.hexdigest()


def write_json(path: Path, value: msgspec.Struct | Sequence[msgspec.Struct] | dict[str, Any]) -> None:
    """Readable JSON."""
    path.write_bytes(as_json(value))


def as_json(value: Any) -> bytes:
    """Readable JSON of structs, and of what numpy makes of a number."""
    return msgspec.json.format(msgspec.json.encode(value, enc_hook=_plain), indent=2) + b"\n"


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no JSON")


def _seal(directory: Path) -> None:
    """Sync the files and write down their digests."""
    made = sorted(path for path in directory.iterdir() if path.is_file())
    for path in made:
        files.sync(path)
    done = directory / _DONE
    done.write_bytes(msgspec.json.encode({path.name: file_digest(path) for path in made}))
    files.sync(done)
    files.sync(directory)


def _is_whole(directory: Path) -> bool:
    try:
        written = msgspec.json.decode((directory / _DONE).read_bytes(), type=dict[str, str])
        return all(file_digest(directory / name) == found for name, found in written.items())
    except (OSError, msgspec.DecodeError):
        return False
