"""Secrets that systemd hands to a service (LoadCredential=), or a user without systemd through the same directory.

Names in, secrets out, never in a message. Any thread, any process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edged import files, paths
from edged.errors import UsageError

MAX_BYTES: Final = 64 * 1024


def credentials_directory(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Where systemd put the service's credentials, if it did."""
    directory = environment.get("CREDENTIALS_DIRECTORY")
    return Path(directory) if directory else None


def find_credential(name: str) -> str | None:
    """The secret of that name, None if there is none for this process. UsageError if it is empty or no text."""
    try:
        there = _path(name).is_file()
    except PermissionError:
        there = False
    return read_credential(name) if there else None


def read_credential(name: str) -> str:
    """The secret of that name. UsageError if there is none for this process, or if it is empty or no text."""
    path = _path(name)
    try:
        secret = read_secret(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        raise UsageError(
            f"there is no credential {name} for this process",
            f"sudo edged credential set {name}; without the service, put it into a file {name} in a directory of yours "
            "and name that in $CREDENTIALS_DIRECTORY",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the credential {name} from {path}: {type(error).__name__}") from None
    if not secret:
        raise UsageError(f"the credential {name} is empty", f"sudo edged credential set {name}")
    return secret


def read_secret(path: Path) -> str:
    """The text of a credential's file without its line's end. OSError; UnicodeDecodeError for what is no text."""
    with files.open_regular(path) as file:
        return file.read(MAX_BYTES).decode("utf-8").rstrip("\r\n")


def _path(name: str) -> Path:
    return (credentials_directory() or paths.CREDENTIALS_DIR) / name
