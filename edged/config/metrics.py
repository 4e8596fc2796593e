"""The table [metrics] of the configuration: where `edged gateway` offers its metrics. Pure data, any thread."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated

from msgspec import Meta, Struct

from edged.config.listen import Address, address_of, is_local
from edged.errors import UsageError

DEFAULT_LISTEN = "127.0.0.1:9108"


class MetricsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`listen`: for Prometheus, an address of this machine only; None: 127.0.0.1:9108, unless there is a `textfile`.
    `textfile`: written for node_exporter's textfile collector every 5 s."""

    listen: Annotated[str, Meta(max_length=100, description='"ADDRESS:PORT" in quotes')] | None = None
    textfile: Annotated[str, Meta(min_length=1, description="the path of a file, in quotes")] | None = None

    @property
    def address(self) -> Address | None:
        """Where to listen; None: nowhere. UsageError as `check_metrics` raises it."""
        if self.listen is None and self.textfile is not None:
            return None
        listen = DEFAULT_LISTEN if self.listen is None else self.listen
        address = address_of(listen, "metrics.listen", DEFAULT_LISTEN)
        if not is_local(address):
            raise UsageError(
                f"metrics.listen is {listen[:80]!r}, which other machines can reach, and the metrics have neither "
                "password nor TLS",
                f'write "{DEFAULT_LISTEN}"; for other machines use [web], which has both, or put a reverse proxy with '
                "TLS before it",
            )
        return address


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
