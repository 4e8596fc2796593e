"""Debian's nats-server with JetStream: late, killed, stopped, full, beyond a cut link. Each message is there once."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, ExternalStream, StreamConfig, StreamSource

from edged.bus.schema import Detection, Event, Message, Result
from edged.config.forward import NatsConfig
from edged.gateway.nats import WINDOW, Nats
from tests.gateway.test_forward import Counts
from tests.support import messages
from tests.support.bus import free_port, wait_for
from tests.support.certificates import make_certificate
from tests.support.nats_server import NatsServer
from tests.support.tcp_proxy import TcpProxy

pytestmark = pytest.mark.timeout(300)


class Feed:
    """A gateway's part with a daemon that is a loop."""

    def __init__(self, part: Nats) -> None:
        self.part, self.count, self._counts = part, 0, Counts()
        part.take(messages.state(), self._counts)

    def events(self, count: int, text: str = "") -> None:
        for _ in range(count):
            self.count += 1
            self.put(msgspec.structs.replace(messages.event(), seq=self.count, text=text))

    def put(self, message: Message) -> None:
        self.part.take(message, self._counts)

    def done(self) -> bool:
        return self.part.sent == self.count and self.part.spool.messages == 0


@contextmanager
def feeding(port: int, **config: object) -> Iterator[Feed]:
    url = f"{'tls' if 'ca' in config else 'nats'}://{config.pop('user', '')}127.0.0.1:{port}"
    chosen = msgspec.convert({"url": url, "subject": "edged.n1", "what": ["result", "event"], **config}, NatsConfig)
    assert chosen.server is not None
    with Nats(chosen, chosen.server) as part:
        assert isinstance(part, Nats)
        yield Feed(part)


@pytest.fixture(autouse=True)
def state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))


def stored_ids(server: NatsServer, stream: str = "EDGED") -> list[str]:
    async def fetch(context: JetStreamContext) -> list[str]:
        state = (await context.stream_info(stream)).state
        subscription = await context.subscribe("", stream=stream, ordered_consumer=True)
        return [json.loads((await subscription.next_msg(60)).data)["id"] for _ in range(state.messages)]

    return server.ask(fetch)


def test_a_server_that_starts_late_and_is_killed_gets_each_message_once(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "server")
    with feeding(server.port) as feed:
        feed.events(100)
        wait_for(lambda: feed.part.spool.messages == 100, 20)
        assert not feed.part.link.connected
        with server:
            wait_for(feed.done, 30)
            for _ in range(2):
                feed.events(1000)
                wait_for(lambda: feed.part.sent > feed.count - 1000, 20)
                server.signal(signal.SIGKILL)
                feed.events(500)
                server.start()
                wait_for(feed.done, 60)
            assert stored_ids(server) == [f"run1234/event/{n}" for n in range(1, 3101)]
    assert feed.part.intake.lost["queue_full"] == 0


def test_messages_whose_acknowledgement_was_lost_are_not_sent_again(tmp_path: Path) -> None:
    """Also after the server has forgotten their ids, which it does two minutes later and here at once."""

    async def make(context: JetStreamContext) -> None:
        await context.add_stream(StreamConfig(name="EDGED", subjects=["edged.n1.>"], duplicate_window=0.1))

    with NatsServer(tmp_path / "server") as server, TcpProxy(server.port) as link:
        server.ask(make)
        with feeding(link.port) as feed:
            feed.events(50)
            wait_for(feed.done, 30)
            link.answers = False
            feed.events(WINDOW + 50)
            wait_for(lambda: server.messages() == 50 + WINDOW, 30)
            link.cut()
            wait_for(lambda: not feed.part.link.connected, 30)
            link.connect()
            wait_for(feed.done, 60)
        assert stored_ids(server) == [f"run1234/event/{n}" for n in range(1, 101 + WINDOW)]


def test_what_a_stopped_gateway_has_not_sent_goes_out_later(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "server")
    with feeding(server.port) as feed:
        feed.events(10)
    with server, feeding(server.port) as again:
        wait_for(lambda: again.part.sent == 10 and again.part.spool.messages == 0, 30)
        assert stored_ids(server) == [f"run1234/event/{n}" for n in range(1, 11)]


def test_a_wrong_password_is_reported_once_and_the_right_one_heals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setattr("edged.gateway.forward.LONGEST_PAUSE_S", 0.1)
    (tmp_path / "gateway.nats").write_text("wr0ng\n")
    config = 'authorization { users: [{user: "edge", password: "s3cret"}] }'
    with NatsServer(tmp_path / "server", config) as server:
        with feeding(server.port, user="edge@") as feed:
            feed.events(3)
            wait_for(lambda: "password is wrong" in caplog.text, 20)
            failures = feed.part.link.failures
            wait_for(lambda: feed.part.link.failures > failures + 2, 20)
        reported = [record.message for record in caplog.records]
        assert len(reported) == 1 and "edged credential set gateway.nats" in reported[0]
        assert "wr0ng" not in caplog.text
        (tmp_path / "gateway.nats").write_text("s3cret\n")
        with feeding(server.port, user="edge@") as feed:
            wait_for(lambda: feed.part.sent == 3, 30)
        assert server.messages(user="edge", password="s3cret") == 3


# nats-py leaves the socket of a handshake that failed to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_tls_needs_a_certificate_that_is_vouched_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    certificate, key = make_certificate(tmp_path)
    stranger, _ = make_certificate(tmp_path / "stranger")
    with NatsServer(tmp_path / "server", f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}') as server:
        with feeding(server.port, ca=str(stranger)) as feed:
            feed.events(2)
            wait_for(lambda: "its certificate is not accepted, self" in caplog.text, 20)
        with feeding(server.port, ca=str(certificate)) as feed:
            wait_for(lambda: feed.part.sent == 2, 30)


