"""`edged credential`: passwords for the services, kept by root and handed over by systemd (LoadCredential=).

A password comes from the terminal without echo, or from standard input; never from an argument, which everybody on the
machine can read. It is kept in a file for root alone, and a drop-in of the unit that needs it names the file: of
edged-gateway for names that begin with "gateway.", else of edged.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from edged import files, paths
from edged.errors import EdgedError, UsageError

DROP_IN: Final = Path("/etc/systemd/system/edged.service.d/credentials.conf")
GATEWAY: Final = "edged-gateway"
LONGEST: Final = 1024
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def run(arguments: argparse.Namespace) -> int:
    store = Store(paths.CREDENTIALS_DIR, DROP_IN)
    match arguments.verb:
        case "set":
            store.put(arguments.name, read_password(arguments.name))
            done = f"{arguments.name} is kept in {store.directory}"
        case "remove":
            store.remove(arguments.name)
            done = f"{arguments.name} is removed"
        case _:
            print("\n".join(store.names()))
            return 0
    reload_units()
    unit = GATEWAY if _is_gateways(arguments.name) else "edged"
    print(f"{done}; the service has it after `systemctl restart {unit}`")
    return 0


class Store:
    """The files in `directory`, and the units' drop-ins, which are always made from them."""

    def __init__(self, directory: Path, drop_in: Path) -> None:
        """`drop_in`: of the unit edged; that of the gateway lies beside it."""
        self.directory = directory
        self._drop_in = drop_in
        self._gateway_drop_in = drop_in.parent.with_name(f"{GATEWAY}.service.d") / drop_in.name

    def names(self) -> list[str]:
        try:
            return sorted(
                entry.name for entry in self.directory.iterdir() if _NAME.fullmatch(entry.name) and entry.is_file()
            )
        except FileNotFoundError:
            return []
        except OSError as error:
            raise EdgedError(f"cannot read {self.directory}: {error.strerror}", "only root may: use sudo") from error

    def put(self, name: str, password: str) -> None:
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} is not a name for a credential",
                "camera.NAME for one camera, gateway.web for the page; a-z 0-9 . - _ otherwise",
            )
        try:
            files.make_directory(self.directory, 0o700)
            files.write_atomic(self.directory / name, password + "\n", 0o600)
        except OSError as error:
            raise EdgedError(
                f"cannot write to {self.directory}: {error.strerror}", "only root may: use sudo"
            ) from error
        self._write_drop_ins(self.names())

    def remove(self, name: str) -> None:
        if name not in self.names():
            raise UsageError(f"there is no credential {name}", "edged credential list")
        # the drop-in first: a unit that names a file which is not there does not start
        self._write_drop_ins([other for other in self.names() if other != name])
        try:
            files.remove(self.directory / name)
        except OSError as error:
            text = f"cannot remove {self.directory / name}: {error.strerror}"
            raise EdgedError(text, "only root may: use sudo") from error

    def _write_drop_ins(self, names: list[str]) -> None:
        self._write_drop_in(self._drop_in, [name for name in names if not _is_gateways(name)])
        self._write_drop_in(self._gateway_drop_in, [name for name in names if _is_gateways(name)])

    def _write_drop_in(self, drop_in: Path, names: list[str]) -> None:
        try:
            if names:
                lines = [f"LoadCredential={name}:{self.directory / name}" for name in names]
                files.make_directory(drop_in.parent, 0o755)
                files.write_atomic(
                    drop_in, "\n".join(["# Made by `edged credential`.", "[Service]", *lines, ""]), 0o644
                )
            elif drop_in.exists():
                files.remove(drop_in)
                with contextlib.suppress(OSError):  # others may have put something beside it
                    drop_in.parent.rmdir()
        except OSError as error:
            raise EdgedError(f"cannot write {drop_in}: {error.strerror}", "only root may: use sudo") from error


def _is_gateways(name: str) -> bool:
    return name.startswith("gateway.")


def read_password(name: str) -> str:
    """From the terminal without echo, twice, or a line of standard input."""
    if sys.stdin.isatty():
        password = getpass.getpass(f"password for {name}: ")
        if password != getpass.getpass("once more: "):
            raise UsageError("the two differ", "try again")
    else:
        password = sys.stdin.readline(LONGEST + 2).rstrip("\r\n")
    if not password or len(password) > LONGEST or not password.isprintable():
        raise UsageError("that is no password", f"one line of 1 to {LONGEST} printable characters")
    return password


def reload_units() -> None:
    """Have systemd read the drop-in, where it runs."""
    if Path("/run/systemd/system").is_dir():
        done = subprocess.run(["systemctl", "daemon-reload"], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise EdgedError(f"systemctl daemon-reload failed: {done.stderr.strip()}", "run it yourself, then restart")
