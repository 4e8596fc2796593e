"""The gateway's one thread: messages of the daemon in, to every part. Until a signal's exception ends it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Final

from edged import clock
from edged.bus.curve import CurveClient
from edged.config import Config
from edged.config.metrics import MetricsConfig
from edged.gateway.exporter import MetricsFile, MetricsServer
from edged.gateway.metrics import Metrics
from edged.gateway.part import Part
from edged.gateway.subscription import Subscription

log = logging.getLogger(__name__)

SILENCE_S: Final = 3.0
_TURN_S: Final = 1.0


def parts_of(config: Config | None, control: str | None) -> list[Part]:
    """The parts that the configuration asks for, the metrics first; None: no configuration, so metrics alone.
    `control`: the daemon's endpoint for requests, None for the default. UsageError for what is missing on this machine.
    """
    metrics_config = MetricsConfig() if config is None else config.metrics
    others: list[Part] = []
    metrics = Metrics(others)
    parts: list[Part] = [metrics]
    if metrics_config.address is not None:
        parts.append(MetricsServer(metrics_config.address, metrics.registry))
    if metrics_config.textfile is not None:
        parts.append(MetricsFile(metrics_config.textfile, metrics.registry))
    if config is not None:
        others += _destinations(config, control)
        if config.web.address is not None:
            from edged.gateway.web.part import Page

            others.append(Page(config.web.address, config, metrics.registry, control))
    return parts + others


def _destinations(config: Config, control: str | None) -> Iterator[Part]:
    if config.mqtt.server is not None:
        from edged.gateway.mqtt import Mqtt

        yield Mqtt(config.mqtt, config.mqtt.server, control)
    if config.nats.server is not None:
        from edged.gateway.nats import Nats

        yield Nats(config.nats, config.nats.server)
    if config.webhook.server is not None:
        from edged.gateway.webhook import Webhook

        yield Webhook(config.webhook, config.webhook.server)


def serve(parts: Sequence[Part], endpoint: str | None, curve: CurveClient | None) -> None:
    """Serve until an exception (a signal's) ends it. EdgedError if a part cannot start."""
    topics = dict.fromkeys(topic for part in parts for topic in part.topics)
    with contextlib.ExitStack() as stack:
        subscription = stack.enter_context(Subscription(endpoint, curve, topics))
        for part in parts:
            stack.enter_context(part)
        _pass_on(parts, subscription)


def _pass_on(parts: Sequence[Part], subscription: Subscription) -> None:
    heard_ns, silent = clock.mono_ns(), False
    while True:
        message = subscription.receive(_TURN_S)
        now_ns = clock.mono_ns()
        if message is not None:
            heard_ns = now_ns
            for part in parts:
                part.take(message, subscription)
        if silent != (now_ns - heard_ns > SILENCE_S * clock.NS_PER_S):
            silent = not silent
            _report(subscription, silent)
        for part in parts:
            part.turn()


def _report(subscription: Subscription, silent: bool) -> None:
    if not silent:
        log.info("the daemon at %s answers", subscription.endpoint)
    elif subscription.refused:
        log.warning("the daemon at %s refuses this key; waiting", subscription.endpoint)
    else:
        log.warning("no daemon answers at %s; waiting", subscription.endpoint)