def test_a_stream_without_room_gets_all_when_it_has_room(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    full = StreamConfig(name="EDGED", subjects=["edged.n1.>"], max_msgs=20, discard=DiscardPolicy.NEW)

    async def make(context: JetStreamContext) -> None:
        await context.add_stream(full)

    async def grow(context: JetStreamContext) -> None:
        await context.update_stream(full.evolve(max_msgs=1000))

    with NatsServer(tmp_path / "server") as server:
        server.ask(make)
        with feeding(server.port) as feed:
            feed.events(50)
            wait_for(lambda: "the stream EDGED takes no message: maximum messages exceeded" in caplog.text, 30)
            assert feed.part.spool.messages == 30
            server.ask(grow)
            wait_for(feed.done, 60)
        assert sorted(stored_ids(server)) == sorted(f"run1234/event/{n}" for n in range(1, 51))


def test_another_stream_with_the_subject_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def make(context: JetStreamContext) -> None:
        await context.add_stream(StreamConfig(name="EDGED", subjects=["else"]))
        await context.add_stream(StreamConfig(name="OTHER", subjects=["edged.>"]))

    with NatsServer(tmp_path / "server") as server, feeding(server.port) as feed:
        wait_for(lambda: feed.part.link.connected, 20)
        server.ask(lambda context: context.delete_stream("EDGED"))
        server.ask(make)
        feed.events(3)
        wait_for(lambda: "the stream EDGED takes no message: the stream OTHER takes them" in caplog.text, 30)
        assert feed.part.spool.messages == 3 and feed.part.sent == 0


def test_a_message_that_is_too_large_is_counted_and_holds_up_no_other(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "server") as server, feeding(server.port) as feed:
        feed.put(Event(kind="x", text="y" * 1_100_000, seq=1))
        feed.events(5)
        wait_for(lambda: feed.part.sent == 5 and feed.part.spool.messages == 0, 30)
        assert feed.part.refused == 1
        lost = {
            sample.labels["cause"]: sample.value
            for family in feed.part.families() if family.name == "edged_gateway_unsent_messages"
            for sample in family.samples
        }  # fmt: skip
        assert lost == {"queue_full": 0, "spool_full": 0, "disk": 0, "refused": 1}


def test_a_server_that_answers_garbage_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 3)
        writer.close()

    async def run(port: int) -> None:
        async with await asyncio.start_server(garbage, "127.0.0.1", port):
            with feeding(port) as feed:
                feed.events(1)
                while not (feed.part.link.failures and feed.part.spool.messages):
                    await asyncio.sleep(0.05)

    asyncio.run(run(free_port()))
    assert len(caplog.records) == 1 and caplog.records[0].levelname == "WARNING"


def result(seq: int) -> Result:
    """One of eight objects, in numbers as a model gives them."""
    draw = random.Random(seq)
    found = [
        Detection(draw.choice(("bolt", "gear", "washer")), 1, draw.random(), tuple(draw.random() * 999 for _ in "xyxy"))  # type: ignore[arg-type]
        for _ in range(8)
    ]
    changes = {"seq": seq, "detections": found, "t_capture": 1.79e9 + draw.random(), "energy_mj": draw.random()}
    return msgspec.structs.replace(messages.result(), **changes)


@pytest.mark.slow
def test_ten_minutes_of_four_cameras_fit_into_64_mb(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "server") as server, TcpProxy(server.port) as link, feeding(link.port) as feed:
        feed.events(1)
        wait_for(feed.done, 30)
        link.cut()
        for n in range(2, 10 * 60 * 60 + 1):
            feed.put(result(n))
            feed.count += 1
            if n % 1000 == 0:
                wait_for(lambda: feed.part.spool.messages >= n - 1, 60)  # noqa: B023
        assert 2e7 < feed.part.spool.used_bytes < 6.4e7
        link.connect()
        wait_for(feed.done, 200)
        assert set(feed.part.spool.dropped.values()) == {0} and feed.part.intake.lost["queue_full"] == 0
        assert server.messages() == 36_000


@pytest.mark.slow
def test_a_leaf_keeps_what_the_hub_fetches_later(tmp_path: Path) -> None:
    """edged sends to the leaf beside it; the way from there to the hub is cut meanwhile, and the leaf is killed."""
    port = free_port()
    hub = NatsServer(tmp_path / "hub", f'server_name: hub\nleafnodes {{ listen: "127.0.0.1:{port}" }}', "hub")
    with hub, TcpProxy(port) as link:
        remote = f'server_name: leaf\nleafnodes {{ reconnect: 1, remotes: [{{url: "nats://127.0.0.1:{link.port}"}}] }}'
        leaf = NatsServer(tmp_path / "leaf", remote, "leaf")
        with leaf, feeding(leaf.port) as feed:
            feed.events(100)
            wait_for(feed.done, 30)

            async def fetch(context: JetStreamContext) -> None:
                source = StreamSource(name="EDGED", external=ExternalStream(api="$JS.leaf.API"))
                await context.add_stream(StreamConfig(name="ALL", sources=[source]))

            hub.ask(fetch)
            wait_for(lambda: hub.messages("ALL") == 100, 60)
            link.cut()
            feed.events(2000)
            wait_for(feed.done, 60)
            leaf.signal(signal.SIGKILL)
            feed.events(1000)
            leaf.start()
            wait_for(feed.done, 60)
            assert hub.messages("ALL") == 100
            link.connect()
            wait_for(lambda: hub.messages("ALL") == 3100, 120)
            assert stored_ids(hub, "ALL") == [f"run1234/event/{n}" for n in range(1, 3101)]
