"""A camera's `source`: read, checked and stripped of its secrets. The one place where credentials are redacted.

In: the configured text. Out: a SourceUri, or UsageError in words that never contain a credential. Pure, any thread.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import parse_qsl, quote, unquote

from edged.errors import UsageError

Kind = Literal["test", "file", "rtsp", "http", "v4l2", "csi"]

SUPPORTED: Final = (
    "test://SEED, file:///PATH or a path, rtsp(s)://HOST/..., http(s)://HOST/..., v4l2:///dev/videoN, csi://N"
)
_SCHEMES: Final[Mapping[str, Kind]] = {
    "test": "test", "file": "file", "rtsp": "rtsp", "rtsps": "rtsp", "http": "http", "https": "http",
    "v4l2": "v4l2", "csi": "csi",
}  # fmt: skip
_SIZE: Final = {"width": (2, 8192), "height": (2, 8192), "fps": (0.01, 1000)}
_PAUSES: Final = {"run_s": (0.1, 86_400), "pause_s": (0, 86_400)}
_WHOLE: Final = {"width", "height", "pace", "loop"}
_OPTIONS: Final[Mapping[Kind, Mapping[str, tuple[float, float]]]] = {
    "test": {**_SIZE, **_PAUSES}, "v4l2": _SIZE, "csi": _SIZE, "file": {"pace": (0, 1), "loop": (0, 1)},
}  # fmt: skip
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+(%[\w.-]+)?\]|[A-Za-z0-9_.-]+)(:\d{1,5})?")
_TAIL: Final = re.compile(r"[/?#]")
_LOCAL: Final = re.compile(r"(test|file|v4l2|csi)://|[/.~]", re.IGNORECASE)
_SECRET_KEY: Final = re.compile(r"(?i)pass|pwd|token|key|secret|auth|user|usr|login|session|sig")
_SECRET_PAIR: Final = re.compile(
    r"(?i)([?&][^=&#]*(?:pass|pwd|token|key|secret|auth|user|usr|login|session|sig)[^=&#]*=)[^&#]*"
)
_ESCAPE_HINT: Final = (
    "write @ / ? # in a user or password as %40 %2F %3F %23, and @ after the host as %40; "
    "or give only the user and put the password into the credential camera.NAME"
)


@dataclass(frozen=True)
class SourceUri:
    """`target`: a seed, a path, a sensor number, or a URL without user and password. `repr` shows no secret."""

    kind: Kind
    target: str
    options: Mapping[str, float] = field(default_factory=dict)
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    def url(self) -> str:
        """The URL with its credentials, escaped so that any character may stand in them. Secret."""
        if self.user is None:
            return self.target
        scheme, _, rest = self.target.partition("://")
        password = "" if self.password is None else ":" + quote(self.password, safe="")
        return f"{scheme}://{quote(self.user, safe='')}{password}@{rest}"

    def scrub(self, text: str) -> str:
        """The text with every form of this source's secrets replaced."""
        for secret in sorted(self._secrets(), key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    def _secrets(self) -> set[str]:
        plain = {self.password or ""}
        if self.kind in ("rtsp", "http"):
            query = self.target.partition("?")[2].partition("#")[0]
            plain |= {value for key, value in parse_qsl(query) if _SECRET_KEY.search(key)}
        return {form for secret in plain for form in (secret, quote(secret, safe=""), quote(secret)) if form}


def redact(source: str) -> str:
    """The source as it may be shown: no user, no password, whatever they contain and however wrong the rest is."""
    if _LOCAL.match(source):
        return source
    shown = _SECRET_PAIR.sub(r"\1***", source)
    if "@" in shown:
        scheme, separator, rest = shown.partition("://")
        # Up to the last @: one in a path makes us hide too much, one in a password must not make us hide too little.
        shown = f"{scheme}{separator}***@{rest.rpartition('@')[2]}" if separator else f"***@{shown.rpartition('@')[2]}"
    return shown


def is_plain_path(source: str) -> bool:
    """Whether it is a file's path and not a URI, nor one gone wrong, which may hold a password."""
    return "://" not in source and re.match(r"(?i)[a-z0-9]+:/|(rtsp|http)s?//|[^/]*@", source) is None


def parse(source: str) -> SourceUri:
    """The source, checked as far as that goes without opening it. Raises UsageError."""
    if any(ord(character) < 32 for character in source):
        raise UsageError("a camera's source contains a control character", f"sources: {SUPPORTED}")
    scheme, separator, rest = source.partition("://")
    if not separator:
        if not is_plain_path(source):
            raise UsageError(f"source {redact(source)!r} is not one that edged can read", f"sources: {SUPPORTED}")
        return SourceUri("file", source, {"pace": 1, "loop": 1})
    kind = _SCHEMES.get(scheme.lower())
    if kind is None:
        raise UsageError(f"source {redact(source)!r} is not one that edged can read", f"sources: {SUPPORTED}")
    if kind in ("rtsp", "http"):
        return _remote(kind, scheme.lower(), rest, source)
    return _local(kind, rest, source)


def _remote(kind: Kind, scheme: str, rest: str, source: str) -> SourceUri:
    cut = _TAIL.search(rest)
    authority, tail = (rest[: cut.start()], rest[cut.start() :]) if cut else (rest, "")
    userinfo, at, host = authority.rpartition("@")
    if not _HOST.fullmatch(host) or "@" in tail:
        raise UsageError(f"source {redact(source)!r} has no valid host", _ESCAPE_HINT)
    port = re.search(r":(\d{1,5})$", host)
    if port is not None and not 0 < int(port.group(1)) < 1 << 16:
        raise UsageError(f"source {redact(source)!r}: {port.group(1)} is no port", "ports are numbers from 1 to 65535")
    user, colon, password = userinfo.partition(":")
    return SourceUri(
        kind,
        f"{scheme}://{host}{tail}",
        user=unquote(user) if at else None,
        password=unquote(password) if colon else None,
    )


def _local(kind: Kind, rest: str, source: str) -> SourceUri:
    path, _, query = rest.partition("?")
    options = {"pace": 1.0, "loop": 1.0} if kind == "file" else {}
    for key, text in parse_qsl(query, keep_blank_values=True):
        allowed = _OPTIONS[kind]
        if key not in allowed:
            raise UsageError(f"source {source!r} has an unknown option {key!r}", f"options: {', '.join(allowed)}")
        low, high = allowed[key]
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not low <= value <= high or (key in _WHOLE and value != int(value)):
            whole = "a whole number" if key in _WHOLE else "a number"
            raise UsageError(f"source {source!r}: {key} is {text!r}", f"{key} is {whole} from {low} to {high}")
        options[key] = value
    return SourceUri(kind, _local_target(kind, path, source), options)


def _local_target(kind: Kind, path: str, source: str) -> str:
    if kind in ("test", "csi"):
        if not re.fullmatch(r"\d{1,9}", path):
            example = f"{kind}://0?width=1280&height=720&fps=30"
            raise UsageError(f"source {source!r}: {path!r} is not a number", f"for example {example}")
        return path
    target = unquote(path.removeprefix("localhost"))
    if not target.startswith("/"):
        raise UsageError(f"source {source!r} has no absolute path", f"write {kind}:///absolute/path")
    if "\0" in target:
        raise UsageError(f"source {source!r} has a zero byte in its path", f"sources: {SUPPORTED}")
    return target
