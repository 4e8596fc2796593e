"""Debian's mosquitto, which can be killed, stopped and started again; and a client that keeps what it receives."""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from pathlib import Path
from types import TracebackType
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.programs import LocalServer


class Mosquitto(LocalServer):
    """`with Mosquitto(tmp_path) as broker:`. It keeps nothing on disk. `password`: of the user edged, the only one."""

    def __init__(self, directory: Path, password: str | None = None, config: str = "") -> None:
        super().__init__("mosquitto", directory)
        access = "allow_anonymous true"
        if password is not None:
            users = directory / "users"
            make = ["mosquitto_passwd", "-b", "-c", str(users), "edged", password]
            subprocess.run(make, check=True, capture_output=True, timeout=60)
            users.chmod(0o644)
            directory.chmod(0o755)
            access = f"allow_anonymous false\npassword_file {users}"
        self.config.write_text(f"listener {self.port} 127.0.0.1\nuser root\n{access}\n{config}\n")


class Listener:
    """`with Listener(broker.port) as heard: heard.newest("edged/n1/state")`"""

    def __init__(self, port: int, user: str | None = None, password: str | None = None) -> None:
        self.received: defaultdict[str, list[bytes]] = defaultdict(list)
        self.properties: dict[str, Any] = {}
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self.client.username_pw_set(user, password)
        self.client.on_message = self._on_message
        self.client.connect("127.0.0.1", port)
        self.client.subscribe("#", qos=1)

    def newest(self, topic: str) -> Any:
        """As JSON; None if nothing has come."""
        return json.loads(self.received[topic][-1]) if self.received[topic] else None

    def text(self, topic: str) -> str:
        return self.received[topic][-1].decode() if self.received[topic] else ""

    def __enter__(self) -> Listener:
        self.client.loop_start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def _on_message(self, client: paho.Client, data: object, message: paho.MQTTMessage) -> None:
        self.received[message.topic].append(bytes(message.payload))
        self.properties[message.topic] = message.properties
