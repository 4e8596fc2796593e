"""Each message as one POST, tried again until it is accepted. On a thread of its own.

urllib, one request after another: a webhook gets events and not frames, and this loads nothing that is not there
already. A redirection is not followed, since it would turn the POST into a GET.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Final

from edged import clock
from edged.config.forward import WEBHOOK_CREDENTIAL, WebhookConfig
from edged.config.server_url import Server
from edged.credentials import find_credential
from edged.gateway.forward import Forwarder, reason_of, tls_context
from edged.gateway.spool import Item

TURN_S: Final = 0.2
POST_TIMEOUT_S: Final = 5.0
POST_AT_MOST_S: Final = 10.0
"""From the connection on, however often a little of the answer comes."""
AT_ONCE: Final = 16
REFUSED: Final = (400, 405, 410, 413, 415, 422)
"""Answers that would be the same again: the message is given up and counted. All others are tried again."""


class Webhook(Forwarder):
    def __init__(self, config: WebhookConfig, server: Server) -> None:
        """EdgedError if the spool, the credential or the certificates cannot be used."""
        context = tls_context(config.ca) if server.tls else None
        self._opener = urllib.request.build_opener(
            _NoRedirection, _Http(self._connected), _Https(self._connected, context)
        )
        self._posting: tuple[socket.socket, int] | None = None
        """over which connection, and until when at most"""
        self._url, self._token = config.url or "", find_credential(WEBHOOK_CREDENTIAL)
        self._due_ns = 0
        super().__init__("webhook", server, config.what, config.spool_mb)

    def work(self) -> None:
        self.store()
        waiting = self.spool.first(AT_ONCE) if clock.mono_ns() >= self._due_ns else []
        for number, item in waiting:
            if self.stopping.is_set():
                return
            self.store()
            problem = self._post(item)
            if problem is not None:
                self._due_ns = clock.mono_ns() + int(self.link.down(problem) * clock.NS_PER_S)
                return
            self.link.up()
            self.spool.remove([number])
        if len(waiting) < AT_ONCE:
            self.stopping.wait(TURN_S)

    def turn(self) -> None:
        """On the gateway's thread: end a POST whose answer comes drop by drop, each in time."""
        posting = self._posting
        if posting is not None and clock.mono_ns() > posting[1]:
            with contextlib.suppress(OSError):
                # as a plain socket: an SSLSocket would take its session away from the thread that reads
                socket.socket.shutdown(posting[0], socket.SHUT_RDWR)

    def _connected(self, connection: socket.socket) -> None:
        self._posting = connection, clock.mono_ns() + int(POST_AT_MOST_S * clock.NS_PER_S)

    def _post(self, item: Item) -> str | None:
        """None if the message is done with, else why it has to be tried again."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": item.id, "User-Agent": "edged"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(self._url, item.payload, headers, method="POST")
        try:
            with self._opener.open(request, timeout=POST_TIMEOUT_S):
                self.sent += 1
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in REFUSED:
                return f"it answers {error.code} {error.reason}"
            self.refused += 1
        except urllib.error.URLError as error:
            return (
                reason_of(error.reason) if isinstance(error.reason, OSError) else f"it is not reached: {error.reason}"
            )
        except (OSError, HTTPException) as error:  # while it answers
            return f"it gives no answer: {error or type(error).__name__}"
        finally:
            self._posting = None
        return None


class _Http(urllib.request.HTTPHandler):
    def __init__(self, connected: Callable[[socket.socket], None]) -> None:
        super().__init__()
        self._connected = connected

    def http_open(self, request: urllib.request.Request) -> HTTPResponse:
        connected = self._connected

        class Connection(HTTPConnection):
            def connect(self) -> None:
                super().connect()
                connected(self.sock)

        return self.do_open(Connection, request)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, connected: Callable[[socket.socket], None], context: ssl.SSLContext | None) -> None:
        super().__init__(context=context)
        self._connected, self._tls = connected, context

    def https_open(self, request: urllib.request.Request) -> HTTPResponse:
        connected = self._connected

        class Connection(HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                connected(self.sock)

        return self.do_open(Connection, request, context=self._tls)


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Its code then counts as the answer."""
