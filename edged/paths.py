"""Where edged keeps its sockets while it runs, and what its gateway has not sent. Paths in, paths out; any thread.

The daemon makes its directory here; a client, which may belong to another user, looks where a daemon would be.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from edged.errors import EdgedError, UsageError, encodable

SERVICE_DIR = Path("/run/edged")
"""Where systemd puts the runtime directory of the service."""

CREDENTIALS_DIR = Path("/etc/edged/credentials")
"""Where `edged credential` keeps passwords, for root alone; systemd hands them to the service."""

TEMPORARY = Path("/tmp")
RESULTS = "results.ipc"
CONTROL = "control.ipc"

MAX_IPC_PATH_BYTES = 107
"""What fits into the kernel's sockaddr_un."""


def runtime_dir() -> Path:
    """The daemon's runtime directory: `$RUNTIME_DIRECTORY`, else `$XDG_RUNTIME_DIR/edged`, else `/tmp/edged-$UID`."""
    return _candidates()[0]


def make_private(directory: Path) -> Path:
    """Create `directory` with mode 0700, or take it if it is ours alone to write to; EdgedError if it is not.

    A directory in /tmp can be made by anybody beforehand: a link, another owner or a world-writable one is refused.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = os.lstat(directory)
    except OSError as error:
        raise EdgedError(
            f"cannot create the runtime directory {directory}: {error.strerror}",
            "make it writable for this user, or set RUNTIME_DIRECTORY to a directory of its own",
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (os.getuid(), 0) or found.st_mode & stat.S_IWOTH:
        raise EdgedError(
            f"the runtime directory {directory} is not safe to use: it must be a real directory, owned by this user "
            "and not writable by everybody",
            "remove it, or set RUNTIME_DIRECTORY to a directory of its own",
        )
    return directory


def state_dir() -> Path:
    """What outlives the gateway: `$STATE_DIRECTORY`, else `$XDG_STATE_HOME/edged`, else `~/.local/state/edged`."""
    if given := os.environ.get("STATE_DIRECTORY", "").split(":")[0]:
        return Path(given)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "edged"


def results_endpoint() -> str:
    """The default endpoint on which this process, as the daemon, publishes."""
    return f"ipc://{runtime_dir() / RESULTS}"


def control_endpoint() -> str:
    """The default endpoint on which this process, as the daemon, answers requests."""
    return f"ipc://{runtime_dir() / CONTROL}"


def find_results_endpoint() -> str:
    """Where a client finds a daemon's results: this user's daemon if there is one, else the system service's."""
    return _find(RESULTS)


def find_control_endpoint() -> str:
    """Where a client finds a daemon's control socket: this user's daemon if there is one, else the system service's."""
    return _find(CONTROL)


def _candidates() -> list[Path]:
    """Runtime directories in order of preference; the first is the daemon's own."""
    found = []
    # systemd joins several directories by colons; the first one is the unit's main one.
    if given := os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]:
        found.append(Path(given))
    if session := os.environ.get("XDG_RUNTIME_DIR"):
        found.append(Path(session) / "edged")
    found.append(_last_resort())
    return found


def _last_resort() -> Path:
    return TEMPORARY / f"edged-{os.getuid()}"


def _find(name: str) -> str:
    own = (os.getuid(), 0)
    for directory in _candidates():
        if _socket_owner(directory / name) in own:
            return f"ipc://{directory / name}"
    # Only root can make a directory in /run, so there the service may belong to any user.
    if _socket_owner(SERVICE_DIR / name) is not None:
        return f"ipc://{SERVICE_DIR / name}"
    return f"ipc://{runtime_dir() / name}"


def _socket_owner(path: Path) -> int | None:
    """The owner of this socket's directory; None if no process listens at the socket, or if anybody can put one
    there. A daemon that was killed leaves its socket file."""
    try:
        directory, found = os.lstat(path.parent), os.lstat(path)
        safe = stat.S_ISSOCK(found.st_mode) and stat.S_ISDIR(directory.st_mode) and not directory.st_mode & stat.S_IWOTH
        if not safe:
            return None
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            probe.connect(str(path))
    except BlockingIOError:
        return directory.st_uid  # so busy that it has no room for one more right now
    except OSError:
        return None
    return directory.st_uid


def ipc_path(endpoint: str) -> Path | None:
    """The socket's path; None for `tcp://`. UsageError for what can be neither."""
    if encodable(endpoint) != endpoint:
        raise UsageError(f"the endpoint {encodable(endpoint)} is not UTF-8 text", "use a directory of another name")
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


def full(path: Path) -> Path:
    """Where a local socket is while it has all the connections it may."""
    return path.with_name(path.name + ".full")
