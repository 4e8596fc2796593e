"""TOML -> frozen structs; every error names the file, the key, the value, what was expected and how to mend it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
Positive = Annotated[float, Meta(gt=0)]


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """The contract. `deadline_ms` counts from capture to publish; `min_accuracy` is in the bundle's metric, 0..1.

    Power, energy and temperature are absent (None) unless set.
    """

    deadline_ms: Annotated[float, Meta(gt=0, le=60_000)] = 50.0
    deadline_quantile: Annotated[float, Meta(ge=0.5, lt=1.0)] = 0.99
    power_w: Annotated[float, Meta(gt=0, le=1000)] | None = None
    power_window_s: Annotated[float, Meta(gt=0, le=3600)] = 10.0
    energy_wh: Annotated[float, Meta(gt=0)] | None = None
    energy_horizon_h: Annotated[float, Meta(gt=0, le=24 * 366)] = 24.0
    temperature_c: Annotated[float, Meta(gt=0, le=120)] | None = None
    min_accuracy: Annotated[float, Meta(ge=0, le=1)] = 0.0


class PowerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    provider: Literal["auto", "host"] = "auto"
    interval_s: Annotated[float, Meta(ge=0.1, le=10)] = 1.0


class BusConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Endpoints; None means the default under the runtime directory. `tcp://` needs both CURVE keys."""

    results: str | None = None
    control: str | None = None
    curve_secret_key: str | None = None
    """file made by `zmq.auth.create_certificates`: NAME.key_secret"""
    curve_clients: str | None = None
    """directory of the public keys (*.key) of the clients that may connect"""


class EngineConfig(Struct, frozen=True, forbid_unknown_fields=True):
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Meta(ge=1, le=64)] = 1
    max_batch: Annotated[int, Meta(ge=1, le=64)] = 4


class CameraConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`fps` caps the rate (None: every frame the camera gives). `weight` is how much its accuracy counts."""

    name: Name
    source: Annotated[str, Meta(min_length=1, max_length=2000)]
    fps: Annotated[float, Meta(gt=0, le=1000)] | None = None
    weight: Annotated[float, Meta(gt=0, le=1000)] = 1.0
    decoder: Literal["software", "hardware"] = "software"


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole configuration; `camera` is the list of `[[camera]]` tables."""

    bundle: str
    limits: Limits = Limits()
    power: PowerConfig = PowerConfig()
    bus: BusConfig = BusConfig()
    engine: EngineConfig = EngineConfig()
    camera: list[CameraConfig] = []
