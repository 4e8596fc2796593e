"""`edged run`: the daemon in the foreground, its log on stderr. Runs on the main thread until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import logging
import os
import sys

from edged.config import default_path, load
from edged.daemon import Daemon

_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def run(arguments: argparse.Namespace) -> int:
    path = default_path(arguments.config)
    config = load(path)
    configure_logging()
    Daemon(path, config).run()
    return 0


def configure_logging() -> None:
    """Everything from INFO to stderr: for the journal with priorities and no time (it has its own), else with time."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JournalFormatter() if _to_journal() else _LineFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.captureWarnings(True)


class _LineFormatter(logging.Formatter):
    """One printable line a record, whatever a camera or a library put into it; a traceback keeps its lines."""

    def __init__(self, layout: str = "%(asctime)s %(levelname)-7s %(message)s") -> None:
        super().__init__(layout)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = "".join(c if c.isprintable() else " " for c in record.message)
        return super().formatMessage(record)


class _JournalFormatter(_LineFormatter):
    """Each line with its `<priority>`, which journald takes off again."""

    def __init__(self) -> None:
        super().__init__("%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_PRIORITY.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


def _to_journal() -> bool:
    """Whether stderr is the journal's stream: systemd names its device and inode, since a child may redirect it."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
