"""TOML -> frozen structs; every error names the file, key, value, what was expected and how to fix it.

Paths in, one frozen Config out. Any thread. Here are the tables of the daemon; those of the schedule, the bus and the
gateway are in modules of their own.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from edged.config.bus import BusConfig, check_bus
from edged.config.forward import NatsConfig, WebhookConfig
from edged.config.metrics import MetricsConfig, check_metrics
from edged.config.mqtt import MqttConfig
from edged.config.schedule import ScheduleConfig, check_schedule
from edged.config.server_url import check_server
from edged.config.web import WebConfig, check_web
from edged.errors import UsageError
from edged.picture_view import Aspect, Crop, Rotation, check_view
from edged.regions import CameraMotion, Line, ObjectFilter, Polygon, Tiles, Zone, check_regions
from edged.toml_file import read_toml
from edged.uri import is_plain_path
from edged.validate import convert

DEFAULT_PATH = Path("/etc/edged/edged.toml")

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,31}\Z"  # \Z, since $ would let a line break in at the end
NAME_IS = "1 to 32 lower-case letters, digits, - or _, beginning with a letter or digit"
MAX_NAME = 40  # characters of a wrong name that a message shows
Name = Annotated[str, Meta(pattern=NAME_PATTERN, description=NAME_IS)]
CredentialName = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z",
        description="the name of a credential: lower-case letters, digits, . - or _, at most 64",
    ),
]
DeadlineMs = Annotated[float, Meta(ge=0.1, le=60_000, description="milliseconds, from 0.1 to 60000")]
DeadlineQuantile = Annotated[float, Meta(ge=0.5, lt=1.0, description="a fraction from 0.5 to below 1")]
PowerW = Annotated[float, Meta(ge=0.001, le=1000, description="watts, from 0.001 to 1000")]
Watts = Annotated[float, Meta(ge=0, le=1e5, description="watts, from 0 to 100000")]
PowerWindowS = Annotated[float, Meta(ge=0.1, le=3600, description="seconds, from 0.1 to 3600")]
EnergyWh = Annotated[float, Meta(ge=1e-6, le=1e9, description="watt-hours, from 0.000001 to 1e9")]
EnergyHorizonH = Annotated[float, Meta(ge=1e-4, le=24 * 366, description="hours, from 0.0001 to 8784")]
TemperatureC = Annotated[float, Meta(ge=1, le=120, description="degrees Celsius, from 1 to 120")]
ModeName = Annotated[str, Meta(min_length=1, max_length=64, description="the name of a power mode")]
MinFps = Annotated[float, Meta(ge=0, le=60, description="frames per second, from 0 to 60")]
MemoryMb = Annotated[float, Meta(ge=1, le=1e7, description="megabytes, from 1 to 10000000")]
CameraFps = Annotated[float, Meta(ge=0.001, le=1000, description="frames per second, from 0.001 to 1000")]
CameraWeight = Annotated[float, Meta(ge=0.001, le=1000, description="a number from 0.001 to 1000")]
MinAccuracy = Annotated[float, Meta(ge=0, le=1, description="a fraction from 0 to 1")]


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """The contract. `deadline_ms` counts from capture to publish; `min_accuracy` is in the bundle's metric, 0..1.

    Power, energy, temperature and memory are absent (None) unless set.
    """

    deadline_ms: DeadlineMs = 50.0
    deadline_quantile: DeadlineQuantile = 0.99
    power_w: PowerW | None = None
    power_window_s: PowerWindowS = 10.0
    energy_wh: EnergyWh | None = None
    energy_horizon_h: EnergyHorizonH = 24.0
    temperature_c: TemperatureC | None = None
    min_accuracy: MinAccuracy = 0.0
    min_fps: MinFps = 0.2
    """frames per second that each camera gets whatever power, energy or heat say; 0: none"""
    memory_mb: MemoryMb | None = None
    """of the daemon's process and its engines; decides which variants are loaded"""


class PowerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    provider: Literal["auto", "host", "sysfs", "jtop", "nvml", "simulated"] = "auto"
    interval_s: Annotated[float, Meta(ge=0.1, le=10, description="seconds, from 0.1 to 10")] = 1.0
    jtop_socket: Annotated[str, Meta(pattern=r"^/", description="an absolute path, in quotes")] = "/run/jtop.sock"
    clock_control: bool = False
    battery_last_h: Annotated[float, Meta(gt=0, le=24 * 31, description="hours, above 0 and at most 744")] | None = None
    """the battery must not be empty before so many hours have passed, again and again from the start"""
    battery_harvest_w: Annotated[list[Watts], Meta(max_length=744, description="at most 744 watts")] = []
    """mean watts that a panel or a charger is expected to supply in each equal part of battery_last_h"""
    simulated_device: Literal["orin-nano", "orin-nx", "agx-orin"] = "orin-nano"
    """whose watts and degrees the provider "simulated" makes up"""


class RecordConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What was seen and decided, as a ring of files. Path None: in the service's state directory, if there is one."""

    path: Annotated[str, Meta(min_length=1, description="the path of a directory, in quotes")] | None = None
    max_mb: Annotated[
        float, Meta(ge=0, le=1e6, description="megabytes for all files together, 0 to record nothing")
    ] = 200.0


