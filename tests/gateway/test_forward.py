"""The intake: what is taken, under which name, also over a restart of the daemon; bounded while nobody empties it."""

from __future__ import annotations

import json
import logging
from collections import Counter
from typing import ClassVar

import msgspec
import pytest

from edged.bus.schema import Message
from edged.gateway.forward import LONGEST_PAUSE_S, QUEUE_MESSAGES, Intake, Link
from edged.gateway.subscription import Subscription
from tests.support import messages


class Counts(Subscription):
    """Without a socket."""

    restarts = 0
    lost: ClassVar = Counter()

    def __init__(self) -> None:
        """No daemon."""


def numbered(message: Message, seq: int) -> Message:
    return msgspec.structs.replace(message, seq=seq)


def test_messages_are_json_with_their_name_and_topic() -> None:
    intake, counts = Intake(["track", "event"]), Counts()
    for message in (messages.state(7), messages.result(), numbered(messages.track(), 3), messages.telemetry()):
        intake.put(message, counts)
    (only,) = intake.take()
    assert (only.topic, only.id) == ("track/gate", "run7/track/gate/3")
    content = json.loads(only.payload)
    assert list(content)[:2] == ["id", "topic"]
    assert content["id"] == only.id and content["kind"] == "cross" and content["seq"] == 3
    assert intake.take() == []


def test_after_a_restart_names_wait_for_the_new_run() -> None:
    intake, counts = Intake(["event"]), Counts()
    intake.put(numbered(messages.event(), 1), counts)
    assert intake.take() == [], "no state yet"
    intake.put(messages.state(1), counts)
    intake.put(numbered(messages.event(), 2), counts)
    counts.restarts = 1
    intake.put(numbered(messages.event(), 1), counts)
    assert [item.id for item in intake.take()] == ["run1/event/1", "run1/event/2"]
    intake.put(messages.state(2), counts)
    assert [item.id for item in intake.take()] == ["run2/event/1"]


def test_both_queues_are_bounded_and_counted() -> None:
    intake, counts = Intake(["event"]), Counts()
    for n in range(QUEUE_MESSAGES + 5):
        intake.put(numbered(messages.event(), n), counts)
    assert intake.lost["queue_full"] == 5
    intake.put(messages.state(1), counts)
    intake.put(numbered(messages.event(), 0), counts)
    assert intake.lost["queue_full"] == 6
    assert len(intake.take()) == QUEUE_MESSAGES


def test_a_link_reports_each_change_once_and_waits_longer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    link = Link("nats at host")
    pauses = [link.down("connection refused") for _ in range(12)]
    link.up()
    link.up()
    assert [record.message for record in caplog.records] == [
        "nats at host: connection refused; trying again",
        "nats at host is reached",
    ]
    assert 0.5 <= pauses[0] <= 1 and LONGEST_PAUSE_S / 2 <= pauses[-1] <= LONGEST_PAUSE_S
    assert link.down("connection refused") <= 1
