"""The tables [nats] and [webhook] of the configuration: where `edged gateway` sends messages. Pure data, any thread."""

from __future__ import annotations

import re
import socket
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from edged.config.server_url import Server, server_of

NATS_CREDENTIAL: Final = "gateway.nats"
WEBHOOK_CREDENTIAL: Final = "gateway.webhook"
_NATS: Final = {"nats": (False, 4222), "tls": (True, 4222)}
_HTTP: Final = {"http": (False, 80), "https": (True, 443)}

Url = Annotated[str, Meta(max_length=1000, description="a URL in quotes")]
CaFile = Annotated[str, Meta(min_length=1, description="the path of a file of certificates, in quotes")]
Topics = Annotated[
    tuple[Literal["result", "track", "event", "status", "decision", "telemetry"], ...],
    Meta(min_length=1, description='a list of "result", "track", "event", "status", "decision" or "telemetry"'),
]
SpoolMb = Annotated[float, Meta(ge=1, le=1e5, description="megabytes, from 1 to 100000")]
Stream = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z", description="1 to 64 letters, digits, _ or -")]
Subject = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\Z", max_length=128,
        description="words of letters, digits, _ or -, with dots between them",
    ),
]  # fmt: skip


class NatsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`url` None: nothing is sent. Messages go to the subject `subject.TOPIC`, a camera's to `subject.TOPIC.CAMERA`;
    `stream` keeps them. `ca`: certificates that vouch for the server, in place of the system's."""

    url: Url | None = None
    stream: Stream = "EDGED"
    subject: Subject | None = None
    """None: edged.HOSTNAME"""
    what: Topics = ("track", "event")
    spool_mb: SpoolMb = 64.0
    ca: CaFile | None = None

    @property
    def server(self) -> Server | None:
        """UsageError if `url` is none."""
        return None if self.url is None else server_of(self.url, "nats.url", _NATS, NATS_CREDENTIAL)

    @property
    def root(self) -> str:
        """The subject's first words."""
        return self.subject or f"edged.{host_name()}"


class WebhookConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`url` None: nothing is sent. One POST for each message."""

    url: Url | None = None
    what: Topics = ("event",)
    spool_mb: SpoolMb = 8.0
    ca: CaFile | None = None

    @property
    def server(self) -> Server | None:
        """UsageError if `url` is none."""
        return None if self.url is None else server_of(self.url, "webhook.url", _HTTP, WEBHOOK_CREDENTIAL)


def host_name() -> str:
    """This machine's name, in letters, digits, _ and - alone."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname().partition(".")[0]) or "edged"
