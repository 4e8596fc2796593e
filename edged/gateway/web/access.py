"""Who may ask for what: the token, sessions of browsers that gave it, and names under which this machine is asked.

Pure but for the clock; any thread. A session is signed with the token, so it outlives a restart and ends with the
token.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Final

from edged import clock
from edged.config.web import TOKEN_CREDENTIAL
from edged.credentials import read_credential
from edged.errors import UsageError

COOKIE: Final = "edged_session"
SESSION_S: Final = 30 * 24 * 3600
SHORTEST: Final = 16
"""Characters of a token: too many to guess over a network."""
_LOCAL_NAME: Final = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?", re.IGNORECASE)


def read_token() -> str:
    """UsageError if the credential is missing or too short."""
    token = read_credential(TOKEN_CREDENTIAL)
    if len(token) < SHORTEST:
        raise UsageError(
            f"the credential {TOKEN_CREDENTIAL} has {len(token)} characters, and a token needs {SHORTEST} at least",
            f"openssl rand -hex 16 | sudo edged credential set {TOKEN_CREDENTIAL}",
        )
    return token


class Access:
    """`token` None: whoever reaches the page may read, and nobody may change anything."""

    def __init__(self, token: str | None, guarded: bool) -> None:
        """`guarded`: by a token or TLS. If not, requests must name this machine: a site that has its own name resolve
        to 127.0.0.1 must not read the page through somebody's browser."""
        self._token = None if token is None else token.encode()
        self._guarded = guarded

    @property
    def may_change(self) -> bool:
        """Whether anybody may."""
        return self._token is not None

    def is_known_host(self, host: str | None) -> bool:
        return self._guarded or (host is not None and _LOCAL_NAME.fullmatch(host) is not None)

    def is_allowed(self, authorization: str | None, session: str | None) -> bool:
        """By the headers Authorization (Bearer with the token, or Basic with it as the password) and Cookie."""
        if self._token is None:
            return True
        scheme, _, given = (authorization or "").partition(" ")
        if scheme.lower() == "basic":
            given = _password(given)
        if scheme.lower() in ("bearer", "basic") and self.is_token(given.strip()):
            return True
        return session is not None and self._is_session(session)

    def is_token(self, given: str) -> bool:
        return self._token is not None and hmac.compare_digest(given.encode("utf-8", "replace"), self._token)

    def new_session(self) -> str:
        """For the cookie of a browser that gave the token."""
        ends = str(clock.wall_ns() // clock.NS_PER_S + SESSION_S)
        return f"{ends}.{self._signature(ends)}"

    def _is_session(self, session: str) -> bool:
        ends, _, signature = session.partition(".")
        signed = hmac.compare_digest(signature.encode("utf-8", "replace"), self._signature(ends).encode())
        return signed and ends.isascii() and ends.isdecimal() and int(ends) > clock.wall_ns() // clock.NS_PER_S

    def _signature(self, text: str) -> str:
        assert self._token is not None
        return hmac.new(self._token, b"edged session " + text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def _password(given: str) -> str:
    """Of Basic authentication (RFC 7617), whoever the user; empty if there is none."""
    try:
        return base64.b64decode(given, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""
