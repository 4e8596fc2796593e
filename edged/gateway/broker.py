"""The connection to an MQTT 5 broker: paho's client, whose loop and reconnect run on a thread of their own.

`publish` hands over to a bounded queue and never waits; any thread. What a broker sends is not trusted: it does not end
the loop, and larger packets than MAX_PACKET are not let in.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edged.config.mqtt import MQTT_CREDENTIAL, MqttConfig
from edged.config.server_url import Server
from edged.credentials import find_credential
from edged.gateway.forward import Link, reason_of, tls_context
from edged.worker import Worker

log = logging.getLogger(__name__)

KEEPALIVE_S: Final = 30
LONGEST_PAUSE_S: Final = 60
QUEUED: Final = 256
"""Messages that wait for a broker that is slow."""
MAX_PACKET: Final = 64 * 1024
STOP_S: Final = 2.0

Receiver = Callable[[paho.MQTTMessage], None]


class Broker:
    """`available` is a topic of online and offline; the broker itself says offline when the connection is lost."""

    def __init__(
        self,
        config: MqttConfig,
        server: Server,
        available: str,
        topic: str | None,
        receive: Callable[[paho.MQTTMessage], None],
    ) -> None:
        """`receive` gets the messages of `topic`, on paho's thread. UsageError for certificates or a credential that
        cannot be used."""
        self.link = Link(f"mqtt at {server}")
        self.sent = self.refused = self.not_queued = 0
        self.sessions = 0
        """connections so far; a broker that was away may have lost everything"""
        self._server, self._available, self._topic, self._receive = server, available, topic, receive
        self._refused = False
        self._client = self._make_client(config)
        self._worker = Worker("gateway.mqtt", self._loop)

    def start(self) -> None:
        self._connect()
        self._worker.start()

    def stop(self) -> None:
        if self.link.connected:
            last = self.publish(self._available, b"offline")
            if last.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
                last.wait_for_publish(STOP_S)
        self._worker.stopping.set()
        self._client.disconnect()
        self._worker.stop(STOP_S)

    def publish(
        self, topic: str, payload: bytes, retain: bool = True, properties: Properties | None = None
    ) -> paho.MQTTMessageInfo:
        info = self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        self.not_queued += info.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE
        return info

    def _make_client(self, config: MqttConfig) -> paho.Client:
        client = paho.Client(CallbackAPIVersion.VERSION2, f"edged-{config.name}", protocol=paho.MQTTv5)
        if self._server.user is not None:
            client.username_pw_set(self._server.user, find_credential(MQTT_CREDENTIAL))
        if self._server.tls:
            client.tls_set_context(tls_context(config.ca))
        client.will_set(self._available, b"offline", qos=1, retain=True)
        client.max_queued_messages_set(QUEUED)
        client.reconnect_delay_set(1, LONGEST_PAUSE_S)
        client.on_pre_connect = self._on_pre_connect
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = lambda client, data, message: self._receive(message)
        # Without it publish() would write to the socket itself, and not leave that to the loop's thread.
        client.on_socket_register_write = lambda *_: None
        return client

    def _connect(self) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.MaximumPacketSize = MAX_PACKET
        self._client.connect_async(self._server.host, self._server.port, KEEPALIVE_S, properties=properties)

    def _loop(self) -> None:
        try:
            self._client.loop_forever(retry_first_connection=True)
        except Exception as error:  # paho takes a broker's word for much, and its loop must not end by it
            self.link.down(f"it sends what is no MQTT ({type(error).__name__})")
        if not self._worker.stopping.wait(1.0):
            self._connect()

    def _on_pre_connect(self, client: paho.Client, data: object) -> None:
        self._refused = False

    def _on_connect_fail(self, client: paho.Client, data: object) -> None:
        error = sys.exc_info()[1]  # paho calls this while it handles the error
        self.link.down("it is not reached" if error is None else reason_of(error))

    def _on_connect(
        self, client: paho.Client, data: object, flags: paho.ConnectFlags, code: ReasonCode, more: Properties | None
    ) -> None:
        if code.is_failure:
            self._refused = True
            wrong = code.getName() in ("Not authorized", "Bad user name or password")
            hint = f": sudo edged credential set {MQTT_CREDENTIAL}" if wrong else ""
            self.link.down(f"it refuses the connection, {str(code).lower()}{hint}")
            return
        if self._topic is not None:
            client.subscribe(self._topic, qos=1)
        self.sessions += 1
        self.link.up()

    def _on_disconnect(
        self, client: paho.Client, data: object, flags: paho.DisconnectFlags, code: ReasonCode, more: Properties | None
    ) -> None:
        if code.is_failure and not self._refused:
            self.link.down(f"the connection has ended, {str(code).lower()}")

    def _on_publish(self, client: paho.Client, data: object, number: int, code: ReasonCode, more: Properties) -> None:
        if not code.is_failure:
            self.sent += 1
            return
        if self.refused == 0:
            log.warning("mqtt at %s: it refuses messages, %s; its access rules decide", self._server, str(code).lower())
        self.refused += 1
