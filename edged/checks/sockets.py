"""Sockets, tried for `edged check` without opening any: who holds an endpoint, and could this user open it.

A configuration's bus in, findings out. A daemon that runs on the endpoint is no fault.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Generator
from pathlib import Path

from edged import files, paths
from edged.bus.control_client import request
from edged.bus.curve import check_keys
from edged.checks.finding import Finding, failed
from edged.config.bus import BusConfig
from edged.errors import EdgedError
from edged.terminal import span


def try_sockets(bus: BusConfig) -> Generator[Finding, None, bool]:
    """Returns whether a daemon answers there already."""
    running = False
    results = bus.results or paths.results_endpoint()
    control = bus.control or paths.control_endpoint()
    for name, endpoint in (("results", results), ("control", control)):
        subject = f"bus {name}"
        try:
            holder = _holder(endpoint)
        except EdgedError as error:
            yield failed(subject, error)
            continue
        if holder is None:
            yield Finding("ok", subject, f"{endpoint} is free")
            continue
        daemon = _daemon(control)
        if daemon is not None:
            running = True
            yield Finding("ok", subject, f"{endpoint} is in use by the daemon that runs now ({daemon})")
        else:
            who = f"process {holder}, which does not answer as edged" if holder else "another program"
            fix = "stop it, or set another endpoint in [bus]"
            yield Finding("failed", subject, f"{endpoint} is held by {who}", fix)
    try:
        for problem in check_keys(bus):
            yield Finding("warning", "bus keys", problem, "edged key list shows the keys that are valid")
    except EdgedError as error:
        yield failed("bus keys", error)
    return running


def _holder(endpoint: str) -> str | None:
    """None: free. Else the process that holds it, "" if it cannot be known. EdgedError if it could not be opened."""
    path = paths.ipc_path(endpoint)
    return _tcp_holder(endpoint) if path is None else _ipc_holder(path)


def _ipc_holder(path: Path) -> str | None:
    paths.make_private(path.parent)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise EdgedError(f"{path.parent} is not writable by this user", "run as the service's user, or set [bus]")
    lock = path.with_name(path.name + ".lock")
    try:
        files.unlock(files.lock(lock, create=False))
    except FileNotFoundError:
        return None
    except files.LockHeldError as error:
        return error.holder
    except OSError as error:
        raise EdgedError(f"cannot open the lock file {lock}: {error.strerror}", "check who owns it") from error
    return None


def _tcp_holder(endpoint: str) -> str | None:
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    address = "0.0.0.0" if host == "*" else host.strip("[]")
    if not port.isdecimal() or int(port) > 65535:
        raise EdgedError(f"{endpoint} has no port", "write tcp://address:port")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, int(port)))
            probe.listen(1)
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno != errno.EADDRINUSE:
            raise EdgedError(f"cannot open {endpoint}: {error.strerror}", "name an address of this machine") from error
        return ""
    return None


def _daemon(control: str) -> str | None:
    """The daemon that answers there, in words; None if none does."""
    if not control.startswith("ipc://"):
        return None  # it would ask for keys that are the clients', not ours
    try:
        state = request("snapshot", control).get("state")
    except EdgedError:
        return None
    if not state:
        return "just started"
    return f"pid {state['pid']}, edged {state['version']}, up {span(state['uptime_s'])}"
