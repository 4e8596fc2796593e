"""The table [mqtt] of the configuration: the broker that `edged gateway` reports to. Pure data, any thread."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from edged.config.forward import CaFile, Url, host_name
from edged.config.server_url import Server, server_of

MQTT_CREDENTIAL: Final = "gateway.mqtt"
_SCHEMES: Final = {"mqtt": (False, 1883), "mqtts": (True, 8883)}


class MqttConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`url` None: there is no broker. All topics begin with `edged/NODE/`. `ca`: certificates that vouch for the
    broker, in place of the system's."""

    url: Url | None = None
    node: (
        Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z", description="1 to 64 letters, digits, _ or -")] | None
    ) = None
    """None: this machine's name"""
    interval_s: Annotated[float, Meta(ge=1, le=3600, description="seconds, from 1 to 3600")] = 10.0
    """between two states; a change of what matters is sent at once"""
    snapshot_s: Annotated[float, Meta(ge=1, le=86400, description="seconds, from 1 to 86400")] | None = None
    """between two pictures of a camera; None: no picture leaves the device"""
    commands: bool = False
    """whoever may write to the broker's topics may change profile, pin and limits"""
    discovery: bool = True
    """for Home Assistant"""
    ca: CaFile | None = None

    @property
    def server(self) -> Server | None:
        """UsageError if `url` is none."""
        return None if self.url is None else server_of(self.url, "mqtt.url", _SCHEMES, MQTT_CREDENTIAL)

    @property
    def name(self) -> str:
        """The node's."""
        return self.node or host_name()
