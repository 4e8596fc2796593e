"""Addresses to listen on, as the configuration names them: "ADDRESS:PORT". Pure, any thread."""

from __future__ import annotations

import ipaddress
import re

from edged.errors import UsageError

Address = tuple[str, int]
"""A numeric host, a port."""


def address_of(listen: str, key: str, example: str) -> Address:
    """What `key` of the configuration says, as "127.0.0.1:9108", "localhost:9108" or "[::1]:9108". UsageError."""
    found = re.match(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<four>[\w.-]+)):(?P<port>\d{1,5})\Z", listen)
    if found is None or not 1 <= int(found["port"]) <= 65_535:
        raise UsageError(
            f"{key} is {listen[:80]!r}, expected ADDRESS:PORT with a port from 1 to 65535",
            f'write "{example}" or "[::1]:{example.rpartition(":")[2]}"',
        )
    host = found["six"] or found["four"].replace("localhost", "127.0.0.1")
    try:
        ipaddress.ip_address(host)
    except ValueError as error:
        raise UsageError(f"{key} is {listen[:80]!r}, expected a numeric address", f'write "{example}"') from error
    return host, int(found["port"])


def is_local(address: Address) -> bool:
    """Whether only programs of this machine can connect to it."""
    return ipaddress.ip_address(address[0]).is_loopback
