"""The requests that the daemon answers: one type per `op`, and the one parser of them. Pure, any thread.

Budget keys obey the same rules as in the configuration. Unknown operations and keys are refused, never ignored.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from edged.config import (
    CameraFps,
    CameraWeight,
    DeadlineMs,
    DeadlineQuantile,
    EnergyHorizonH,
    EnergyWh,
    MemoryMb,
    MinAccuracy,
    MinFps,
    ModeName,
    PowerW,
    PowerWindowS,
    TemperatureC,
)
from edged.errors import EdgedError
from edged.validate import convert


class Snapshot(Struct, frozen=True, forbid_unknown_fields=True, tag="snapshot", tag_field="op"):
    """The `state` message, as a reply."""


class CameraSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of one camera that a running one takes; null for `fps` lifts the cap on its rate."""

    fps: CameraFps | UnsetType | None = UNSET
    weight: CameraWeight | UnsetType = UNSET

    def changes(self) -> dict[str, float | None]:
        """The settings it names."""
        return _named(self)


class Set(Struct, frozen=True, forbid_unknown_fields=True, tag="set", tag_field="op"):
    """Change limits until the next profile, reload or start; null lifts one that may be absent. `cameras`: by name,
    what changes of them until the next reload or start."""

    deadline_ms: DeadlineMs | UnsetType = UNSET
    deadline_quantile: DeadlineQuantile | UnsetType = UNSET
    power_w: PowerW | UnsetType | None = UNSET
    power_window_s: PowerWindowS | UnsetType = UNSET
    energy_wh: EnergyWh | UnsetType | None = UNSET
    energy_horizon_h: EnergyHorizonH | UnsetType = UNSET
    temperature_c: TemperatureC | UnsetType | None = UNSET
    min_accuracy: MinAccuracy | UnsetType = UNSET
    min_fps: MinFps | UnsetType = UNSET
    memory_mb: MemoryMb | UnsetType | None = UNSET
    cameras: dict[str, CameraSettings] | UnsetType = UNSET

    def changes(self) -> dict[str, float | None]:
        """The limits it names."""
        return _named(self, but="cameras")

    def camera_changes(self) -> dict[str, dict[str, float | None]]:
        """By camera, the settings it names."""
        cameras = {} if self.cameras is UNSET else self.cameras
        return {name: changes for name, settings in cameras.items() if (changes := settings.changes())}


def _named(table: Struct, but: str = "") -> dict[str, float | None]:
    values = {key: getattr(table, key) for key in table.__struct_fields__ if key != but}
    return {key: value for key, value in values.items() if value is not UNSET}


class Pin(Struct, frozen=True, forbid_unknown_fields=True, tag="pin", tag_field="op"):
    """Hold one variant; null lets the governor choose again."""

    variant: Annotated[str, Meta(min_length=1, max_length=63, description="the name of a variant, or null")] | None


class Trigger(Struct, frozen=True, forbid_unknown_fields=True, tag="trigger", tag_field="op"):
    """Something outside saw motion: open the camera's motion gate for ten seconds."""

    camera: Annotated[str, Meta(min_length=1, max_length=63, description="the name of a camera")]


class Profile(Struct, frozen=True, forbid_unknown_fields=True, tag="profile", tag_field="op"):
    """Put a power profile in force; null: the configuration's own limits; without a name, list the profiles."""

    name: Annotated[str, Meta(min_length=1, max_length=63, description="the name of a profile, or null")] | (
        UnsetType | None
    ) = UNSET


class Why(Struct, frozen=True, forbid_unknown_fields=True, tag="why", tag_field="op"):
    """The last `n` decisions, newest last."""

    n: Annotated[int, Meta(ge=1, le=1000, description="a whole number from 1 to 1000")] = 10


class Reload(Struct, frozen=True, forbid_unknown_fields=True, tag="reload", tag_field="op"):
    """Read the configuration again; a wrong one changes nothing."""


class Modes(Struct, frozen=True, forbid_unknown_fields=True, tag="modes", tag_field="op"):
    """The board's power modes, jetson_clocks and fan."""


class SetMode(Struct, frozen=True, forbid_unknown_fields=True, tag="set_mode", tag_field="op"):
    """Set one of these and verify it; takes up to fifteen seconds."""

    mode: ModeName | None = None
    clocks: bool | None = None
    fan: Annotated[str, Meta(min_length=1, max_length=64, description="the name of a fan profile")] | None = None


Request = Snapshot | Set | Pin | Trigger | Profile | Why | Reload | Modes | SetMode

_TYPES: dict[str, type[Request]] = {
    "snapshot": Snapshot, "set": Set, "pin": Pin, "trigger": Trigger, "profile": Profile, "why": Why, "reload": Reload,
    "modes": Modes, "set_mode": SetMode,
}  # fmt: skip

OPERATIONS = tuple(_TYPES)


def parse_request(payload: bytes) -> Request:
    """EdgedError, with a hint, for everything that is not a request this build can serve."""
    try:
        data: Any = msgspec.msgpack.decode(payload)
    except (msgspec.DecodeError, ValueError, RecursionError, TypeError, OverflowError):
        raise EdgedError("the request is not MessagePack", 'send a map, for example {"op": "snapshot"}') from None
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise EdgedError("the request is not a map with string keys", 'send a map, for example {"op": "snapshot"}')
    op = data.get("op")
    if not isinstance(op, str):
        raise EdgedError("the request has no `op`", "name one of: " + ", ".join(_TYPES))
    if op not in _TYPES:
        near = difflib.get_close_matches(op[:64], _TYPES, 1)
        hint = f"did you mean {near[0]}?" if near else "name one of: " + ", ".join(_TYPES)
        raise EdgedError(f"there is no operation {op[:64]!r}", hint)
    cameras = data.get("cameras")
    for name, settings in cameras.items() if op == "set" and isinstance(cameras, dict) else ():
        # one by one, so that a message can name the camera
        convert(settings, CameraSettings, "request set", prefix=f"cameras.{str(name)[:64]}")
    request = convert(data, _TYPES[op], f"request {op}")
    if isinstance(request, Set) and not request.changes() and not request.camera_changes():
        raise EdgedError("the request set changes nothing", "name one of: " + ", ".join(Set.__struct_fields__))
    if isinstance(request, SetMode) and [request.mode, request.clocks, request.fan].count(None) != 2:
        raise EdgedError("the request set_mode sets one thing at a time", "name one of: mode, clocks, fan")
    return request