class EngineConfig(Struct, frozen=True, forbid_unknown_fields=True):
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = "auto"
    threads: Annotated[int, Meta(ge=1, le=64, description="a whole number from 1 to 64")] = 1
    max_batch: Annotated[int, Meta(ge=1, le=64, description="a whole number from 1 to 64")] = 4


class CameraConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`fps` caps the rate (None: every frame the camera gives), and says how slow a camera is that does not say so.
    `weight` is how much its accuracy counts.

    `password_credential` is the name of the credential with the password of the user in `source`; None: camera.NAME,
    if there is one. `transport` is that of RTSP. `aspect` is the shape of the camera's picture ("16:9"), `rotate` turns
    it clockwise; None: as the camera signals. `crop` keeps a part of what is then shown: left, top, right, bottom as
    shares. `poll_s`: the URL gives one JPEG, to be fetched that often.
    """

    name: Name
    source: Annotated[str, Meta(min_length=1, max_length=2000, description="a URI in quotes, at most 2000 characters")]
    fps: CameraFps | None = None
    weight: CameraWeight = 1.0
    decoder: Literal["software", "hardware"] = "software"
    password_credential: CredentialName | None = None
    transport: Literal["tcp", "udp"] = "tcp"
    aspect: Aspect | None = None
    rotate: Rotation | None = None
    crop: Crop | None = None
    poll_s: Annotated[float, Meta(ge=0.1, le=3600, description="seconds, from 0.1 to 3600")] | None = None
    tiles: Tiles | None = None
    """how many overlapping tiles a frame is looked at in, time permitting"""
    track: bool = False
    """follow objects; zones and lines do so too"""
    zones: dict[Name, Zone] = {}
    lines: dict[Name, Line] = {}
    mask: list[Polygon] = []
    """objects whose bottom centre lies in one of these do not count"""
    objects: dict[str, ObjectFilter] = {}
    """by label: which of its detections count"""
    motion: CameraMotion = CameraMotion()

    @property
    def tracked(self) -> bool:
        """Whether its objects get identities."""
        return self.track or bool(self.zones) or bool(self.lines)

    @property
    def grid(self) -> tuple[int, int] | None:
        """Columns and rows of its tiles; None: frames are looked at as a whole."""
        if self.tiles is None:
            return None
        columns, rows = self.tiles.split("x")
        return int(columns), int(rows)

    def same_stream(self, other: CameraConfig) -> bool:
        """Whether they differ in nothing but `fps`, `weight` and `tiles`, which a running camera takes."""
        return msgspec.structs.replace(self, fps=other.fps, weight=other.weight, tiles=other.tiles) == other


class SnapshotConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The best JPEG of each tracked object. Path None: none are taken."""

    path: Annotated[str, Meta(min_length=1, description="the path of a directory, in quotes")] | None = None
    max_mb: Annotated[float, Meta(gt=0, le=1e6, description="megabytes for all files together, above 0")] = 500.0
    keep_days: Annotated[float, Meta(gt=0, le=3660, description="days, above 0 and at most 3660")] = 7.0


class MotionConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether frames in which nothing moves are left out. "auto": while a limit on power or energy is set."""

    gate: Literal["auto", "on", "off"] = "auto"


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole configuration; `camera` is the list of `[[camera]]` tables."""

    bundle: Annotated[str, Meta(min_length=1, description="the path of a bundle directory, in quotes")]
    limits: Limits = Limits()
    power: PowerConfig = PowerConfig()
    bus: BusConfig = BusConfig()
    engine: EngineConfig = EngineConfig()
    camera: list[CameraConfig] = []
    record: RecordConfig = RecordConfig()
    motion: MotionConfig = MotionConfig()
    snapshots: SnapshotConfig = SnapshotConfig()
    metrics: MetricsConfig = MetricsConfig()
    schedule: ScheduleConfig = {}
    """by local time, the power profile from then on; at the start too, in place of `profile`"""
    web: WebConfig = WebConfig()
    mqtt: MqttConfig = MqttConfig()
    nats: NatsConfig = NatsConfig()
    webhook: WebhookConfig = WebhookConfig()
    profile: Name | None = None
    """the power profile to start with: `profiles/NAME.toml` beside this file, or a shipped one"""


def default_path(given: str | None = None) -> Path:
    """`-c FILE` if given, else `$EDGED_CONFIG`, else /etc/edged/edged.toml."""
    return Path(given or os.environ.get("EDGED_CONFIG") or DEFAULT_PATH)


