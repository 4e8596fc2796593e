"""A broker's topics: the node, its cameras, what they see, and commands that come back; see docs/gateway.md.

States are retained and the newest is what counts, so nothing is kept for a broker that is away; events are counted as
lost. All on the gateway's thread but the commands, which have their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final

import msgspec
from paho.mqtt.client import MQTTMessage, MQTTMessageInfo
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from prometheus_client import Metric

from edged import clock
from edged.bus.schema import Event, Message, Result, State
from edged.config.mqtt import MqttConfig
from edged.config.server_url import Server
from edged.gateway.broker import Broker
from edged.gateway.forward import destination_families
from edged.gateway.home_assistant import discovery, discovery_topic
from edged.gateway.mqtt_commands import Command, Commands
from edged.gateway.mqtt_messages import Objects, camera_state, matters, node_state
from edged.gateway.part import Part
from edged.gateway.subscription import Subscription

SILENCE_NS: Final = 5 * clock.NS_PER_S
"""`state` comes once a second; after this silence the node is not available."""
SNAPSHOT_WIDTH: Final = 1280
"""Wider pictures are scaled down to this."""
_JSON: Final = msgspec.json.Encoder()


class Mqtt(Part):
    topics = ("state", "result/", "event")

    def __init__(self, config: MqttConfig, server: Server, control: str | None) -> None:
        """`control`: the daemon's endpoint for requests; None: the default. UsageError for certificates or a credential
        that cannot be used."""
        self._config, self._root = config, f"edged/{config.name}"
        self._commands = Commands(control)
        topic = f"{self._root}/command/+" if config.commands else None
        self.broker = Broker(config, server, f"{self._root}/available", topic, self._receive)
        self._unsent_events = 0
        self._session = 0  # the broker's that knows what is below
        self._available: str | None = None
        self._announced: dict[str, Any] = {}
        self._published: State | None = None
        self._matters: tuple[object, ...] = ()
        self._due_ns = self._heard_ns = 0
        self._objects = Objects()
        self._snapshots: dict[str, tuple[int, MQTTMessageInfo]] = {}  # by camera: when the next is due, the last

    def take(self, message: Message, subscription: Subscription) -> None:
        if isinstance(message, Result):
            self._objects.add(message)
            if self._config.snapshot_s is not None and self.broker.link.connected:
                self._snapshot(message, self._config.snapshot_s, subscription)
        elif isinstance(message, Event):
            if self.broker.link.connected:
                self._publish("event", message, retain=False)
            else:
                self._unsent_events += 1
        elif isinstance(message, State):
            self._heard_ns = clock.mono_ns()
            if self.broker.link.connected:
                self._state(message)

    def turn(self) -> None:
        if self.broker.link.connected and clock.mono_ns() - self._heard_ns > SILENCE_NS:
            self._begin_session()
            self._set_available("offline")

    def families(self) -> Iterator[Metric]:
        broker = self.broker
        lost = {"disconnected": self._unsent_events, "queue_full": broker.not_queued, "refused": broker.refused}
        return destination_families("mqtt", broker.link, broker.sent, lost)

    def __enter__(self) -> Mqtt:
        self.broker.start()
        if self._config.commands:
            self._commands.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._commands.stop()
        self.broker.stop()

    def _state(self, state: State) -> None:
        self._begin_session()
        self._set_available("online")
        now_ns, changed = clock.mono_ns(), matters(state)
        if changed != self._matters or now_ns >= self._due_ns:
            self._due_ns = now_ns + int(self._config.interval_s * clock.NS_PER_S)
            if self._config.discovery:
                self._announce(state)
            self._publish("state", node_state(state, self._published))
            for camera in state.cameras:
                self._publish(f"camera/{camera.camera}/state", camera_state(camera, state, self._published))
            self._forget_cameras({camera.camera for camera in state.cameras})
            self._published, self._matters = state, changed
        for name, counts in self._objects.report().items():
            self._publish(f"camera/{name}/objects", counts)

    def _forget_cameras(self, kept: set[str]) -> None:
        """Of a camera that is gone the broker keeps nothing."""
        for name in {camera.camera for camera in self._published.cameras} - kept if self._published else ():
            for topic in ("state", "objects", "snapshot"):
                self._publish(f"camera/{name}/{topic}", b"")
            self._objects.drop(name)

    def _begin_session(self) -> None:
        """A broker that was away may have lost everything."""
        if self._session != self.broker.sessions:
            self._session = self.broker.sessions
            self._available, self._announced, self._due_ns = None, {}, 0
            self._objects.forget()
            self._snapshots.clear()

    def _set_available(self, text: str) -> None:
        if text != self._available:
            self._available = text
            self._commands.list_profiles()
            self._publish("available", text.encode())

    def _announce(self, state: State) -> None:
        snapshots = self._config.snapshot_s is not None
        found = discovery(self._root, state, self._commands.profiles, self._config.commands, snapshots)
        if found != self._announced:
            before = self._announced.get("components", {})
            self._announced = found
            gone = {key: {"platform": before[key]["platform"]} for key in before.keys() - found["components"].keys()}
            found = {**found, "components": {**found["components"], **gone}}  # so Home Assistant removes an entity
            self.broker.publish(discovery_topic(self._config.name), _JSON.encode(found))

    def _snapshot(self, result: Result, every_s: float, subscription: Subscription) -> None:
        now_ns = clock.mono_ns()
        due_ns, last = self._snapshots.get(result.camera, (0, None))
        if now_ns < due_ns or (last is not None and last.rc == 0 and not last.is_published()):
            return
        from edged.gateway.jpeg import at_most, encoded  # loads OpenCV, which is for those who want pictures

        picture = subscription.frame(result)
        if picture is not None:
            sent = self._publish(f"camera/{result.camera}/snapshot", encoded(at_most(SNAPSHOT_WIDTH, picture)))
            self._snapshots[result.camera] = (now_ns + int(every_s * clock.NS_PER_S), sent)

    def _publish(self, name: str, content: object, retain: bool = True) -> MQTTMessageInfo:
        payload = content if isinstance(content, bytes) else _JSON.encode(content)
        return self.broker.publish(f"{self._root}/{name}", payload, retain)

    def _receive(self, message: MQTTMessage) -> None:
        """A command. The answer goes where it asks for, with its correlation data, else to `answer`."""
        asked = message.properties
        topic = getattr(asked, "ResponseTopic", f"{self._root}/answer")
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if (correlation := getattr(asked, "CorrelationData", None)) is not None:
            properties.CorrelationData = correlation

        def reply(answer: dict[str, Any]) -> None:
            self.broker.publish(topic, _JSON.encode(answer), retain=False, properties=properties)

        command = Command(message.topic.rpartition("/")[2], bytes(message.payload), reply)
        if message.retain:
            self._commands.refuse(command, "a retained command is not carried out", "send it without retain")
        else:
            self._commands.put(command)
