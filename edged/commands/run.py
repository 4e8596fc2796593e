"""`edged run`: the daemon in the foreground, its log on stderr or in the journal. On the main thread until SIGTERM or
Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys

from edged import journal
from edged.config import default_path, load
from edged.crash_guard import Starts, state_directory
from edged.daemon import Daemon
from edged.errors import EdgedError
from edged.health import Notifier

log = logging.getLogger("edged")


def run(arguments: argparse.Namespace) -> int:
    path = default_path(arguments.config)
    with journal.logging_to():
        try:
            starts = Starts(state_directory())
            config = starts.relied_on(load(path))
            daemon = Daemon(path, config)
            with daemon.signals(), starts.counted():
                daemon.run()
        except EdgedError as error:
            if not journal.goes_to_journal(sys.stderr, os.environ):
                raise  # a person looks: the command line says it
            log.error("%s", error)
            with contextlib.closing(Notifier()) as notifier:
                notifier.status(error.message)
            return error.exit_code
    return 0
