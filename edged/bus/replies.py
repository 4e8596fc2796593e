"""What the daemon answers to each request: one type per operation. Pure data, any thread."""

from __future__ import annotations

from msgspec import Raw, Struct

from edged.bus.schema import State
from edged.config import Limits


class Refusal(Struct, frozen=True, kw_only=True):
    """A request that was not carried out, and what to do about it."""

    ok: bool = False
    error: str
    hint: str


class SnapshotReply(Struct, frozen=True, kw_only=True):
    """`state` is null while none has been published: in the first second."""

    ok: bool = True
    state: State | None


class CameraInForce(Struct, frozen=True):
    """What `set` changes of a camera, as it is in force. `fps` null: every frame that the camera gives."""

    fps: float | None
    weight: float


class LimitsReply(Struct, frozen=True, kw_only=True):
    """To `set`: all limits in force, and by name the cameras that it changed."""

    ok: bool = True
    limits: Limits
    cameras: dict[str, CameraInForce] = {}


class PinReply(Struct, frozen=True, kw_only=True):
    ok: bool = True
    pinned: str | None
    loading: bool = False
    """it is loaded first, and pinned then"""


class TriggerReply(Struct, frozen=True, kw_only=True):
    ok: bool = True
    camera: str


class ProfileReply(Struct, frozen=True, kw_only=True):
    """To `profile` with a name or null: what is in force, and what that changed, a sentence each."""

    ok: bool = True
    profile: str | None
    changes: list[str]
    limits: Limits


class ListedProfile(Struct, frozen=True):
    """`problem`: why it cannot be used; null if it can."""

    name: str
    description: str
    path: str | None
    problem: str | None


class ProfilesReply(Struct, frozen=True, kw_only=True):
    """To `profile` without a name: the profile in force, and all there are."""

    ok: bool = True
    profile: str | None
    profiles: list[ListedProfile]


class WhyReply(Struct, frozen=True, kw_only=True):
    """`decisions`: each a `schema.Decision`, encoded as it was published."""

    ok: bool = True
    decisions: list[Raw]


class ReloadReply(Struct, frozen=True, kw_only=True):
    """What the reload changed, and which changes of the files wait for a restart, a sentence each."""

    ok: bool = True
    changes: list[str]
    needs_restart: list[str]


class PowerMode(Struct, frozen=True):
    """`needs_reboot` is null where that is not known."""

    id: int
    name: str
    needs_reboot: bool | None


class PowerModes(Struct, frozen=True):
    """The board's power modes. `way`: through which program they are set. `not_settable`: why not, else empty."""

    way: str
    modes: list[PowerMode]
    current: str | None
    clocks: str | None
    fan: str | None
    fans: list[str]
    not_settable: str


class ModesReply(Struct, frozen=True, kw_only=True):
    """To `modes` and `set_mode`."""

    ok: bool = True
    modes: PowerModes


Reply = (
    SnapshotReply
    | LimitsReply
    | PinReply
    | TriggerReply
    | ProfileReply
    | ProfilesReply
    | WhyReply
    | ReloadReply
    | ModesReply
)
