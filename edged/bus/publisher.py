"""Messages in, from any thread; `[topic, payload]` out on one XPUB socket, and the retained `state` to each newcomer.

A ZeroMQ socket may be used from several threads if a lock orders the calls; it is held for the microseconds of one
non-blocking send. No call here waits for a subscriber: one that does not keep up loses messages (and sees the gap in
`seq`), the daemon never does. `publish` answers newcomers too; while nothing is published `serve()` must be called when
`fd` is readable and at least every 100 ms.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import cast

import msgspec
import zmq

from edged import clock
from edged.bus.admission import Admission
from edged.bus.connections import peer_of
from edged.bus.curve import Socket
from edged.bus.endpoint import Binding
from edged.bus.schema import TOPICS, M, Result, State, topic_of
from edged.bus.subscriptions import MAX_PREFIX_BYTES, Peer, Peers, Subscriptions
from edged.worker import Worker

SEND_HIGH_WATER_MARK = 64
"""Messages kept for a subscriber that does not read: two seconds of one camera at 30 fps."""

RECEIVE_HIGH_WATER_MARK = 2
"""Subscriptions of one peer that libzmq reads ahead, the fewest with which CURVE connects. With each call it takes into
memory what there is, and continues while more arrives: two peers' flood cost up to 2 MB until they were cut off, with
room for 8 it was 10 MB, for 100 190 MB."""

MAX_CONNECTIONS = 256

GREET_PER_PUBLISH = 4
GREET_PER_SERVE = 256
"""Subscriptions answered in one go, so that a flood of them delays a result by microseconds only."""

CURVE_HANDSHAKE_BYTES = 1024

# Plain integers: combining the enum's own members costs a microsecond each time.
_MORE = int(zmq.DONTWAIT | zmq.SNDMORE)
_LAST = int(zmq.DONTWAIT)
_EVENTS = int(zmq.EVENTS)
_READABLE = int(zmq.POLLIN)


@dataclass
class _Channel:
    topic: bytes
    seq: int = 0


class Publisher:
    """One XPUB socket, bound and locked. Close it before the context is terminated."""

    def __init__(self, context: zmq.Context[Socket], endpoint: str, admission: Admission | None = None) -> None:
        """EdgedError if the endpoint is in use or cannot be bound; `tcp://` requires an `admission`
        with keys."""
        self.endpoint = endpoint
        self._lock = threading.Lock()
        self._encoder = msgspec.msgpack.Encoder()
        self._channels: dict[str, _Channel] = {}
        self._retained: bytes | None = None
        self._subscriptions, self._peers = Subscriptions(), Peers()
        self._socket = context.socket(zmq.XPUB)
        self._socket.sndhwm = SEND_HIGH_WATER_MARK
        self._socket.rcvhwm = RECEIVE_HIGH_WATER_MARK
        self._socket.linger = 0
        # Only subscriptions come in; who sends more is disconnected before it costs memory.
        self._socket.maxmsgsize = CURVE_HANDSHAKE_BYTES if endpoint.startswith("tcp://") else MAX_PREFIX_BYTES
        self._socket.setsockopt(zmq.XPUB_MANUAL, 1)
        try:
            self._binding = Binding(self._socket, endpoint, admission, MAX_CONNECTIONS, self._peers.forget)
        except BaseException:
            self._socket.close(linger=0)
            raise
        self.fd = int(self._socket.get(zmq.FD))
        """Readable when a subscriber may have come or gone; poll it, read nothing from it."""
        self.sent = 0
        """messages so far"""

    def publish(self, message: M) -> M:
        """Stamp and send; returns what was sent. The topic follows from the message's type and camera.

        `v`, `seq` and `t_publish` are set here, and so are a result's `age_ms` and `deadline_met`: they are measured at
        this moment, not promised by the caller. A message that cannot be encoded raises and takes no number.
        """
        with self._lock:
            channel = self._channel(topic_of(message))
            seq = channel.seq + 1
            stamped = _stamp(message, seq)
            payload = self._encoder.encode(stamped)
            self._socket.send(channel.topic, _MORE)
            self._socket.send(payload, _LAST)
            channel.seq = seq
            self.sent += 1
            if type(message) is State:
                self._retained = payload
            self._answer_subscriptions(GREET_PER_PUBLISH)
        return stamped

    def last_seq(self, topic: str) -> int:
        """The number of the last message sent on a topic; 0 before the first."""
        with self._lock:
            channel = self._channels.get(topic)
            return 0 if channel is None else channel.seq

    def serve(self) -> bool:
        """Answer subscribers that came or went. True if more are waiting: call again soon."""
        with self._lock:
            return self._answer_subscriptions(GREET_PER_SERVE)

    @property
    def workers(self) -> tuple[Worker, ...]:
        """Its threads."""
        return (self._binding.worker,)

    @property
    def refused_subscriptions(self) -> int:
        """Subscriptions that no topic of ours can match, or beyond the limit."""
        return self._subscriptions.refused

    def close(self) -> None:
        with self._lock:
            self._binding.close()

    def _channel(self, topic: str) -> _Channel:
        channel = self._channels.get(topic)
        if channel is None:
            channel = self._channels[topic] = _Channel(topic.encode())
            self._subscriptions.add_topic(channel.topic)
        return channel

    def _answer_subscriptions(self, limit: int) -> bool:
        """Read up to `limit` subscriptions. The socket's `fd` signals only once, and a send may swallow the signal, so
        this runs after each send too."""
        for _ in range(limit):
            if not self._events() & _READABLE:
                return False
            frame = self._socket.recv(_LAST, copy=False)
            self._take(frame.bytes, peer_of(frame))
        return True

    def _take(self, request: bytes, peer: Peer | None) -> None:
        """One message of a subscriber."""
        kind, prefix = request[:1], request[1:]
        change = {b"\1": 1, b"\0": -1}.get(kind, 0)
        if peer in self._peers.cut:
            return  # what it had sent before it was cut off
        if peer is not None and not self._peers.may(peer, change, clock.mono_ns()):
            self._binding.cut(peer, "it sent more subscriptions than any program needs")
        elif change > 0 and self._subscriptions.accept(prefix):
            self._socket.setsockopt(zmq.SUBSCRIBE, prefix)
            self._greet(prefix)
        elif change < 0 and self._subscriptions.release(prefix):
            self._socket.setsockopt(zmq.UNSUBSCRIBE, prefix)
        elif change == 0:
            self._subscriptions.refused += 1  # talk where only subscriptions belong

    def _events(self) -> int:
        return cast(int, self._socket.get(_EVENTS))

    def _greet(self, prefix: bytes) -> None:
        """Send the retained state to the subscriber just accepted, and to nobody else.

        XPUB_MANUAL_LAST_VALUE turns the next send, whatever it is, towards that one subscriber, so it is on for this
        message alone. Turning it off turns XPUB_MANUAL off as well, hence the last line.
        """
        topic = TOPICS["state"].prefix.encode()
        if self._retained is None or not topic.startswith(prefix):
            return
        self._socket.setsockopt(zmq.XPUB_MANUAL_LAST_VALUE, 1)
        self._socket.send(topic, _MORE)
        self._socket.send(self._retained, _LAST)
        self._socket.setsockopt(zmq.XPUB_MANUAL_LAST_VALUE, 0)
        self._socket.setsockopt(zmq.XPUB_MANUAL, 1)


def _stamp(message: M, seq: int) -> M:
    t_publish = clock.wall_ns() / clock.NS_PER_S
    if isinstance(message, Result):
        age_ms = (clock.mono_ns() - message.mono_capture_ns) / clock.NS_PER_MS
        on_time = age_ms <= message.deadline_ms
        return msgspec.structs.replace(message, seq=seq, t_publish=t_publish, age_ms=age_ms, deadline_met=on_time)
    return msgspec.structs.replace(message, seq=seq, t_publish=t_publish)
