"""Messages in, a Prometheus registry out: the last state as it is, and ages of results counted here.

`take` runs on the gateway's thread; the HTTP server's threads read the registry.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, disable_created_metrics
from prometheus_client.registry import Collector

from edged import clock
from edged.bus.schema import Message, Result, State
from edged.gateway.families import counter, families, gauge
from edged.gateway.part import Part
from edged.gateway.subscription import Subscription

STALE_S: Final = 5.0
"""`state` comes once a second; after this silence what it said is unknown."""
MAX_SERIES: Final = 1024
"""Pairs of camera and variant; results of further ones are counted as lost."""
_AGES_S: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics(Part, Collector):
    """`registry` holds everything, the counts of `others` too."""

    topics = ("result/", "state")

    def __init__(self, others: Sequence[Part] = ()) -> None:
        self._others = others
        disable_created_metrics()
        self.registry = CollectorRegistry()
        self._ages = Histogram(
            "edged_result_age_seconds",
            "From capture to publication of a result.",
            ("camera", "variant"),
            buckets=_AGES_S,
            registry=self.registry,
        )
        self._late = Counter("edged_results_late", "Results after their deadline.", ("camera",), registry=self.registry)
        self._series: set[tuple[str, str]] = set()
        self._state: State | None = None
        self._state_ns = 0
        self._messages = self._beyond = self._restarts = 0
        self._lost: dict[str, int] = {}
        self.registry.register(self)

    def take(self, message: Message, subscription: Subscription) -> None:
        """Take a message, and the subscription's counts with it."""
        if subscription.restarts != self._restarts:  # its counters begin at 0, so ours do
            self._restarts = subscription.restarts
            self._ages.clear()
            self._late.clear()
            self._series.clear()
        self._messages += 1
        if isinstance(message, State):
            self._lost = dict(subscription.lost)
            self._state, self._state_ns = message, clock.mono_ns()
        elif isinstance(message, Result):
            self._result(message)

    def collect(self) -> Iterator[Metric]:
        """The last state, while it is not stale, and the gateway's own counts."""
        state = self._state
        if state is not None and clock.mono_ns() - self._state_ns > STALE_S * clock.NS_PER_S:
            state = None
        yield from gauge("edged_up", "1 while the daemon publishes its state.", "", [((), state is not None)])
        if state is not None:
            yield from families(state)
        yield from counter("edged_gateway_messages", "Messages received from the daemon.", "", [((), self._messages)])
        lost = {"gap": 0, "invalid": 0, **self._lost, "series_limit": self._beyond}
        yield from counter(
            "edged_gateway_lost_messages",
            "Messages not counted here, by cause.",
            "cause",
            [((cause,), count) for cause, count in lost.items()],
        )
        yield from counter("edged_gateway_daemon_restarts", "Restarts of the daemon seen.", "", [((), self._restarts)])
        for part in self._others:
            yield from part.families()

    def _result(self, result: Result) -> None:
        key = (result.camera, result.variant)
        if key not in self._series:
            if len(self._series) >= MAX_SERIES:
                self._beyond += 1
                return
            self._series.add(key)
        self._ages.labels(*key).observe(result.age_ms / 1000)
        late = self._late.labels(result.camera)
        if not result.deadline_met:
            late.inc()
