"""Addresses of servers on the network, as the configuration names them: SCHEME://USER@HOST:PORT. Pure, any thread."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

from edged.errors import UsageError

_HOST: Final = re.compile(r"[A-Za-z0-9_.:-]{1,253}\Z")


@dataclass(frozen=True)
class Server:
    host: str
    port: int
    tls: bool
    user: str | None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def server_of(url: str, key: str, schemes: Mapping[str, tuple[bool, int]], credential: str) -> Server:
    """What `key` of the configuration says. `schemes`: of each whether it means TLS, and its port. UsageError, which
    never shows the URL, for everything else; a password belongs into the `credential`."""
    expected = f"{key} must be {' or '.join(f'{scheme}://HOST:PORT' for scheme in schemes)}"
    hint = f'for example {key.rpartition(".")[2]} = "{next(iter(schemes))}://user@192.168.1.5"'
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise UsageError(f"{expected}, and the port a number up to 65535", hint) from None
    if parts.password is not None:
        raise UsageError(
            f"{key} holds a password, and a configuration is no place for it",
            f"write only the user, and keep the password with `sudo edged credential set {credential}`",
        )
    if parts.scheme not in schemes or not _HOST.match(host) or port == 0:
        raise UsageError(expected, hint)
    tls, default = schemes[parts.scheme]
    return Server(host, port or default, tls, None if parts.username is None else unquote(parts.username))


class _Table(Protocol):
    @property
    def server(self) -> Server | None: ...


def check_server(table: _Table, where: str) -> None:
    """UsageError, with the file `where`, for a URL that is none."""
    try:
        _ = table.server
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", error.hint) from error
