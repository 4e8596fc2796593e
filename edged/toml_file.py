"""A TOML file in, its tables out; a UsageError for everything else. Any thread.

The file may be hostile or just broken: a pipe, a directory, another encoding, a key of a thousand parts. Reading it
takes a bounded time.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Final

from edged import files
from edged.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

CONFIGURATION: Final = "the configuration"
MAX_FILE_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 16
_LONG_KEY: Final = re.compile(
    r"""(?:(?:[\w-]{1,64}|"[^"\n]{0,64}"|'[^'\n]{0,64}')[ \t]*\.[ \t]*){%d}""" % MAX_DEPTH  # noqa: UP031 - braces
)
"""The parser needs the square of a key's parts in time, so such a key is found before."""
_MARKS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


def read_toml(path: Path, what: str = CONFIGURATION) -> dict[str, Any]:
    """The tables of a file. UsageError, which asks whether it is `what`, for everything that is no TOML."""
    raw = _read(path, what)
    if raw.startswith(_MARKS):
        raise UsageError(f"{path}: begins with a byte order mark", "save it as UTF-8 without one (without BOM)")
    if (at := raw.find(0)) >= 0:
        raise UsageError(f"{path}: holds a NUL byte (line {_line(raw, at)})", f"is this {what}? It is no text file")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not UTF-8 text (line {_line(raw, error.start)})", "save it as UTF-8") from None
    if found := _LONG_KEY.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise UsageError(f"{path}: a key has more than {MAX_DEPTH} parts (line {line})", f"is this {what}?")
    try:
        tables: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: is not valid TOML: {error}", "texts need quotes, tables are [name]") from None
    except (ValueError, RecursionError, OverflowError) as error:
        reason = str(error) or type(error).__name__
        raise UsageError(f"{path}: is not usable TOML: {reason}", f"is this {what}?") from None
    return tables


def _read(path: Path, what: str) -> bytes:
    try:
        with files.open_regular(path) as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        hint = "name one with -c FILE, or set EDGED_CONFIG" if what == CONFIGURATION else f"give the path of {what}"
        raise UsageError(f"{path}: there is no such file", hint) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{path}: cannot be read: {reason}", "check the path and its permissions") from error
    if len(raw) > MAX_FILE_BYTES:
        raise UsageError(f"{path}: is larger than {MAX_FILE_BYTES} bytes", f"is this {what}?")
    return raw


def _line(raw: bytes, at: int) -> int:
    return raw.count(b"\n", 0, at) + 1
