"""`edged camera add`: asks a camera for a picture and writes it into the configuration, as a drop-in file of its own.

The password of the user in the source is asked for and becomes a credential, as with `edged credential set`; it is
never an argument, which everybody on the machine can read. Nothing is written unless the camera gives pictures.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec

from edged import files, paths
from edged.checks.cameras import try_cameras
from edged.commands.credential import DROP_IN, Store, read_password, reload_units
from edged.config import CameraConfig, default_path, files_of, load
from edged.config.text import toml_value
from edged.errors import EdgedError, UsageError
from edged.terminal import printable, progress
from edged.toml_file import read_toml
from edged.uri import is_plain_path, parse
from edged.validate import convert

NO_PICTURE: Final = "check the address, and that the camera is on and can be reached from here"
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?")


def run(arguments: argparse.Namespace) -> int:
    path = default_path(arguments.config)
    table = {"name": arguments.name, "source": _source(arguments.source), **_settings(arguments.settings)}
    camera = _checked(table, path)
    asks = parse(camera.source).user is not None and camera.password_credential is None
    credential = f"camera.{camera.name}" if asks else None
    password = None if credential is None else read_password(credential)
    print(f"camera {camera.name}: {_tried(camera, password)}")
    store = Store(paths.CREDENTIALS_DIR, DROP_IN)
    added = credential is not None and credential not in store.names()
    if credential is not None and password is not None:
        store.put(credential, password)
    try:
        file = _write(path, table)
    except EdgedError:
        if credential is not None and added:
            store.remove(credential)  # of a camera that there is not
        raise
    if credential is None:
        print(f"{file} is written; the daemon takes it with `edged ctl reload`")
    else:
        reload_units()
        print(
            f"{file} and the password {credential} are written; the service takes both with `systemctl restart edged`"
        )
    return 0


def _checked(table: dict[str, Any], path: Path) -> CameraConfig:
    """UsageError for a wrong key or value, a name that is taken, or a password in the source."""
    camera = convert(table, CameraConfig, "camera add")
    tables = [table for file in files_of(path) for table in read_toml(file).get("camera") or []]
    if camera.name in [table.get("name") for table in tables if isinstance(table, dict)]:
        raise UsageError(f"{path}: there is a camera {camera.name} already", "choose another name")
    if parse(camera.source).password is not None:
        raise UsageError(
            "the source holds a password, which everybody on this machine can read in an argument",
            "leave it out, as in rtsp://user@host/path: it is asked for",
        )
    return camera


def _tried(camera: CameraConfig, password: str | None) -> str:
    """What the camera gives; EdgedError if it gives nothing."""
    if password is not None:
        camera = msgspec.structs.replace(camera, source=replace(parse(camera.source), password=password).url())
    with progress(f"waiting for pictures of {camera.name}"):
        (tried,) = try_cameras([camera])
    if tried.problem is not None:
        raise EdgedError(f"camera {camera.name} is not added: {printable(tried.problem)}", tried.hint or NO_PICTURE)
    return printable(tried.text)


def _source(source: str) -> str:
    """A relative path counts from where the user is, and not from the directory of the configuration."""
    return os.path.abspath(source) if is_plain_path(source) else source


def _settings(pairs: Sequence[str]) -> dict[str, Any]:
    """`fps=15 transport=udp` as they would stand in the file."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator or not key or key in ("name", "source"):
            raise UsageError(f"{pair!r} is no KEY=VALUE of a camera", "write for example fps=15")
        if _NUMBER.fullmatch(text):
            settings[key] = float(text) if "." in text else int(text)
        else:
            settings[key] = {"true": True, "false": False}.get(text, text)
    return settings


def _write(path: Path, table: dict[str, Any]) -> Path:
    """The drop-in, which is removed again if the configuration cannot be read with it."""
    file = path.with_name(f"{path.stem}.d") / f"camera-{table['name']}.toml"
    lines = ["# Made by `edged camera add`.", "[[camera]]", *(f"{key} = {toml_value(table[key])}" for key in table), ""]
    try:
        files.make_directory(file.parent, 0o755)
        files.write_atomic(file, "\n".join(lines), 0o644)
    except OSError as error:
        raise EdgedError(f"cannot write {file}: {error.strerror}", "only its owner may: use sudo") from error
    try:
        load(path)
    except UsageError:
        files.remove(file)
        raise
    return file
