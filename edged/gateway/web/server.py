"""The page over HTTP(S): assets, live pictures, events, metrics, and requests of whoever has the token.

An event loop on the thread "web". Readers of every kind are bounded and cannot queue anything: a slow one misses what
comes meanwhile, one that does not read at all is cut off, and one too many is told so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import Coroutine
from typing import Any, Final

from aiohttp import web

from edged.config.listen import Address
from edged.config.web import WebConfig
from edged.errors import EdgedError, UsageError
from edged.gateway.web.handlers import Handlers
from edged.gateway.web.streams import SLOW_S

MAX_CONNECTIONS: Final = 256
IDLE_S: Final = 15.0
"""Without a whole request."""
SEND_BUFFER_BYTES: Final = 256 * 1024
"""What the kernel keeps for a connection whose reader is slow; by itself it would take megabytes."""
RECEIVE_BUFFER_BYTES: Final = 16 * 1024
"""What is read at once of a connection: aiohttp keeps all of it, several times, where it is no request. With asyncio's
256 KB a hundred peers that send headers without end took 280 MB."""
PAUSE_S: Final = 0.1
STOP_S: Final = 8.0
_FULL: Final = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

log = logging.getLogger(__name__)


def tls_of(config: WebConfig) -> ssl.SSLContext | None:
    """UsageError for files that are no certificate and key."""
    if config.tls_certificate is None or config.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(config.tls_certificate, config.tls_key)
    except (OSError, ssl.SSLError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"web.tls_certificate {config.tls_certificate} and web.tls_key {config.tls_key} cannot be used: {reason}",
            "both must be PEM files that belong together and that the gateway's user may read: chgrp edged, chmod 640",
        ) from error
    return context


class Server:
    """From `start` to `stop`. `handlers` belongs to its thread from then on."""

    def __init__(self, address: Address, tls: ssl.SSLContext | None, handlers: Handlers) -> None:
        self._address, self._tls, self._handlers = address, tls, handlers
        self.refused = 0
        """connections that were too many"""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._runner: web.AppRunner | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._arriving: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """EdgedError if nothing can listen there."""
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, port), family=family, backlog=128, dualstack_ipv6=host == "::")
        except OSError as error:
            raise EdgedError(
                f"cannot listen on {host}:{port}: {error.strerror}", "set another port in [web] listen"
            ) from error
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        # whoever takes nothing of an answer for so long is cut off by the kernel
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * SLOW_S))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="web", daemon=True)
        self._thread.start()
        self._run(self._serve(listener))

    def stop(self) -> None:
        """Nothing may be called any more."""
        if self._loop is None or self._thread is None:
            return
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_S)
        if not self._thread.is_alive():
            self._loop.close()

    def call(self, function: Any, *arguments: Any) -> None:
        """On the server's thread, soon; between `start` and `stop`."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(function, *arguments)

    @property
    def connections(self) -> int:
        """Those whose TLS is still being agreed on, too."""
        server = None if self._runner is None else self._runner.server
        return len(self._arriving) + (0 if server is None else len(server.connections))

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(STOP_S)

    async def _serve(self, listener: socket.socket) -> None:
        logging.getLogger("aiohttp.server").disabled = True  # a line for each piece of garbage that somebody sends
        self._runner = web.AppRunner(
            self._handlers.application(),
            access_log=None,
            keepalive_timeout=IDLE_S,
            shutdown_timeout=0.5,
            handler_cancellation=True,
        )
        await self._runner.setup()  # handles no signals: this is not the main thread
        listener.setblocking(False)
        self._accepting = asyncio.create_task(self._accept(listener))

    async def _end(self) -> None:
        self._handlers.close()
        for task in (self._accepting, *self._arriving):
            if task is not None:
                task.cancel()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _accept(self, listener: socket.socket) -> None:
        """One by one, so that a burst cannot pass the bound before its connections count."""
        with listener:
            while True:
                try:
                    peer, _ = await asyncio.get_running_loop().sock_accept(listener)
                except OSError:  # no descriptor is left, or the peer has gone
                    await asyncio.sleep(PAUSE_S)
                    continue
                if self.connections >= MAX_CONNECTIONS:
                    self.refused += 1
                    with peer, contextlib.suppress(OSError):
                        peer.send(_FULL)
                else:
                    task = asyncio.create_task(self._take(peer))
                    self._arriving.add(task)
                    task.add_done_callback(self._arriving.discard)

    async def _take(self, peer: socket.socket) -> None:
        """Until its connection is one of aiohttp's server."""
        assert self._runner is not None and self._runner.server is not None
        with contextlib.suppress(OSError):  # a TLS handshake that fails or takes too long
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                self._runner.server,
                peer,
                ssl=self._tls,
                ssl_handshake_timeout=None if self._tls is None else IDLE_S,
            )
            transport.max_size = RECEIVE_BUFFER_BYTES  # type: ignore[attr-defined]  # of asyncio's own transports
