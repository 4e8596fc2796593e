"""The registry: ages by camera and variant, restarts of the daemon, stale states, bounded series."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

import msgspec
import pytest
from prometheus_client import generate_latest

from edged import clock
from edged.gateway.metrics import MAX_SERIES, STALE_S, Metrics
from edged.gateway.subscription import Subscription
from tests.support import messages


class Counts(Subscription):
    """Without a socket."""

    restarts = 0
    lost: ClassVar = Counter({"gap": 4})

    def __init__(self) -> None:
        """No daemon."""


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_ages_are_a_histogram_by_camera_and_variant() -> None:
    metrics, counts = Metrics(), Counts()
    for camera, age_ms, met in (("gate", 12.0, True), ("gate", 80.0, False), ("yard", 3.0, True)):
        metrics.take(msgspec.structs.replace(messages.result(camera), age_ms=age_ms, deadline_met=met), counts)
    gate = {"camera": "gate", "variant": "int8-sparse"}
    assert value(metrics, "edged_result_age_seconds_count", **gate) == 2
    assert value(metrics, "edged_result_age_seconds_sum", **gate) == pytest.approx(0.092)
    assert value(metrics, "edged_result_age_seconds_bucket", le="0.02", **gate) == 1
    assert value(metrics, "edged_results_late_total", camera="gate") == 1
    assert value(metrics, "edged_results_late_total", camera="yard") == 0
    assert "_created" not in generate_latest(metrics.registry).decode()


def test_without_a_daemon_only_the_gateways_own_counts_are_there() -> None:
    metrics = Metrics()
    assert value(metrics, "edged_up") == 0
    assert value(metrics, "edged_gateway_messages_total") == 0
    assert value(metrics, "edged_healthy") is None


def test_a_state_that_grows_stale_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, now_ns = Metrics(), 10**12
    monkeypatch.setattr(clock, "mono_ns", lambda: now_ns)
    metrics.take(messages.state(), Counts())
    assert value(metrics, "edged_up") == 1 and value(metrics, "edged_healthy") == 1
    assert value(metrics, "edged_gateway_lost_messages_total", cause="gap") == 4
    now_ns += int((STALE_S + 0.1) * clock.NS_PER_S)
    assert value(metrics, "edged_up") == 0 and value(metrics, "edged_healthy") is None


def test_a_restart_of_the_daemon_begins_the_counters_again() -> None:
    metrics, counts = Metrics(), Counts()
    gate = {"camera": "gate", "variant": "int8-sparse"}
    metrics.take(messages.result(), counts)
    counts.restarts = 1
    metrics.take(messages.state(), counts)
    assert value(metrics, "edged_result_age_seconds_count", **gate) is None
    assert value(metrics, "edged_gateway_daemon_restarts_total") == 1
    metrics.take(messages.result(), counts)
    assert value(metrics, "edged_result_age_seconds_count", **gate) == 1


def test_series_are_bounded_and_what_is_beyond_is_counted() -> None:
    metrics, counts = Metrics(), Counts()
    for n in range(MAX_SERIES + 3):
        metrics.take(messages.result(f"c{n}", objects=0), counts)
    assert value(metrics, "edged_gateway_lost_messages_total", cause="series_limit") == 3
    assert value(metrics, "edged_result_age_seconds_count", camera=f"c{MAX_SERIES}", variant="int8-sparse") is None
