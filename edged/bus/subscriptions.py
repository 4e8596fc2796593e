"""Which subscriptions are let in: prefixes in, yes or no out. Pure; called under the publisher's lock.

Whoever reaches the socket can send any prefix, any number of times. Only one that can match a topic is kept; a camera
not yet known may be waited for, but only so many different ones.
"""

from __future__ import annotations

import re
from collections import Counter

from edged.bus.schema import TOPICS
from edged.clock import NS_PER_S

MAX_PREFIX_BYTES = 64
"""Longer than any subscription that can match: "status/", 32 characters of camera name, and ZeroMQ's own framing."""

MAX_UNKNOWN = 1024
"""Different prefixes kept that match no topic published so far."""

_CAMERA_PREFIX = re.compile(rb"(?:[a-z0-9][a-z0-9_-]{0,31})?")


MAX_PER_PEER = 2048
"""Subscriptions of one connection at a time. Each costs libzmq memory, also one that is not let in."""

MAX_MESSAGES = 8192
MESSAGES_NS = 10 * NS_PER_S
"""Subscribing and unsubscribing of one connection in that time."""


Peer = tuple[int, str]
"""A connection: its descriptor, and who is at its other end, since descriptors are used again."""


class Peers:
    """How much each connection sends."""

    def __init__(self) -> None:
        self._counts: dict[Peer, tuple[int, int, int]] = {}  # subscriptions, messages, since when
        self.cut: set[Peer] = set()
        """who has sent too much, and is being disconnected"""

    def may(self, peer: Peer, change: int, now_ns: int) -> bool:
        """Count a message that adds `change` subscriptions. False if it is one too many: the peer is in `cut` then."""
        held, messages, since_ns = self._counts.get(peer, (0, 0, now_ns))
        if now_ns - since_ns > MESSAGES_NS:
            messages, since_ns = 0, now_ns
        held, messages = max(0, held + change), messages + 1
        self._counts[peer] = held, messages, since_ns
        if held <= MAX_PER_PEER and messages <= MAX_MESSAGES:
            return True
        self.cut.add(peer)
        return False

    def forget(self, descriptor: int) -> None:
        """The connection has ended. What it had sent may come after this, and is counted until the next one ends."""
        self._counts = {peer: count for peer, count in self._counts.items() if peer[0] != descriptor}
        self.cut = {peer for peer in self.cut if peer[0] != descriptor}


class Subscriptions:
    def __init__(self) -> None:
        self._topics: set[bytes] = {topic.prefix.encode() for topic in TOPICS.values()}
        self._cameras: set[bytes] = {topic.prefix.encode() for topic in TOPICS.values() if topic.per_camera}
        self._unknown: Counter[bytes] = Counter()
        self.refused = 0

    def add_topic(self, topic: bytes) -> None:
        """A topic now exists: prefixes of it are welcome without limit."""
        self._topics.add(topic)

    def accept(self, prefix: bytes) -> bool:
        if self._is_known(prefix):
            return True
        if self._may_match(prefix) and (prefix in self._unknown or len(self._unknown) < MAX_UNKNOWN):
            self._unknown[prefix] += 1
            return True
        self.refused += 1
        return False

    def release(self, prefix: bytes) -> bool:
        """A subscriber took this prefix back; True if it had been accepted."""
        if prefix in self._unknown:
            self._unknown[prefix] -= 1
            if self._unknown[prefix] <= 0:
                del self._unknown[prefix]
            return True
        return self._is_known(prefix)

    def _is_known(self, prefix: bytes) -> bool:
        return any(topic.startswith(prefix) for topic in self._topics)

    def _may_match(self, prefix: bytes) -> bool:
        for topic in self._cameras:
            if prefix.startswith(topic):
                return _CAMERA_PREFIX.fullmatch(prefix, len(topic)) is not None
        return False
