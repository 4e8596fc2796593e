"""Real sockets for tests: a publisher served by a thread of its own, and waiting for a condition with a deadline."""

from __future__ import annotations

import contextlib
import select
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import zmq
import zmq.auth

from edged.bus.endpoint import CurveServer
from edged.bus.publisher import Publisher

PATIENCE: Final = 6.0
"""A deadline in a test says how long an idle machine may take; a busy or slow one gets so many times that."""


def wait_for(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    """Until the condition holds; fails after `timeout_s` times PATIENCE."""
    end = time.monotonic() + timeout_s * PATIENCE
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.002)


def endpoint_in(directory: Path) -> str:
    return f"ipc://{directory}/results.ipc"


@contextlib.contextmanager
def served(publisher: Publisher) -> Iterator[Publisher]:
    """Call `serve` as the daemon does: when `fd` is readable, and every 50 ms."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            select.select([publisher.fd], [], [], 0.05)
            while publisher.serve():
                pass

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield publisher
    finally:
        stop.set()
        thread.join(5)
        publisher.close()


@contextlib.contextmanager
def publishing(endpoint: str, curve: CurveServer | None = None) -> Iterator[Publisher]:
    context = zmq.Context()
    try:
        with served(Publisher(context, endpoint, curve)) as publisher:
            yield publisher
    finally:
        context.term()


@contextlib.contextmanager
def subscribed(endpoint: str, *topics: bytes, kind: int = zmq.SUB) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(kind) as socket:
        socket.linger = 0
        for topic in topics:
            socket.setsockopt(zmq.SUBSCRIBE, topic)
        socket.connect(endpoint)
        yield socket


def drain(socket: zmq.Socket[bytes], quiet_ms: int = 150) -> list[list[bytes]]:
    """Everything that comes until it is quiet."""
    found = []
    while socket.poll(quiet_ms):
        found.append(socket.recv_multipart())
    return found


def free_port() -> int:
    with zmq.Context() as context, context.socket(zmq.PUB) as socket:
        return socket.bind_to_random_port("tcp://127.0.0.1")


def curve_keys(directory: Path) -> tuple[Path, Path]:
    """(certificates of edged, good and bad; the directory of clients that are let in, which is good alone)."""
    keys, clients = directory / "keys", directory / "clients"
    keys.mkdir()
    clients.mkdir()
    for name in ("edged", "good", "bad"):
        zmq.auth.create_certificates(keys, name)
    (clients / "good.key").write_bytes((keys / "good.key").read_bytes())
    return keys, clients