def load(path: Path) -> Config:
    """The configuration of `path` and its drop-ins `<stem>.d/*.toml`, taken in the order of their names.

    Tables are merged and the later value wins; `[[camera]]` lists are appended. Relative paths in it count from the
    directory of `path`. UsageError for anything that is wrong.
    """
    merged: dict[str, Any] = {}
    origins: dict[str, Path] = {}
    for file in files_of(path):
        _merge(merged, read_toml(file), file, origins)

    def locate(key: str) -> str:
        while key and key not in origins:
            key = key.rpartition(".")[0]
        return str(origins.get(key, path))

    check_schedule(merged.get("schedule"), locate("schedule"))
    tables = merged.pop("camera", [])
    cameras = [_camera(table, n, str(path), locate) for n, table in enumerate(tables, 1)]
    config = msgspec.structs.replace(convert(merged, Config, str(path), locate), camera=cameras)
    _check_cameras(config, locate, path)
    check_bus(config.bus, locate)
    check_metrics(config.metrics, locate("metrics"))
    check_web(config.web, locate("web"))
    for table in ("mqtt", "nats", "webhook"):
        check_server(getattr(config, table), locate(f"{table}.url"))
    return _with_absolute_paths(config, path.parent)


def _camera(table: dict[str, Any], n: int, path: str, locate: Any) -> CameraConfig:
    """A `[[camera]]` table; its named tables one by one, so that a message can name them."""
    for group, kind in (("zones", Zone), ("lines", Line), ("objects", ObjectFilter)):
        named = table.get(group)
        for name, inner in named.items() if isinstance(named, dict) else ():
            key = f"camera.{n}.{group}.{name[:MAX_NAME]}"
            if group != "objects" and not re.match(NAME_PATTERN, name):
                raise UsageError(f"{locate(key)}: {key}: expected as a name {NAME_IS}", "rename it")
            convert(inner, kind, path, locate, key)
    return convert(table, CameraConfig, path, locate, f"camera.{n}")


def files_of(path: Path) -> list[Path]:
    """The file and its drop-ins, in the order in which they are laid over one another."""
    return [path, *_drop_ins(path)]


def _drop_ins(path: Path) -> list[Path]:
    directory = path.with_name(path.stem + ".d") if path.name else path
    try:
        return sorted(entry for entry in directory.iterdir() if entry.suffix == ".toml")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        raise UsageError(f"{directory}: cannot be read: {error}", "check its permissions") from error


def _merge(into: dict[str, Any], new: dict[str, Any], file: Path, origins: dict[str, Path]) -> None:
    """Lay one file over the others, remembering which file each key came from. Tables are one level deep."""
    for key, value in new.items():
        if key == "camera":
            if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
                raise UsageError(f"{file}: camera must be a list of tables", "write [[camera]], with two brackets")
            first = len(into.setdefault("camera", [])) + 1
            into["camera"] += value
            origins.update({f"camera.{n}": file for n in range(first, first + len(value))})
        elif isinstance(value, dict) and isinstance(into.get(key, {}), dict):
            into.setdefault(key, {}).update(value)
            origins.setdefault(key, file)
            origins.update({f"{key}.{inner}": file for inner in value})
        else:
            into[key] = value
            origins[key] = file


def _check_cameras(config: Config, locate: Any, path: Path) -> None:
    if not config.camera:
        raise UsageError(
            f"{path}: there is no camera", 'add one: [[camera]] with name = "gate" and source = "test://7"'
        )
    seen: dict[str, str] = {}
    for n, camera in enumerate(config.camera, 1):
        place = locate(f"camera.{n}")
        if camera.name in seen:
            where = f"also in {seen[camera.name]}" if seen[camera.name] != place else "twice"
            raise UsageError(f"{place}: camera.{n}.name is {camera.name!r}, which is there {where}", "rename one")
        seen[camera.name] = place
        check_regions(camera, f"{place}: camera.{n}")
        check_view(camera.aspect, camera.crop, f"{place}: camera.{n}")
        if camera.poll_s is not None and not camera.source.lower().startswith(("http://", "https://")):
            raise UsageError(
                f"{place}: camera.{n}.poll_s is set, and the source is no HTTP URL",
                "poll_s is for the URL of a single JPEG; remove it",
            )


def _with_absolute_paths(config: Config, base: Path) -> Config:
    def absolute(value: str | None) -> str | None:
        return None if value is None else os.path.abspath(base / value)

    bus = msgspec.structs.replace(
        config.bus,
        curve_secret_key=absolute(config.bus.curve_secret_key),
        curve_clients=absolute(config.bus.curve_clients),
    )
    cameras = [
        msgspec.structs.replace(camera, source=absolute(camera.source)) if is_plain_path(camera.source) else camera
        for camera in config.camera
    ]
    record = msgspec.structs.replace(config.record, path=absolute(config.record.path))
    snapshots = msgspec.structs.replace(config.snapshots, path=absolute(config.snapshots.path))
    metrics = msgspec.structs.replace(config.metrics, textfile=absolute(config.metrics.textfile))
    web = msgspec.structs.replace(
        config.web, tls_certificate=absolute(config.web.tls_certificate), tls_key=absolute(config.web.tls_key)
    )
    mqtt, nats, webhook = (
        msgspec.structs.replace(table, ca=absolute(table.ca)) for table in (config.mqtt, config.nats, config.webhook)
    )
    return msgspec.structs.replace(
        config,
        bundle=absolute(config.bundle),
        bus=bus,
        camera=cameras,
        record=record,
        snapshots=snapshots,
        metrics=metrics,
        web=web,
        mqtt=mqtt,
        nats=nats,
        webhook=webhook,
    )
