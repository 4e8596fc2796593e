"""A start that keeps crashing is made smaller: the configuration in, what of it can be relied on out. Main thread.

A crash in a GPU's driver (no exception, the process is gone) cannot be caught, and starting again into the same crash
would continue until systemd gives up. So the starts in a row that ended in one are counted in the service's state
directory, and after three edged starts on the CPU. Cameras and jtop live in processes of their own and need no such
care. The count is cleared by an orderly end, or from a timer's thread when a start has lasted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from edged import files
from edged.config import Config
from edged.journal import fields

CRASHES: Final = 3
STABLE_AFTER_S: Final = 60.0
"""A start that ran for so long counts as a good one."""
FILE: Final = "crashed-starts"

log = logging.getLogger("edged")


class Starts:
    """The count of starts in a row that ended in a crash, in `directory`. None: no service, and nothing to do."""

    def __init__(self, directory: Path | None) -> None:
        self._file = None if directory is None else directory / FILE
        self.crashes = self._read()

    def relied_on(self, config: Config) -> Config:
        """The configuration as given, or after CRASHES crashes without the GPU."""
        if self.crashes < CRASHES:
            return config
        log.warning(
            "the last %d starts crashed, so this one is without the GPU: fix the cause (see the log), then restart",
            self.crashes,
            extra=fields(kind="degraded"),
        )
        return msgspec.structs.replace(config, engine=msgspec.structs.replace(config.engine, device="cpu"))

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """A crash inside of this is counted; an orderly end, and a refusal is one, clears the count."""
        self._write(self.crashes + 1)
        stable = threading.Timer(STABLE_AFTER_S, self._clear)
        stable.daemon = True
        stable.start()
        try:
            yield
        finally:
            stable.cancel()
            self._clear()

    def _read(self) -> int:
        if self._file is None:
            return 0
        try:
            with files.open_regular(self._file) as file:
                text = file.read(8).decode("ascii", "replace").strip()
        except OSError:
            return 0
        return int(text) if text.isascii() and text.isdecimal() else 0

    def _write(self, crashes: int) -> None:
        if self._file is None:
            return
        try:
            files.write_atomic(self._file, f"{crashes}\n")
        except OSError as error:
            log.warning("cannot count starts in %s: %s", self._file, error.strerror)

    def _clear(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # then the next start is counted one too many
                self._file.unlink(missing_ok=True)


def state_directory(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The service's, where systemd runs it."""
    given = environ.get("STATE_DIRECTORY", "").split(":")[0]
    return Path(given) if given else None
