"""What a member of the group can do to the installed daemon: `attacks.py connections | subscriptions DIRECTORY`."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import socket
import sys
import time
from pathlib import Path

import zmq

from tests.support.bus import raw_peer

SILENT, LEAKED = 1200, 1100
FLOODING, FLOOD_S = 2, 8.0
SUBSCRIBE = b"\x00\x04\x01zzz" * 20_000


def connections(directory: Path) -> None:
    """So many connections that never say a word to each socket, and so many sockets that one program leaks."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    with contextlib.ExitStack() as stack:
        for name in ("results", "control"):
            for _ in range(SILENT):
                peer = stack.enter_context(socket.socket(socket.AF_UNIX))
                peer.settimeout(0.01)
                with contextlib.suppress(OSError):
                    peer.connect(str(directory / f"{name}.ipc"))
        context = stack.enter_context(zmq.Context())
        context.set(zmq.MAX_SOCKETS, 4000)
        for _ in range(LEAKED):
            leaked = stack.enter_context(context.socket(zmq.SUB))
            leaked.linger = 0
            leaked.connect(f"ipc://{directory}/results.ipc")
        time.sleep(4)  # longer than the handshake time: those in the kernel's queue take their turn


def subscriptions(directory: Path) -> None:
    """Two processes that subscribe without end, and come back when they are cut off."""
    peers = [multiprocessing.Process(target=_subscribe, args=(directory,)) for _ in range(FLOODING)]
    for peer in peers:
        peer.start()
    for peer in peers:
        peer.join()


def _subscribe(directory: Path) -> None:
    end = time.monotonic() + FLOOD_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError, AssertionError), raw_peer(directory / "results.ipc") as peer:
            while time.monotonic() < end:
                peer.sendall(SUBSCRIBE)


if __name__ == "__main__":
    {"connections": connections, "subscriptions": subscriptions}[sys.argv[1]](Path(sys.argv[2]))
