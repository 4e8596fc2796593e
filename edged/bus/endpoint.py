"""Where a socket is bound, safely: an endpoint in, a bound and locked socket out. Called once at start and stop.

`ipc://` sockets lie in a directory only we can write to, and an flock beside the socket keeps a second daemon away:
libzmq would take the path of a live socket without a word. `tcp://` is bound with CURVE or not at all.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

import zmq
from zmq.auth import load_certificate
from zmq.auth.thread import ThreadAuthenticator

from edged import files
from edged.config import BusConfig
from edged.errors import EdgedError, UsageError
from edged.paths import make_private

MAX_IPC_PATH_BYTES = 107
"""What fits into the kernel's sockaddr_un."""

ZAP_DOMAIN = "edged"
SOCKET_MODE = 0o660

Socket = zmq.Socket[bytes]


class CurveServer:
    """Lets only clients in whose public key lies in a directory. One for the whole context: ZAP knows one handler."""

    def __init__(self, context: zmq.Context[Socket], secret_key: Path, clients: Path) -> None:
        self._public, self._secret = _server_keys(secret_key)
        if not clients.is_dir():
            raise UsageError(
                f"bus.curve_clients names {clients}, which is not a directory",
                "create it and put the clients' public keys (*.key) into it",
            )
        self._authenticator = ThreadAuthenticator(context)
        self._authenticator.start()
        try:
            # The domain must be the socket's own: "*" does not match a named one, and refuses good keys too.
            self._authenticator.configure_curve(domain=ZAP_DOMAIN, location=clients)
        except (OSError, ValueError) as error:
            self._authenticator.stop()
            raise UsageError(f"cannot read the keys in {clients}: {error}", "keep only *.key files in it") from error

    def secure(self, socket: Socket) -> None:
        socket.curve_server = True
        socket.curve_publickey, socket.curve_secretkey = self._public, self._secret
        socket.zap_domain = ZAP_DOMAIN.encode()

    def close(self) -> None:
        self._authenticator.stop()


def curve_server(context: zmq.Context[Socket], bus: BusConfig) -> CurveServer | None:
    """The CURVE keys of the configuration at work, or None where it names none. Close it after the sockets."""
    if bus.curve_secret_key is None or bus.curve_clients is None:
        return None
    return CurveServer(context, Path(bus.curve_secret_key), Path(bus.curve_clients))


def check_keys(bus: BusConfig) -> None:
    """EdgedError if the daemon could not start with these keys."""
    with zmq.Context() as context:
        curve = curve_server(context, bus)
        if curve is not None:
            curve.close()


@dataclass(frozen=True)
class CurveClient:
    """What a client needs on `tcp://`: its own NAME.key_secret and the daemon's public NAME.key."""

    secret_key: Path
    server_key: Path

    def secure(self, socket: Socket) -> None:
        public, secret = _server_keys(self.secret_key)
        server, _ = _certificate(self.server_key)
        socket.curve_publickey, socket.curve_secretkey, socket.curve_serverkey = public, secret, server


class Binding:
    """A bound socket and the lock that goes with it."""

    def __init__(self, socket: Socket, endpoint: str, curve: CurveServer | None) -> None:
        self._socket, self._endpoint = socket, endpoint
        self._path = ipc_path(endpoint)
        self._lock_fd: int | None = None
        if self._path is not None:
            make_private(self._path.parent)
            self._lock_fd = _lock(self._path)
        elif curve is None:
            raise UsageError(
                f"{endpoint} is open to the network, and there are no CURVE keys",
                "set bus.curve_secret_key and bus.curve_clients",
            )
        try:
            if curve is not None:
                curve.secure(socket)
            socket.bind(endpoint)
            if self._path is not None:
                os.chmod(self._path, SOCKET_MODE)  # libzmq leaves it to the umask, which shuts the group out
        except (zmq.ZMQError, OSError) as error:
            self._unlock()
            raise _cannot_bind(endpoint, error) from error

    def close(self) -> None:
        """Close the socket and remove its path. The lock goes last, so that the path is never another daemon's."""
        self._socket.close(linger=0)
        if self._path is not None:
            self._path.unlink(missing_ok=True)  # libzmq leaves it, and a client would take it for a living daemon
        self._unlock()

    def _unlock(self) -> None:
        if self._lock_fd is not None:
            files.unlock(self._lock_fd)
            self._lock_fd = None


def ipc_path(endpoint: str) -> Path | None:
    """The socket's path; None for `tcp://`. UsageError for what can be neither."""
    scheme, _, rest = endpoint.partition("://")
    if scheme == "tcp" and rest:
        return None
    if scheme != "ipc" or not rest.startswith("/"):
        raise UsageError(
            f"{endpoint!r} is not an endpoint edged can use",
            "write ipc:///absolute/path or tcp://address:port",
        )
    length = len(os.fsencode(rest))
    if length > MAX_IPC_PATH_BYTES or "\0" in rest:
        raise UsageError(
            f"the socket path {rest} is {length} bytes long, the system allows {MAX_IPC_PATH_BYTES}",
            "use a shorter runtime directory, or set bus.results and bus.control",
        )
    return Path(rest)


def _lock(socket_path: Path) -> int:
    """The lock file's descriptor, held; EdgedError naming the process that has it."""
    path = socket_path.with_name(socket_path.name + ".lock")
    try:
        return files.lock(path)
    except files.LockHeldError as error:
        raise EdgedError(
            f"another edged (pid {error.holder}) already serves ipc://{socket_path}",
            "stop it first, or give this one its own bus.results and bus.control",
        ) from None
    except OSError as error:
        text = f"cannot open the lock file {path}: {error.strerror}"
        raise EdgedError(text, "check who owns it, and whether the file system is full") from error


def _cannot_bind(endpoint: str, error: zmq.ZMQError | OSError) -> EdgedError:
    if error.errno == errno.EADDRINUSE:
        return EdgedError(f"{endpoint} is in use by another program", "stop it, or choose another port")
    return EdgedError(f"cannot open {endpoint}: {error.strerror}", "check bus.results and bus.control")


def _server_keys(path: Path) -> tuple[bytes, bytes]:
    public, secret = _certificate(path)
    if secret is None:
        raise UsageError(f"{path} holds no secret key", "give the file that ends in .key_secret")
    return public, secret


def _certificate(path: Path) -> tuple[bytes, bytes | None]:
    try:
        public, secret = load_certificate(path)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"cannot read the CURVE key {path}: {error}", "make one with zmq.auth.create_certificates(directory, name)"
        ) from error
    return public, secret
