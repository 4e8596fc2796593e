"""Debian's mosquitto: started late, killed, stopped, with a password, and programs that are no broker at all."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edged import clock
from edged.bus.schema import State
from edged.config.mqtt import MqttConfig
from edged.gateway import mqtt
from edged.gateway.broker import MAX_PACKET
from edged.gateway.mqtt import Mqtt
from tests.gateway.test_forward import Counts
from tests.support import messages
from tests.support.bus import free_port, wait_for
from tests.support.certificates import make_certificate
from tests.support.mosquitto import Listener, Mosquitto
from tests.support.tcp_proxy import TcpProxy

pytestmark = pytest.mark.timeout(300)

ROOT = "edged/n1"
CONFIG = "homeassistant/device/edged_n1/config"


class Feed:
    """A gateway's part; each `second` is a state of the daemon."""

    def __init__(self, part: Mqtt) -> None:
        self.part, self.counts, self._uptime_s = part, Counts(), 0.0

    def second(self, **changes: object) -> State:
        self._uptime_s += 1
        state = msgspec.structs.replace(messages.state(), uptime_s=self._uptime_s, **changes)
        self.part.take(state, self.counts)
        self.part.turn()
        return state

    def connected(self) -> bool:
        return self.part.broker.link.connected


@contextmanager
def reporting(port: int, user: str = "", control: str | None = None, **config: object) -> Iterator[Feed]:
    scheme = "mqtts" if "ca" in config else "mqtt"
    chosen = msgspec.convert({"url": f"{scheme}://{user}127.0.0.1:{port}", "node": "n1", **config}, MqttConfig)
    assert chosen.server is not None
    with Mqtt(chosen, chosen.server, control) as part:
        assert isinstance(part, Mqtt)
        yield Feed(part)


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edged.gateway.broker.LONGEST_PAUSE_S", 1)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))


def test_a_broker_that_starts_late_and_is_killed_gets_all_topics_again(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path / "broker")
    with reporting(broker.port) as feed:
        wait_for(lambda: feed.part.broker.link.failures > 0, 20)
        feed.second()
        feed.part.take(messages.event(), feed.counts)
        for _ in range(2):
            with broker:
                wait_for(feed.connected, 30)
                with Listener(broker.port) as heard:
                    feed.part.take(messages.result(objects=3), feed.counts)
                    feed.second()
                    feed.part.take(messages.event(), feed.counts)
                    wait_for(lambda: heard.received[f"{ROOT}/event"], 20)
                    assert heard.text(f"{ROOT}/available") == "online"
                    assert heard.newest(f"{ROOT}/state")["temperature_c"] == 41.0
                    assert heard.newest(f"{ROOT}/camera/gate/state")["state"] == "live"
                    assert heard.newest(f"{ROOT}/camera/gate/objects") == {"gear": 3}
                    assert heard.newest(f"{ROOT}/event")["kind"] == "restart"
                    assert heard.newest(CONFIG)["state_topic"] == f"{ROOT}/state"
            wait_for(lambda: not feed.connected(), 30)
        lost = {s.labels["cause"]: s.value for f in feed.part.families() for s in f.samples if "cause" in s.labels}
        assert lost == {"disconnected": 1, "queue_full": 0, "refused": 0}


def test_the_last_will_and_a_proper_end_say_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        Mosquitto(tmp_path / "broker") as broker,
        Listener(broker.port) as heard,
        TcpProxy(broker.port) as link,
    ):
        with reporting(link.port) as feed:
            wait_for(feed.connected, 20)
            feed.second()
            wait_for(lambda: heard.text(f"{ROOT}/available") == "online", 20)
            monkeypatch.setattr(mqtt, "SILENCE_NS", -clock.NS_PER_S)  # the daemon says nothing
            feed.part.turn()
            wait_for(lambda: heard.text(f"{ROOT}/available") == "offline", 20)
            monkeypatch.undo()
            feed.second()
            wait_for(lambda: heard.text(f"{ROOT}/available") == "online", 20)
            link.cut()
            wait_for(lambda: heard.text(f"{ROOT}/available") == "offline", 20)
            link.connect()
            wait_for(feed.connected, 20)
            feed.second()
            wait_for(lambda: heard.text(f"{ROOT}/available") == "online", 20)
        wait_for(lambda: heard.text(f"{ROOT}/available") == "offline", 20)


