"""The table [web] of the configuration: where `edged gateway` shows its page, and to whom. Pure data, any thread."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from edged.config.listen import Address, address_of, is_local
from edged.errors import UsageError

EXAMPLE = "127.0.0.1:8080"
TOKEN_CREDENTIAL = "gateway.web"

_File = Annotated[str, Meta(min_length=1, description="the path of a file, in quotes")]


class WebConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`listen` None: there is no page. `token`: every request needs the token that the credential gateway.web holds,
    and whoever has it may change profile, pin and limits. `tls_certificate` and `tls_key`: PEM files; HTTPS alone."""

    listen: Annotated[str, Meta(max_length=100, description='"ADDRESS:PORT" in quotes')] | None = None
    token: bool = False
    tls_certificate: _File | None = None
    tls_key: _File | None = None

    @property
    def address(self) -> Address | None:
        """Where to listen; None: nowhere. UsageError as `check_web` raises it."""
        return None if self.listen is None else address_of(self.listen, "web.listen", EXAMPLE)


def check_web(web: WebConfig, where: str) -> None:
    """UsageError, with the file `where`: half a pair of files, or an address that other machines can reach without
    anything that guards it."""
    try:
        address = web.address
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", error.hint) from error
    if (web.tls_certificate is None) != (web.tls_key is None):
        missing = "tls_key" if web.tls_key is None else "tls_certificate"
        raise UsageError(f"{where}: web.{missing} is missing, and the other half of the pair is set", "set both")
    if address is not None and not is_local(address) and not web.token and web.tls_certificate is None:
        raise UsageError(
            f"{where}: web.listen is {web.listen!r}, which other machines can reach, and neither web.token nor "
            "web.tls_certificate is set",
            f'write "{EXAMPLE}", or set token = true and store a token: sudo edged credential set {TOKEN_CREDENTIAL}',
        )
