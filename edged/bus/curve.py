"""Keys for `tcp://`: files of the daemon's own and its clients' in, sockets that speak CURVE out. Any thread.

The clients' keys are the *.key files of one directory, which can be read again at any time. `admission` lets nobody
else in.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import zmq
from zmq.auth import load_certificate
from zmq.utils import z85

from edged.errors import UsageError, encodable

if TYPE_CHECKING:  # a client needs no configuration
    from edged.config.bus import BusConfig

Socket = zmq.Socket[bytes]

MAX_KEY_FILE_BYTES: Final = 64 * 1024

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Keys:
    """The clients that are let in: public key -> name; and what is wrong with the files that hold none, a sentence
    each."""

    names: dict[bytes, str]
    problems: list[str]


def client_keys(directory: Path) -> Keys:
    """What the *.key files of a directory hold. UsageError if it cannot be read."""
    names: dict[bytes, str] = {}
    problems: list[str] = []
    try:
        found = sorted(path for path in directory.iterdir() if path.suffix == ".key")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"bus.curve_clients names {directory}, which is not a readable directory: {reason}",
            "create it; `edged key new NAME` puts a client's public key into it",
        ) from error
    for path in found:
        try:
            public, secret = certificate(path)
        except UsageError as error:
            problems.append(f"{error.message}: it is passed over")
            continue
        if secret is not None:
            problems.append(f"{encodable(str(path))} holds a secret key as well: keep only the public one here")
        names[public] = encodable(path.stem)
    return Keys(names, problems)


class ServerKeys:
    """The daemon's own pair of keys, and those of the clients that are let in."""

    def __init__(self, secret_key: Path, clients: Path) -> None:
        """UsageError if the daemon's key or the directory cannot be used."""
        self._public, self._secret = _both_keys(secret_key)
        self.directory = clients
        self._keys = client_keys(clients)
        for problem in self._keys.problems:
            log.warning("%s", problem)

    @property
    def names(self) -> dict[bytes, str]:
        """Public key -> name of each client that is let in."""
        return self._keys.names

    def secure(self, socket: Socket) -> None:
        """Have a socket speak CURVE, before it is bound."""
        socket.curve_server = True
        socket.curve_publickey, socket.curve_secretkey = self._public, self._secret

    def reload(self) -> tuple[list[str], bool]:
        """Read the directory again: what changed, in words, and whether a key is gone. UsageError, and nothing changed,
        if it cannot be read."""
        before, after = self.names, client_keys(self.directory)
        self._keys = after
        gone = [name for key, name in before.items() if key not in after.names]
        changes = [f"client key {name}: added" for key, name in after.names.items() if key not in before]
        changes += [f"client key {name}: removed" for name in gone]
        for problem in after.problems:
            log.warning("%s", problem)
        return changes + after.problems, bool(gone)


def server_keys(bus: BusConfig) -> ServerKeys | None:
    """The keys that the configuration names, None where it names none."""
    if bus.curve_secret_key is None or bus.curve_clients is None:
        return None
    return ServerKeys(Path(bus.curve_secret_key), Path(bus.curve_clients))


def check_keys(bus: BusConfig) -> list[str]:
    """What is wrong with single files of clients' keys. EdgedError if the daemon could not start with these keys."""
    if bus.curve_secret_key is None or bus.curve_clients is None:
        return []
    _both_keys(Path(bus.curve_secret_key))
    return client_keys(Path(bus.curve_clients)).problems


@dataclass(frozen=True)
class CurveClient:
    """What a client needs on `tcp://`: its own NAME.key_secret and the daemon's public NAME.key."""

    secret_key: Path
    server_key: Path

    def secure(self, socket: Socket) -> None:
        public, secret = _both_keys(self.secret_key)
        server, _ = certificate(self.server_key)
        socket.curve_publickey, socket.curve_secretkey, socket.curve_serverkey = public, secret, server


@contextlib.contextmanager
def refusals(socket: Socket) -> Iterator[Callable[[], bool]]:
    """For a client's socket: whether the daemon has refused its key so far."""
    events = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
    try:
        yield lambda: bool(events.poll(0))
    finally:
        socket.disable_monitor()
        events.close(linger=0)


def certificate(path: Path) -> tuple[bytes, bytes | None]:
    """The public and, where it holds one, the secret key of a file, as Z85 text. UsageError for what is no key."""
    hint = "make one with `edged key new NAME`"
    try:
        if not path.is_file() or path.stat().st_size > MAX_KEY_FILE_BYTES:
            raise ValueError("it is not a small file")
        public, secret = load_certificate(path)
        for key in (public, secret):
            if key is not None and len(z85.decode(key)) != 32:
                raise ValueError("the key in it is damaged")
    except OSError as error:
        raise UsageError(f"cannot read the CURVE key {path}: {error.strerror}", hint) from error
    except Exception as error:  # pyzmq's readers raise many types for a damaged file
        raise UsageError(f"cannot read the CURVE key {path}: {error}", hint) from error
    return public, secret


def new_key_pair() -> tuple[bytes, bytes]:
    """A public and a secret key, as Z85 text."""
    return zmq.curve_keypair()


def key_file(public: bytes, secret: bytes | None = None) -> str:
    """The content of a file that `certificate` and ZeroMQ's own tools read."""
    lines = ["# A CURVE key for edged's sockets on the network.", "metadata", "curve"]
    lines.append(f'    public-key = "{public.decode()}"')
    if secret is not None:
        lines.append(f'    secret-key = "{secret.decode()}"')
    return "\n".join(lines) + "\n"


def _both_keys(path: Path) -> tuple[bytes, bytes]:
    public, secret = certificate(path)
    if secret is None:
        raise UsageError(f"{path} holds no secret key", "give the file that ends in .key_secret")
    return public, secret
