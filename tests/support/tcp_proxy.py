"""A link between two programs that can be cut: a TCP proxy on a port of its own."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType

from tests.support.bus import free_port


class TcpProxy:
    """`with TcpProxy(server.port) as link: link.port`. Each connection has a thread for each direction."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.answers = True
        """False: what the server says is thrown away"""
        self._target = target
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None

    def connect(self) -> None:
        """Let connections in."""
        self.answers = True
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._start(self._accept, self._listener)

    def cut(self) -> None:
        """End all connections, and refuse new ones."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> TcpProxy:
        self.connect()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.cut()
        for thread in self._threads:
            thread.join(30)

    def _start(self, function: object, *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target), 30)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._open |= {near, far}
            ends = threading.Barrier(2, action=lambda near=near, far=far: self._close(near, far))  # type: ignore[misc]
            self._start(self._pump, near, far, False, ends)
            self._start(self._pump, far, near, True, ends)

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool, ends: threading.Barrier) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if self.answers or not answers:
                    sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        ends.wait(30)

    def _close(self, near: socket.socket, far: socket.socket) -> None:
        with self._lock:
            self._open -= {near, far}
        near.close()
        far.close()
