"""`edged gateway`: a process of its own that offers what the daemon reports to others: metrics, a page.

On the main thread until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import TYPE_CHECKING, Final

from edged import journal
from edged.commands.daemon_requests import curve_of
from edged.config import DEFAULT_PATH, Config, default_path, load
from edged.errors import UsageError
from edged.paths import CONTROL, RESULTS

if TYPE_CHECKING:
    from edged.gateway.part import Part

EXTRA: Final = {"prometheus_client": "prometheus-client", "aiohttp": "aiohttp", "nats": "nats-py", "paho": "paho-mqtt"}
"""Packages of the extra `gateway`, by the name that they are imported by."""


def run(arguments: argparse.Namespace) -> int:
    require_prometheus_client()
    from edged.gateway.gateway import serve

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
        control = _control(arguments.endpoint, config)
        serve(_parts(config, control), endpoint, curve_of(arguments))
    return 0


def _parts(config: Config | None, control: str | None) -> list[Part]:
    """UsageError if a library of the extra is missing."""
    from edged.gateway.gateway import parts_of

    try:
        return parts_of(config, control)
    except ModuleNotFoundError as error:
        raise _missing(error) from error


def _control(given: str | None, config: Config | None) -> str | None:
    """Where the very daemon whose results are read takes requests; None: the default. UsageError if that is unknown."""
    configured = None if config is None else config.bus.control
    if given is None or configured is not None or config is None or not (config.web.token or config.mqtt.commands):
        return configured
    if not given.endswith(f"/{RESULTS}"):
        raise UsageError(
            f"--endpoint {given} does not say where that daemon takes requests, which [web] and [mqtt] may send",
            "set bus.control in the configuration",
        )
    return given.removesuffix(RESULTS) + CONTROL


def require_prometheus_client() -> None:
    """UsageError if the extra is not installed."""
    try:
        import edged.gateway.metrics  # noqa: F401
    except ModuleNotFoundError as error:
        raise _missing(error) from error


def _missing(error: ModuleNotFoundError) -> UsageError:
    name = (error.name or "").partition(".")[0]
    if name not in EXTRA:
        raise error
    return UsageError(f"{EXTRA[name]} is not installed", "pip install 'edged[gateway]', into the environment of edged")
