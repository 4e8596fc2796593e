"""What the ways out of the gateway have in common: the messages that a destination takes, and whether it is reached.

`Intake.put` runs on the subscriber's thread and never blocks, `Intake.take` on the destination's own.
"""

from __future__ import annotations

import logging
import os
import random
import ssl
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from types import TracebackType
from typing import Final

import msgspec
from prometheus_client import Metric

from edged import paths
from edged.bus.schema import TOPICS, Message, State, topic_of
from edged.config.server_url import Server
from edged.errors import UsageError
from edged.gateway.families import counter, gauge
from edged.gateway.part import Part
from edged.gateway.spool import Item, Spool
from edged.gateway.subscription import Subscription
from edged.worker import Worker

QUEUE_MESSAGES: Final = 4096
QUEUE_BYTES: Final = 8 << 20
"""Between the subscriber and a destination, which empties it several times a second unless its disk hangs."""
LONGEST_PAUSE_S: Final = 60.0
STOP_S: Final = 6.0
"""A server that hangs holds the stop up for so long; any other for a fraction of a second."""

log = logging.getLogger(__name__)


class Intake:
    """Messages of the topics `what` ("result", "track", ...) as JSON: the message's own keys, before them `id` and
    `topic`. The id is the daemon's run, the topic and `seq`, so it is that of no other message."""

    def __init__(self, what: Collection[str]) -> None:
        self.lost: Counter[str] = Counter(queue_full=0)
        self._what = frozenset(what)
        self._encoder = msgspec.json.Encoder()
        self._run: str | None = None
        self._restarts = 0
        self._unnamed: list[tuple[str, Message]] = []  # of a run that has not published its state yet
        self._lock = threading.Lock()
        self._queue: list[Item] = []
        self._bytes = 0

    def put(self, message: Message, subscription: Subscription) -> None:
        if subscription.restarts != self._restarts:
            self._restarts, self._run = subscription.restarts, None
        topic = topic_of(message)
        if topic.partition("/")[0] in self._what:
            self._unnamed.append((topic, message))
        if isinstance(message, State):
            self._run = message.run or f"pid{message.pid}"
        if self._unnamed and self._run is not None:
            for waiting in self._unnamed:
                self._queue_up(self._item(self._run, *waiting))
            self._unnamed.clear()
        elif len(self._unnamed) > QUEUE_MESSAGES:
            del self._unnamed[0]
            self.lost["queue_full"] += 1

    def take(self) -> list[Item]:
        """All that came since the last call, oldest first."""
        with self._lock:
            taken, self._queue, self._bytes = self._queue, [], 0
        return taken

    def _item(self, run: str, topic: str, message: Message) -> Item:
        name = f"{run}/{topic}/{message.seq}"
        head = self._encoder.encode({"id": name, "topic": topic})
        return Item(topic, name, head[:-1] + b"," + self._encoder.encode(message)[1:])

    def _queue_up(self, item: Item) -> None:
        with self._lock:
            full = len(self._queue) >= QUEUE_MESSAGES or self._bytes + len(item.payload) > QUEUE_BYTES
            if not full:
                self._queue.append(item)
                self._bytes += len(item.payload)
        self.lost["queue_full"] += full


class Link:
    """Whether a destination can be reached. Each change goes to the log once, with its reason."""

    def __init__(self, destination: str) -> None:
        self.connected = False
        self._destination = destination
        self.failures = 0
        """in a row"""
        self._reason: str | None = None

    def up(self) -> None:
        if not self.connected:
            log.info("%s is reached", self._destination)
        self.connected, self._reason, self.failures = True, None, 0

    def down(self, reason: str) -> float:
        """The seconds to wait before the next attempt: longer each time, and spread."""
        if reason != self._reason:
            log.warning("%s: %s; trying again", self._destination, reason)
        self.connected, self._reason = False, reason
        self.failures += 1
        return min(LONGEST_PAUSE_S, 2.0 ** min(self.failures - 1, 10)) * random.uniform(0.5, 1.0)


class Forwarder(Part):
    """A destination with a spool. `work` runs on a thread of its own, turn after turn, until `stopping` is set. It
    calls `store` at least once a second and counts what becomes of the messages."""

    def __init__(self, name: str, server: Server, what: Collection[str], spool_mb: float) -> None:
        """EdgedError if the spool cannot be used."""
        self.topics = ("state", *(TOPICS[topic].prefix for topic in what))
        self.intake, self.link = Intake(what), Link(f"{name} at {server}")
        self.spool = Spool(paths.state_dir() / "spool" / f"{name}.db", int(spool_mb * 1e6))
        self.sent = self.refused = 0
        self._name = name
        self._worker = Worker(f"gateway.{name}", self.work)
        self.stopping = self._worker.stopping

    def work(self) -> None:
        raise NotImplementedError

    def store(self) -> None:
        """Put what has come into the spool."""
        self.spool.append(self.intake.take())

    def take(self, message: Message, subscription: Subscription) -> None:
        self.intake.put(message, subscription)

    def families(self) -> Iterator[Metric]:
        lost = {**self.intake.lost, **self.spool.dropped, "refused": self.refused}
        yield from destination_families(self._name, self.link, self.sent, lost)
        labels = [self._name]
        yield from gauge(
            "edged_gateway_spool_messages",
            "Messages that wait for their acknowledgement.",
            "destination",
            [(labels, self.spool.messages)],
        )
        yield from gauge("edged_gateway_spool_bytes", "Of the disk.", "destination", [(labels, self.spool.used_bytes)])

    def __enter__(self) -> Forwarder:
        self._worker.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._worker.stop(STOP_S):
            self.store()
            self.spool.close()


def reason_of(error: BaseException) -> str:
    """Why a connection failed, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted, {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS fails, {error.reason or error}"
    if isinstance(error, TimeoutError):
        return "it gives no answer"
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def destination_families(name: str, link: Link, sent: int, lost: Mapping[str, int]) -> Iterator[Metric]:
    """What is counted of every destination; `lost` by cause."""
    yield from gauge(
        "edged_gateway_connected", "1 while the destination is reached.", "destination", [([name], link.connected)]
    )
    yield from counter(
        "edged_gateway_sent_messages",
        "Messages that the destination has acknowledged.",
        "destination",
        [([name], sent)],
    )
    yield from counter(
        "edged_gateway_unsent_messages",
        "Messages that the destination will not get, by cause.",
        "destination cause",
        [([name, cause], count) for cause, count in lost.items()],
    )


def tls_context(ca: str | None) -> ssl.SSLContext:
    """`ca`: a file of the certificates that vouch for the server, in place of the system's. UsageError."""
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"cannot use the certificates in {ca}: {error.strerror or error}", "PEM is expected"
        ) from error
