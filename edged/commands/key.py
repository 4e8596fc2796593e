"""`edged key`: the clients that may connect over the network, as key files: made, listed and revoked.

A client's public key is in the directory that `[bus] curve_clients` names; its secret key goes to the client and is
nowhere else. The daemon's own key is made with the first client's. A running daemon takes changes with a reload.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import Final

from edged import files
from edged.bus.curve import certificate, client_keys, key_file, new_key_pair
from edged.config import default_path, load
from edged.config.bus import BusConfig
from edged.errors import EdgedError, UsageError

APPLY: Final = "the daemon takes it with `edged ctl reload`"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def run(arguments: argparse.Namespace) -> int:
    path = default_path(arguments.config)
    bus = load(path).bus
    match arguments.verb:
        case "new":
            return _new(arguments.name, Path(arguments.out), bus, path)
        case "revoke":
            return _revoke(arguments.name, _clients(bus, path))
        case _:
            return _list(_clients(bus, path), arguments.json)


def _new(name: str, out: Path, bus: BusConfig, config: Path) -> int:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name[:80]!r} is no name for a key", "1 to 64 lower-case letters, digits, . - or _")
    clients = _clients(bus, config)
    public_file, secret_file = clients / f"{name}.key", out / f"{name}.key_secret"
    for file, cure in ((public_file, f"`edged key revoke {name}`"), (secret_file, "delete it")):
        if os.path.lexists(file):
            raise UsageError(f"{file} is there already", f"choose another name, or {cure} first")
    try:
        server = _server_key(bus, config)
        public, secret = new_key_pair()
        # the secret key first: a public one alone would admit no client, and look as if it did
        files.write_atomic(secret_file, key_file(public, secret), 0o600)
        files.make_directory(clients, 0o755)
        files.write_atomic(public_file, key_file(public), 0o644)
    except OSError as error:
        text = f"{error.filename or out} cannot be written: {error.strerror}"
        raise EdgedError(text, "as the user who owns the directory: sudo; or name another with --out") from error
    print(f"{secret_file} is the client's: take it there, and delete it here")
    print(f"{public_file} lets it in; {APPLY}")
    print(f"the client needs {server} too: edged watch --endpoint tcp://... --curve {secret_file.name} {server.name}")
    return 0


def _server_key(bus: BusConfig, config: Path) -> Path:
    """The daemon's public key beside its secret one, both made if there is none yet."""
    if bus.curve_secret_key is None:
        raise UsageError(f"{config}: bus.curve_secret_key is not set", 'set it, for example "edged.key_secret"')
    secret_file = Path(bus.curve_secret_key)
    public_file = secret_file.with_suffix(".key")
    if not os.path.lexists(secret_file):
        public, secret = new_key_pair()
        files.make_directory(secret_file.parent, 0o755)
        files.write_atomic(secret_file, key_file(public, secret), 0o600)
    public, _ = certificate(secret_file)
    if not os.path.lexists(public_file):
        files.write_atomic(public_file, key_file(public), 0o644)
    return public_file


def _revoke(name: str, clients: Path) -> int:
    file = clients / f"{name}.key"
    if file.name not in {path.name for path in clients.glob("*.key")}:
        raise UsageError(f"there is no key {name[:80]!r} in {clients}", "edged key list")
    try:
        files.remove(file)
    except OSError as error:
        raise EdgedError(f"{file} cannot be removed: {error.strerror}", "as the user who owns it: sudo") from error
    print(f"{name} is revoked; {APPLY}")
    return 0


def _list(clients: Path, as_json: bool) -> int:
    keys = client_keys(clients)
    if as_json:
        listed = [{"name": name, "public_key": key.decode()} for key, name in keys.names.items()]
        print(json.dumps({"directory": str(clients), "keys": listed, "problems": keys.problems}))
        return 0
    for key, name in keys.names.items():
        print(f"{name:24} {key.decode()}")
    for problem in keys.problems:
        print(f"warning: {problem}")
    if not keys.names:
        print(f"no client has a key in {clients}")
    return 0


def _clients(bus: BusConfig, config: Path) -> Path:
    if bus.curve_clients is None:
        raise UsageError(f"{config}: bus.curve_clients is not set", 'name a directory, for example "clients"')
    return Path(bus.curve_clients)
