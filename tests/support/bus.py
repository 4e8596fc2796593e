"""Real sockets for tests: a publisher served by a thread of its own, and waiting for a condition with a deadline."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import zmq
import zmq.auth

from edged.bus.admission import Admission
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
        readable = select.poll()
        readable.register(publisher.fd, select.POLLIN)
        while not stop.is_set():
            if not publisher.serve():
                readable.poll(50)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield publisher
    finally:
        stop.set()
        thread.join(5)
        publisher.close()


@contextlib.contextmanager
def publishing(endpoint: str) -> Iterator[Publisher]:
    with zmq.Context() as context:
        admission = Admission(context)
        try:
            with served(Publisher(context, endpoint, admission)) as publisher:
                yield publisher
        finally:
            admission.close()


@contextlib.contextmanager
def subscribed(endpoint: str, *topics: bytes, kind: int = zmq.SUB) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(kind) as subscriber:
        subscriber.linger = 0
        for topic in topics:
            subscriber.setsockopt(zmq.SUBSCRIBE, topic)
        subscriber.connect(endpoint)
        yield subscriber


@contextlib.contextmanager
def raw_peer(path: Path, kind: bytes = b"SUB") -> Iterator[socket.socket]:
    """A peer at a local socket that has done ZMTP 3.1's handshake and follows no rule after it."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(5)
        peer.connect(str(path))
        peer.sendall(b"\xff" + bytes(7) + b"\x01\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32))
        _take(peer, 64)
        body = b"\x05READY\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind
        peer.sendall(b"\x04" + bytes([len(body)]) + body)
        answer = _take(peer, _take(peer, 2)[1])  # who speaks before it has come is disconnected
        assert answer.startswith(b"\x05READY"), answer
        yield peer


def _take(peer: socket.socket, size: int) -> bytes:
    taken = b""
    while len(taken) < size:
        piece = peer.recv(size - len(taken))
        assert piece, "the other end closed the connection"
        taken += piece
    return taken


def is_closed(peer: socket.socket, timeout_s: float = 5.0) -> bool:
    """Whether the other end closes the connection in that time; what it says first is passed over."""
    peer.settimeout(timeout_s)
    try:
        while peer.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def drain(subscriber: zmq.Socket[bytes], quiet_ms: int = 150) -> list[list[bytes]]:
    """Everything that comes until it is quiet."""
    found = []
    while subscriber.poll(quiet_ms):
        found.append(subscriber.recv_multipart())
    return found


def free_port() -> int:
    with zmq.Context() as context, context.socket(zmq.PUB) as probe:
        return probe.bind_to_random_port("tcp://127.0.0.1")


def curve_keys(directory: Path) -> tuple[Path, Path]:
    """(certificates of edged, good and bad; the directory of clients that are let in, which is good alone)."""
    keys, clients = directory / "keys", directory / "clients"
    keys.mkdir()
    clients.mkdir()
    for name in ("edged", "good", "bad"):
        zmq.auth.create_certificates(keys, name)
    (clients / "good.key").write_bytes((keys / "good.key").read_bytes())
    return keys, clients
