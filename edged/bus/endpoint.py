"""Where a socket is bound, safely: an endpoint in, a bound and locked socket out. Called once at start and stop.

`ipc://` sockets lie in a directory only we can write to, and an flock beside the socket keeps a second daemon away:
libzmq would take the path of a live socket without a message. `tcp://` is bound with CURVE or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path

import zmq

from edged import files
from edged.bus.admission import Admission
from edged.bus.connections import ConnectionLimiter, allowed
from edged.bus.curve import Socket
from edged.bus.subscriptions import Peer
from edged.errors import EdgedError, UsageError
from edged.paths import ipc_path, make_private
from edged.worker import Worker

SOCKET_MODE = 0o660


class Binding:
    """A bound socket, the lock that goes with it, and the bound on its connections."""

    def __init__(
        self,
        socket: Socket,
        endpoint: str,
        admission: Admission | None,
        connections: int,
        gone: Callable[[int], None] = lambda peer: None,
    ) -> None:
        """`admission` None: a local socket, open to whoever reaches it. `connections`: how many at most; `gone` gets
        the descriptor of each that ends, on a thread of its own."""
        self._socket, self._endpoint = socket, endpoint
        self._path = ipc_path(endpoint)
        self._lock_fd: int | None = None
        if self._path is not None:
            make_private(self._path.parent)
            self._lock_fd = _lock(self._path)
        elif admission is None or admission.keys is None:
            raise UsageError(
                f"{endpoint} is open to the network, and there are no CURVE keys",
                "set bus.curve_secret_key and bus.curve_clients",
            )
        self._limiter = ConnectionLimiter(socket, endpoint, allowed(connections), gone)
        try:
            if admission is not None:
                admission.guard(socket, endpoint, self._limiter.is_banned, self._limiter.cut_all)
            socket.bind(endpoint)
            if self._path is not None:
                os.chmod(self._path, SOCKET_MODE)  # libzmq leaves it to the umask, which shuts the group out
        except (zmq.ZMQError, OSError) as error:
            self._limiter.close()
            self._unlock()
            raise _cannot_bind(endpoint, error) from error

    @property
    def worker(self) -> Worker:
        return self._limiter.worker

    def cut(self, peer: Peer, why: str) -> None:
        """Close the connection of a message, see `connections.peer_of`. Any thread."""
        self._limiter.cut(peer, why)

    def close(self) -> None:
        """Close the socket and remove its path. The lock goes last, so that the path is never another daemon's. Once
        closed, it stays so."""
        if self._socket.closed:
            return
        self._limiter.close()
        self._socket.close(linger=0)
        if self._path is not None:
            with contextlib.suppress(OSError):  # somebody put a directory there
                self._path.unlink(missing_ok=True)  # libzmq leaves it, and a client would take it for a living daemon
        self._unlock()

    def _unlock(self) -> None:
        if self._lock_fd is not None:
            files.unlock(self._lock_fd)
            self._lock_fd = None


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
    path = ipc_path(endpoint)
    if path is not None and path.exists() and not path.is_socket():
        return EdgedError(f"cannot open {endpoint}: something that is no socket is there", f"remove {path}")
    if error.errno == errno.EADDRINUSE:
        return EdgedError(f"{endpoint} is in use by another program", "stop it, or choose another port")
    return EdgedError(f"cannot open {endpoint}: {error.strerror}", "check bus.results and bus.control")