def test_states_come_at_their_interval_and_at_once_when_it_matters(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path / "broker") as broker,
        Listener(broker.port) as heard,
        reporting(broker.port, interval_s=3600) as feed,
    ):
        wait_for(feed.connected, 20)
        for _ in range(3):
            feed.second()
        feed.second(profile="night")
        feed.second(profile="night")
        feed.part.take(messages.event(), feed.counts)
        wait_for(lambda: heard.received[f"{ROOT}/event"], 20)
        profiles = [json.loads(payload)["profile"] for payload in heard.received[f"{ROOT}/state"]]
        assert profiles == [None, "night"]
        assert heard.newest(f"{ROOT}/state")["results_per_s"] == 0.0, "over the three seconds between"


def test_a_camera_that_is_removed_leaves_nothing_behind(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker") as broker, reporting(broker.port) as feed:
        wait_for(feed.connected, 20)
        feed.part.take(messages.result(), feed.counts)
        feed.second()
        feed.second(cameras=[messages.status("yard")])
        feed.part.take(messages.event(), feed.counts)
        wait_for(lambda: feed.part.broker.sent >= 12, 20)
        with Listener(broker.port) as heard:
            wait_for(lambda: heard.received[f"{ROOT}/camera/yard/state"], 20)
            wait_for(lambda: heard.received[CONFIG], 20)
            assert not heard.received[f"{ROOT}/camera/gate/state"] and not heard.received[f"{ROOT}/camera/gate/objects"]
            components = heard.newest(CONFIG)["components"]
            assert components["gate_objects"] == {"platform": "sensor"}, (
                "as Home Assistant wants it to remove an entity"
            )
            assert components["yard_objects"]["state_topic"] == f"{ROOT}/camera/yard/objects"


def test_a_wrong_password_is_reported_once_and_the_right_one_heals(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "gateway.mqtt").write_text("wr0ng\n")
    with Mosquitto(tmp_path / "broker", "s3cret") as broker:
        with reporting(broker.port, "edged@") as feed:
            wait_for(lambda: feed.part.broker.link.failures > 2, 30)
        reported = [record.message for record in caplog.records]
        assert len(reported) == 1 and "not authorized: sudo edged credential set gateway.mqtt" in reported[0]
        assert "wr0ng" not in caplog.text
        (tmp_path / "gateway.mqtt").write_text("s3cret\n")
        with reporting(broker.port, "edged@") as feed:
            wait_for(feed.connected, 20)


def test_messages_that_the_broker_does_not_allow_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rules = tmp_path / "rules"
    rules.write_text("topic readwrite edged/n1/available\n")
    with Mosquitto(tmp_path / "broker", config=f"acl_file {rules}") as broker, reporting(broker.port) as feed:
        wait_for(feed.connected, 20)
        feed.second()
        wait_for(lambda: feed.part.broker.refused == 3 and feed.part.broker.sent == 1, 20)
    told = [record.message for record in caplog.records if "it refuses messages, not authorized" in record.message]
    assert len(told) == 1


# paho leaves the socket of a handshake that failed to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_tls_needs_a_certificate_that_is_vouched_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    certificate, key = make_certificate(tmp_path)
    stranger, _ = make_certificate(tmp_path / "stranger")
    with Mosquitto(tmp_path / "broker", config=f"certfile {certificate}\nkeyfile {key}") as broker:
        with reporting(broker.port, ca=str(stranger)) as feed:
            wait_for(lambda: "its certificate is not accepted, self" in caplog.text, 20)
            assert not feed.connected()
        with reporting(broker.port, ca=str(certificate)) as feed:
            wait_for(feed.connected, 20)
            feed.second()
            wait_for(lambda: feed.part.broker.sent > 3, 20)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="HTTP"),
        pytest.param(b"\x20\xff\xff\xff\x7f" + bytes(100), id="256 MB to come"),
        pytest.param(b"\x20\x02\x00\x99", id="a short CONNACK"),
        pytest.param(b"\xf0\x00" * 50, id="packets of no type"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_what_is_no_broker_is_reported_and_left_and_tried_again(
    answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    connections = 0

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.read(20)
        writer.write(answer)
        writer.close()

    async def run(port: int) -> None:
        async with await asyncio.start_server(reply, "127.0.0.1", port):
            with reporting(port) as feed:
                while connections < 3:
                    await asyncio.sleep(0.05)
                    feed.second()
                assert not feed.connected()

    asyncio.run(run(free_port()))
    assert any("mqtt at 127.0.0.1" in record.message for record in caplog.records), "it is said"
    assert all(record.levelname == "WARNING" and not record.exc_info for record in caplog.records)


def test_a_broker_that_hangs_holds_nothing_up_and_losses_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edged.gateway.broker.QUEUED", 20)
    with Mosquitto(tmp_path / "broker") as broker, reporting(broker.port, discovery=False) as feed:
        wait_for(feed.connected, 20)
        broker.signal(signal.SIGSTOP)
        for _ in range(100):
            feed.part.take(messages.event(), feed.counts)
        assert feed.part.broker.not_queued == 80
        broker.signal(signal.SIGCONT)
        wait_for(lambda: feed.part.broker.sent == 20, 30)


def test_commands_are_answered_where_they_ask_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None, dict[str, Any]]] = []

    def request(op: str, endpoint: str | None = None, **arguments: Any) -> dict[str, Any]:
        asked.append((op, endpoint, arguments))
        return {"ok": True, "profile": "night", "profiles": []}

    monkeypatch.setattr("edged.gateway.mqtt_commands.request", request)
    with (
        Mosquitto(tmp_path / "broker") as broker,
        Listener(broker.port) as heard,
        reporting(broker.port, control="ipc:///c", commands=True) as feed,
    ):
        wait_for(feed.connected, 20)
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ResponseTopic, properties.CorrelationData = "me/answer", b"42"
        send = heard.client.publish
        send(f"{ROOT}/command/pin", b"x" * (MAX_PACKET + 1), 1)  # the broker keeps it
        send(f"{ROOT}/command/profile", b"night", 1)
        wait_for(lambda: heard.received[f"{ROOT}/answer"], 20)
        answer = {"command": "profile", "payload": "night", "ok": True, "profile": "night", "profiles": []}
        assert heard.newest(f"{ROOT}/answer") == answer
        send(f"{ROOT}/command/limit", b'{"power_w": null}', 1, properties=properties)
        wait_for(lambda: heard.received["me/answer"], 20)
        assert heard.properties["me/answer"].CorrelationData == b"42"
        send(f"{ROOT}/command/reboot", b"now", 1)
        wait_for(lambda: len(heard.received[f"{ROOT}/answer"]) == 2, 20)
        assert heard.newest(f"{ROOT}/answer")["error"] == "there is no command 'reboot'"
        assert [one for one in asked if one[0] != "profile" or one[2]] == [
            ("profile", "ipc:///c", {"name": "night"}), ("set", "ipc:///c", {"power_w": None}),
        ]  # fmt: skip


def test_a_command_that_the_broker_kept_is_refused_and_none_is_taken_unasked(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker") as broker, Listener(broker.port) as heard:
        heard.client.publish(f"{ROOT}/command/pin", b"fp16", 1, retain=True)
        wait_for(lambda: heard.received[f"{ROOT}/command/pin"], 20)
        with reporting(broker.port, commands=True):
            wait_for(lambda: heard.received[f"{ROOT}/answer"], 20)
            assert "retained" in heard.newest(f"{ROOT}/answer")["error"]
        with reporting(broker.port) as feed:
            wait_for(feed.connected, 20)
            heard.client.publish(f"{ROOT}/command/pin", b"fp16", 1)
            feed.part.take(messages.event(), feed.counts)
            wait_for(lambda: heard.received[f"{ROOT}/event"], 20)
            assert len(heard.received[f"{ROOT}/answer"]) == 1
