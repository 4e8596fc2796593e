"""`edged gateway`: a process of its own that offers what the daemon reports to others: metrics, a page.

On the main thread until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys

from edged import journal
from edged.commands.daemon_requests import curve_of
from edged.config import DEFAULT_PATH, default_path, load
from edged.errors import UsageError


def run(arguments: argparse.Namespace) -> int:
    require_prometheus_client()
    from edged.gateway.gateway import parts_of, serve

    path = default_path(arguments.config)
    given = arguments.config or path != DEFAULT_PATH or path.exists()
    config = load(path) if given else None
    endpoint = arguments.endpoint or (None if config is None else config.bus.results)
    if endpoint is not None and endpoint.startswith("tcp://") and arguments.curve is None:
        raise UsageError(
            f"{endpoint} is on the network and needs a key",
            "make one with `edged key new gateway`, then give --endpoint and --curve",
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with journal.logging_to():
        serve(parts_of(config), endpoint, curve_of(arguments))
    return 0


def require_prometheus_client() -> None:
    """UsageError if the extra is not installed."""
    try:
        import edged.gateway.metrics  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        raise UsageError(
            "prometheus-client is not installed", "pip install 'edged[gateway]', into the environment of edged"
        ) from error
