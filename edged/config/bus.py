"""The table [bus] of the configuration: the endpoints of the daemon. Pure data, any thread."""

from __future__ import annotations

import re
from collections.abc import Callable

from msgspec import Struct

from edged.errors import UsageError


class BusConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Endpoints; None means the default under the runtime directory. `tcp://` needs both CURVE keys."""

    results: str | None = None
    control: str | None = None
    curve_secret_key: str | None = None
    """file made by `edged key new`: NAME.key_secret"""
    curve_clients: str | None = None
    """directory of the public keys (*.key) of the clients that may connect"""


def check_bus(bus: BusConfig, locate: Callable[[str], str]) -> None:
    """UsageError for endpoints that are none, are the same, or open the network without keys."""
    if bus.results is not None and bus.results == bus.control:
        raise UsageError(
            f"{locate('bus.control')}: bus.control is {bus.control[:80]!r}, the same as bus.results",
            "give each its own",
        )
    for key, endpoint in (("results", bus.results), ("control", bus.control)):
        if endpoint is None:
            continue
        if not re.match(r"(ipc:///|tcp://)[^\s\0]+\Z", endpoint):
            raise UsageError(
                f"{locate('bus.' + key)}: bus.{key} is {endpoint[:80]!r}, expected ipc:///absolute/path or tcp://address:port",
                "leave it out for the default, a socket in the runtime directory",
            )
        missing = [name for name in ("curve_secret_key", "curve_clients") if getattr(bus, name) is None]
        if endpoint.startswith("tcp://") and missing:
            raise UsageError(
                f"{locate('bus.' + key)}: bus.{key} opens the network, so bus.{' and bus.'.join(missing)} must be set",
                'for example curve_secret_key = "edged.key_secret" and curve_clients = "clients"; then make the keys '
                "with `edged key new NAME`",
            )
