"""The metrics where Prometheus finds them: over HTTP, in a file for node_exporter, or once as text.

The HTTP server is prometheus-client's, with a thread for each request; a slow reader holds one of them for ten seconds
at most. The file is written on the gateway's thread.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from threading import Thread
from types import TracebackType
from typing import Final
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest, start_http_server, write_to_textfile

from edged import clock
from edged.bus.curve import CurveClient
from edged.bus.schema import State
from edged.config.listen import Address
from edged.errors import EdgedError
from edged.gateway.metrics import Metrics
from edged.gateway.part import Part
from edged.gateway.subscription import Subscription

log = logging.getLogger(__name__)

TEXTFILE_S: Final = 5.0
READER_S: Final = 10.0
ANSWER_S: Final = 3.0


def expositions(endpoint: str | None, curve: CurveClient | None) -> Iterator[str]:
    """The text at each state of the daemon, from the second on: the first comes before any result. EdgedError if the
    daemon does not answer in time."""
    metrics = Metrics()
    with Subscription(endpoint, curve, metrics.topics) as subscription:
        states, end_ns = 0, _after(ANSWER_S)
        while True:
            message = subscription.receive(max(0.0, (end_ns - clock.mono_ns()) / clock.NS_PER_S))
            if message is not None:
                metrics.take(message, subscription)
            if isinstance(message, State):
                states, end_ns = states + 1, _after(ANSWER_S)
                if states > 1:
                    yield generate_latest(metrics.registry).decode()
            elif clock.mono_ns() >= end_ns:
                raise EdgedError(
                    f"no daemon answers at {subscription.endpoint}", "start one with `edged run`, or give --endpoint"
                )


class MetricsFile(Part):
    """Written every TEXTFILE_S; a directory that is missing or full is reported once, and tried again."""

    def __init__(self, path: str, registry: CollectorRegistry) -> None:
        self._path, self._registry = path, registry
        self._write_ns, self._failed = 0, False

    def turn(self) -> None:
        if clock.mono_ns() < self._write_ns:
            return
        self._write_ns = _after(TEXTFILE_S)
        try:
            write_to_textfile(self._path, self._registry)
            self._failed = False
        except OSError as error:
            if not self._failed:
                log.error("cannot write %s: %s; trying again every %g s", self._path, error.strerror, TEXTFILE_S)
            self._failed = True


class MetricsServer(Part):
    """http://ADDRESS/metrics, with the figures of this process beside the daemon's."""

    def __init__(self, address: Address, registry: CollectorRegistry) -> None:
        self._address, self._registry = address, registry
        self._server: WSGIServer | None = None
        self._thread: Thread | None = None

    def __enter__(self) -> MetricsServer:
        host, port = self._address
        ProcessCollector(registry=self._registry)
        try:
            self._server, self._thread = start_http_server(port, host, self._registry)
        except OSError as error:
            raise EdgedError(
                f"cannot listen on {host}:{port}: {error.strerror}", "set another port in [metrics] listen"
            ) from error
        handler = self._server.RequestHandlerClass
        assert isinstance(handler, type) and issubclass(handler, BaseHTTPRequestHandler)
        handler.timeout = READER_S  # its default is to wait forever for a request
        self._server.handle_error = _reader_failed  # type: ignore[method-assign]
        log.info("metrics at http://%s:%d/metrics", host, port)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


def _reader_failed(request: object, address: object) -> None:
    """In place of socketserver's traceback on stderr for each reader that leaves early or is too slow."""
    if not isinstance(sys.exc_info()[1], OSError):
        log.error("serving the metrics to %s failed", address, exc_info=True)


def _after(seconds: float) -> int:
    return clock.mono_ns() + int(seconds * clock.NS_PER_S)
