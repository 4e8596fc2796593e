"""A subscription finds a daemon that starts later, keeps its counts, and sees restarts."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import zmq

from edged.bus.publisher import Publisher
from edged.bus.schema import State
from edged.gateway.subscription import Subscription
from tests.support import messages
from tests.support.bus import endpoint_in, publishing, wait_for


def state_arrives(subscription: Subscription, publisher: Publisher, pid: int) -> bool:
    """A state of this daemon: one of the daemon before may still have been on its way."""
    publisher.publish(messages.state(pid))
    state = subscription.receive(0.1)
    return isinstance(state, State) and state.pid == pid


def test_it_starts_without_the_daemon_and_sees_its_restart(tmp_path: Path) -> None:
    endpoint = endpoint_in(tmp_path)
    with Subscription(endpoint, None, ["state"]) as subscription:
        assert subscription.receive(0.01) is None
        for restarts in (0, 1):
            with publishing(endpoint) as publisher:
                wait_for(functools.partial(state_arrives, subscription, publisher, restarts + 1))
            assert subscription.restarts == restarts


def test_another_daemon_is_found_and_the_counts_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir(mode=0o700)
    monkeypatch.setattr("edged.gateway.subscription.find_results_endpoint", lambda: endpoint_in(first))
    with Subscription(None, None, ["state"]) as subscription:
        with zmq.Context() as context, context.socket(zmq.XPUB) as sender:
            sender.bind(endpoint_in(first))
            assert sender.poll(5000)
            sender.send_multipart([b"state", b"garbage"])
            wait_for(lambda: subscription.receive(0.05) is None and subscription.lost["invalid"] == 1)
        monkeypatch.setattr("edged.gateway.subscription.find_results_endpoint", lambda: endpoint_in(second))
        with publishing(endpoint_in(second)) as publisher:
            wait_for(lambda: state_arrives(subscription, publisher, 1))
        assert subscription.endpoint == endpoint_in(second)
        assert subscription.lost["invalid"] == 1
        assert subscription.restarts == 0, "the first endpoint never had a daemon that was understood"
