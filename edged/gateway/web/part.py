"""The page as a part of the gateway: messages in, an HTTP server beside. Built from [web] of the configuration."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from types import TracebackType
from typing import Final

from prometheus_client import CollectorRegistry, Metric

from edged.bus.schema import Message, Result, State
from edged.config import Config
from edged.config.listen import Address, is_local
from edged.gateway.families import counter, gauge
from edged.gateway.part import Part
from edged.gateway.subscription import Subscription
from edged.gateway.web.access import Access, read_token
from edged.gateway.web.camera_views import CameraViews
from edged.gateway.web.handlers import Handlers
from edged.gateway.web.overview import Overview
from edged.gateway.web.pictures import Picture, Pictures
from edged.gateway.web.server import Server, tls_of

log = logging.getLogger(__name__)

LOCAL: Final = "ipc://"
"""The rings of a daemon on another machine are not ours."""


class Page(Part):
    topics = ("result/", "track/", "event", "state")

    def __init__(self, address: Address, config: Config, registry: CollectorRegistry, control: str | None) -> None:
        """UsageError for a token or a certificate that cannot be used."""
        tls = tls_of(config.web)
        token = read_token() if config.web.token else None
        self._address, self._secure, self._token = address, tls is not None, token is not None
        self._overview = Overview()
        self._pictures = Pictures({camera.name: camera for camera in config.camera}, self._made)
        self._views = CameraViews(self._overview, self._pictures)
        access = Access(token, guarded=token is not None or tls is not None)
        self._handlers = Handlers(access, self._overview, self._views, registry, control)
        self._server = Server(address, tls, self._handlers)
        self._made_count = 0

    def take(self, message: Message, subscription: Subscription) -> None:
        update = self._overview.take(message, subscription.lost.total())
        if isinstance(message, Result) and subscription.endpoint.startswith(LOCAL):
            self._pictures.offer(message)
        if isinstance(message, State):
            self._pictures.keep({one.camera for one in message.cameras})
        if update is not None:
            self._server.call(self._handlers.updated, update)

    def families(self) -> Iterable[Metric]:
        yield from gauge(
            "edged_web_readers",
            "Who is connected to the page, by kind.",
            "kind",
            [
                (("connection",), self._server.connections),
                (("page",), self._handlers.pages.taken),
                (("stream",), self._views.streams.taken),
            ],
        )
        yield from counter(
            "edged_web_refused",
            "Requests to the page that were refused, by cause.",
            "cause",
            [
                (("connections",), self._server.refused),
                (("pages",), self._handlers.pages.refused),
                (("pictures",), self._views.refused),
                (("host",), self._handlers.unknown_hosts),
                (("token",), self._handlers.wrong_tokens),
            ],
        )
        yield from counter("edged_web_pictures", "Pictures encoded for the page.", "", [((), self._made_count)])

    def __enter__(self) -> Page:
        self._server.start()
        self._pictures.start()
        scheme = "https" if self._secure else "http"
        host = f"[{self._address[0]}]" if ":" in self._address[0] else self._address[0]
        log.info("page at %s://%s:%d/", scheme, host, self._address[1])
        if not is_local(self._address):
            log.info("other machines reach it%s", self._guards())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pictures.stop()
        self._server.stop()

    def _guards(self) -> str:
        if not self._secure:
            return " with the token, which goes over the network unencrypted: set tls_certificate and tls_key"
        return " by TLS with the token" if self._token else " by TLS without a token: anybody may look"

    def _made(self, picture: Picture) -> None:
        """On the thread "pictures"."""
        self._made_count += 1
        self._server.call(self._views.put, picture)
