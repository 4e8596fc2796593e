"""Basic and Digest authentication (RFC 7617, RFC 7616), as RTSP and HTTP cameras ask for it.

In: a WWW-Authenticate challenge, the request. Out: the Authorization header. Pure but for the random client nonce.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Sequence
from typing import Final

from edged.errors import EdgedError
from edged.uri import SourceUri

_FIELD: Final = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))')
_HASHES: Final = {"MD5": "md5", "SHA-256": "sha256"}


def refusal(uri: SourceUri) -> EdgedError:
    """What an answer of 401 means for a camera that was asked with this source's credentials."""
    if uri.user is None:
        return EdgedError("the camera asks for a user and a password", "write the user into the URL: //USER@HOST")
    return EdgedError("the camera refuses the user or the password")


class Authenticator:
    """The credentials of one camera and its latest challenge. `header` is None until `challenged` returned True."""

    def __init__(self, user: str | None, password: str | None) -> None:
        self._user, self._password = user, password or ""
        self._scheme = ""
        self._fields: dict[str, str] = {}
        self._count = 0

    def challenged(self, challenges: Sequence[str]) -> bool:
        """Take in the WWW-Authenticate headers of a 401. True if the same request is worth sending again."""
        if self._user is None:
            return False
        for challenge in sorted(challenges, key=lambda text: not text.lower().startswith("digest")):
            scheme, _, rest = challenge.strip().partition(" ")
            fields = {key.lower(): quoted or plain for key, quoted, plain in _FIELD.findall(rest)}
            if scheme.lower() == "digest" and fields.get("algorithm", "MD5").upper() not in _HASHES:
                continue
            if scheme.lower() in ("basic", "digest"):
                tried = self._scheme == scheme.lower() and fields.get("stale", "").lower() != "true"
                same = fields.get("nonce") == self._fields.get("nonce")
                self._scheme, self._fields, self._count = scheme.lower(), fields, 0
                return not (tried and (same or scheme.lower() == "basic"))
        return False

    def header(self, method: str, uri: str) -> str | None:
        """The value of Authorization for a request, or None before a challenge."""
        if self._user is None or not self._scheme:
            return None
        if self._scheme == "basic":
            token = base64.b64encode(f"{self._user}:{self._password}".encode()).decode()
            return f"Basic {token}"
        return self._digest(method, uri)

    def _digest(self, method: str, uri: str) -> str:
        fields = self._fields
        algorithm = fields.get("algorithm", "MD5").upper()
        realm, nonce = fields.get("realm", ""), fields.get("nonce", "")

        def digest(*parts: str | None) -> str:
            text = ":".join(part or "" for part in parts)
            return hashlib.new(_HASHES[algorithm], text.encode(), usedforsecurity=False).hexdigest()

        secret, request = digest(self._user, realm, self._password), digest(method, uri)
        words = [f'username="{_escaped(self._user)}"', f'realm="{realm}"', f'nonce="{nonce}"', f'uri="{uri}"']
        if "auth" in re.split(r"[\s,]+", fields.get("qop", "")):
            self._count += 1
            count, client_nonce = f"{self._count:08x}", secrets.token_hex(8)
            response = digest(secret, nonce, count, client_nonce, "auth", request)
            words += ["qop=auth", f"nc={count}", f'cnonce="{client_nonce}"']
        else:
            response = digest(secret, nonce, request)
        words.append(f'response="{response}"')
        if "algorithm" in fields:
            words.append(f"algorithm={algorithm}")
        if "opaque" in fields:
            words.append(f'opaque="{fields["opaque"]}"')
        return "Digest " + ", ".join(words)


def _escaped(text: str | None) -> str:
    return (text or "").replace("\\", "\\\\").replace('"', '\\"')
