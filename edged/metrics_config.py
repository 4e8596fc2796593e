"""The table [metrics] of the configuration: where `edged gateway` offers its metrics. Pure data, any thread."""

from __future__ import annotations

import ipaddress
import re
from pathlib import PurePath
from typing import Annotated

from msgspec import Meta, Struct

from edged.errors import UsageError

DEFAULT_LISTEN = "127.0.0.1:9108"


class MetricsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`listen`: for Prometheus, an address of this machine only; None: 127.0.0.1:9108, unless there is a `textfile`.
    `textfile`: written for node_exporter's textfile collector every 5 s."""

    listen: Annotated[str, Meta(max_length=100, description='"ADDRESS:PORT" in quotes')] | None = None
    textfile: Annotated[str, Meta(min_length=1, description="the path of a file, in quotes")] | None = None

    @property
    def address(self) -> tuple[str, int] | None:
        """Where to listen; None: nowhere. UsageError as `check_metrics` raises it."""
        if self.listen is None and self.textfile is not None:
            return None
        return _address(DEFAULT_LISTEN if self.listen is None else self.listen)


def check_metrics(metrics: MetricsConfig, where: str) -> None:
    """UsageError, with the file `where`, for an address that other machines can reach and for a wrong file name."""
    try:
        _ = metrics.address
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", error.hint) from error
    if metrics.textfile is not None and PurePath(metrics.textfile).suffix != ".prom":
        raise UsageError(
            f"{where}: metrics.textfile is {metrics.textfile[:80]!r}, expected a name that ends in .prom",
            "node_exporter reads no other files",
        )


def _address(listen: str) -> tuple[str, int]:
    found = re.match(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<four>[\w.-]+)):(?P<port>\d{1,5})\Z", listen)
    if found is None or not 1 <= int(found["port"]) <= 65_535:
        raise UsageError(
            f"metrics.listen is {listen[:80]!r}, expected ADDRESS:PORT with a port from 1 to 65535",
            f'write "{DEFAULT_LISTEN}" or "[::1]:9108"',
        )
    host = found["six"] or found["four"].replace("localhost", "127.0.0.1")
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise UsageError(
            f"metrics.listen is {listen[:80]!r}, expected a numeric address", f'write "{DEFAULT_LISTEN}"'
        ) from error
    if not local:
        raise UsageError(
            f"metrics.listen is {listen[:80]!r}, which other machines can reach, and the metrics have neither password "
            "nor TLS",
            f'write "{DEFAULT_LISTEN}"; for other machines put a reverse proxy with TLS before it',
        )
    return host, int(found["port"])
