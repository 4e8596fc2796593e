"""The metrics where Prometheus finds them: over HTTP, or in a file for node_exporter.

On the main thread until a signal. The HTTP server is prometheus-client's, with a thread for each request; a slow reader
holds one of them for ten seconds at most.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Final

from prometheus_client import ProcessCollector, generate_latest, start_http_server, write_to_textfile

from edged import clock
from edged.bus.curve import CurveClient
from edged.bus.schema import State
from edged.errors import EdgedError
from edged.gateway.metrics import TOPICS, Metrics
from edged.gateway.subscription import Subscription
from edged.metrics_config import MetricsConfig

log = logging.getLogger(__name__)

TEXTFILE_S: Final = 5.0
SILENCE_S: Final = 3.0
READER_S: Final = 10.0
_TURN_S: Final = 1.0


def export(config: MetricsConfig, endpoint: str | None, curve: CurveClient | None) -> None:
    """Serve until an exception (a signal's) ends it. EdgedError if the address or the file cannot be used."""
    metrics = Metrics()
    ProcessCollector(registry=metrics.registry)
    with _listening(config, metrics), Subscription(endpoint, curve, TOPICS) as subscription:
        _Loop(config, metrics, subscription).run()


def expositions(endpoint: str | None, curve: CurveClient | None) -> Iterator[str]:
    """The text at each state of the daemon, from the second on: the first comes before any result. EdgedError if the
    daemon does not answer in time."""
    metrics = Metrics()
    with Subscription(endpoint, curve, TOPICS) as subscription:
        states, end_ns = 0, _after(SILENCE_S)
        while True:
            message = subscription.receive(max(0.0, (end_ns - clock.mono_ns()) / clock.NS_PER_S))
            if message is not None:
                metrics.update(message, subscription)
            if isinstance(message, State):
                states, end_ns = states + 1, _after(SILENCE_S)
                if states > 1:
                    yield generate_latest(metrics.registry).decode()
            elif clock.mono_ns() >= end_ns:
                raise EdgedError(
                    f"no daemon answers at {subscription.endpoint}", "start one with `edged run`, or give --endpoint"
                )


class _Loop:
    def __init__(self, config: MetricsConfig, metrics: Metrics, subscription: Subscription) -> None:
        self._textfile, self._metrics, self._subscription = config.textfile, metrics, subscription
        self._silent = False
        self._write_failed = False

    def run(self) -> None:
        heard_ns, write_ns = clock.mono_ns(), 0
        while True:
            message = self._subscription.receive(_TURN_S)
            now_ns = clock.mono_ns()
            if message is not None:
                self._metrics.update(message, self._subscription)
                heard_ns = now_ns
            self._report(silent=now_ns - heard_ns > SILENCE_S * clock.NS_PER_S)
            if self._textfile is not None and now_ns >= write_ns:
                write_ns = _after(TEXTFILE_S)
                self._write(self._textfile)

    def _report(self, silent: bool) -> None:
        if silent == self._silent:
            return
        self._silent = silent
        if not silent:
            log.info("the daemon at %s answers", self._subscription.endpoint)
        elif self._subscription.refused:
            log.warning("the daemon at %s refuses this key; waiting", self._subscription.endpoint)
        else:
            log.warning("no daemon answers at %s; waiting", self._subscription.endpoint)

    def _write(self, path: str) -> None:
        try:
            write_to_textfile(path, self._metrics.registry)
            self._write_failed = False
        except OSError as error:
            if not self._write_failed:
                log.error("cannot write %s: %s; trying again every %g s", path, error.strerror, TEXTFILE_S)
            self._write_failed = True


@contextlib.contextmanager
def _listening(config: MetricsConfig, metrics: Metrics) -> Iterator[None]:
    if config.address is None:
        yield
        return
    host, port = config.address
    try:
        server, thread = start_http_server(port, host, metrics.registry)
    except OSError as error:
        raise EdgedError(
            f"cannot listen on {host}:{port}: {error.strerror}", "set another port in [metrics] listen"
        ) from error
    handler = server.RequestHandlerClass
    assert isinstance(handler, type) and issubclass(handler, BaseHTTPRequestHandler)
    handler.timeout = READER_S  # its default is to wait forever for a request
    server.handle_error = _reader_failed
    log.info("metrics at http://%s:%d/metrics", host, port)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _reader_failed(request: object, address: object) -> None:
    """In place of socketserver's traceback on stderr for each reader that leaves early or is too slow."""
    if not isinstance(sys.exc_info()[1], OSError):
        log.error("serving the metrics to %s failed", address, exc_info=True)


def _after(seconds: float) -> int:
    return clock.mono_ns() + int(seconds * clock.NS_PER_S)
