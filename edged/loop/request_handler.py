"""Control requests in, typed replies out. On the control thread; what they change is changed on the engine loop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import UNSET

from edged import clock, profiles
from edged.bus import requests
from edged.bus.replies import (
    CameraInForce,
    LimitsReply,
    ListedProfile,
    ModesReply,
    PinReply,
    PowerModes,
    ProfileReply,
    ProfilesReply,
    ReloadReply,
    Reply,
    SnapshotReply,
    TriggerReply,
    WhyReply,
)
from edged.bus.requests import Modes, Pin, Reload, Request, Set, SetMode, Snapshot, Trigger, Why
from edged.errors import EdgedError
from edged.loop.build import Loop
from edged.loop.reconfiguration import Reconfiguration, Reloaded
from edged.power import modes as power_modes
from edged.power.power_mode_manager import PowerModeManager

STAGE: Final = "control"
STUCK_AFTER_S: Final = 20.0
"""A request waits for the engine loop for a few seconds at most, a reload reads files, a power mode takes up to 15."""

log = logging.getLogger("edged")


class RequestHandler:
    def __init__(
        self, loop: Loop, modes: PowerModeManager, reconfiguration: Reconfiguration, reload: Callable[[], Reloaded]
    ) -> None:
        """`reload`: the reconfiguration's, with notifications to the service manager."""
        self._loop = loop
        self._modes = modes
        self._reconfiguration = reconfiguration
        self._reload = reload
        loop.heartbeats.add(STAGE, STUCK_AFTER_S)

    def __call__(self, request: Request) -> Reply:
        """EdgedError if the request cannot be carried out: it becomes the refusal."""
        self._loop.heartbeats.beat(STAGE)
        try:
            return self._answer(request)
        finally:
            self._loop.heartbeats.idle(STAGE)

    def _answer(self, request: Request) -> Reply:
        loop = self._loop
        match request:
            case Snapshot():
                return SnapshotReply(state=loop.reporter.state)
            case Why():
                encoded = loop.calls.call(lambda: loop.governor.history.last(request.n))
                # as they are: decoded, hundreds of them would take megabytes for a moment
                return WhyReply(decisions=[msgspec.Raw(decision) for decision in encoded])
            case Set():
                return self._set(request)
            case Pin():
                pinned = loop.calls.call(lambda: loop.residency.pin(request.variant, clock.mono_ns()))
                log.info("pinned: %s", request.variant or "nothing, the governor chooses")
                return PinReply(pinned=request.variant, loading=not pinned)
            case Trigger():
                loop.calls.call(lambda: loop.engine_loop.trigger(request.camera))
                return TriggerReply(camera=request.camera)
            case requests.Profile():
                return self._list_profiles() if request.name is UNSET else self._take_profile(request.name)
            case Reload():
                changes, needs_restart = self._reload()
                return ReloadReply(changes=changes, needs_restart=needs_restart)
            case Modes():
                return _modes_reply(self._modes.read())
            case SetMode():
                return _modes_reply(self._modes.set(request.mode, request.clocks, request.fan))

    def _set(self, request: Set) -> Reply:
        changes, cameras = request.changes(), request.camera_changes()
        limits, changed = self._reconfiguration.set(changes, cameras)
        for name, settings in cameras.items():
            changes |= {f"camera.{name}.{key}": value for key, value in settings.items()}
        log.info("set: %s", "; ".join(f"{key} = {_shown(value)}" for key, value in changes.items()))
        in_force = {camera.name: CameraInForce(camera.fps, camera.weight) for camera in changed}
        return LimitsReply(limits=limits, cameras=in_force)

    def _take_profile(self, name: str | None) -> Reply:
        changes, limits = self._reconfiguration.take_profile(name)
        return ProfileReply(profile=name, changes=changes, limits=limits)

    def _list_profiles(self) -> Reply:
        listed = [
            ListedProfile(name, "", None, str(found))
            if isinstance(found, EdgedError)
            else ListedProfile(name, found.description, str(found.path), None)
            for name, found in profiles.find_all(self._reconfiguration.path)
        ]
        return ProfilesReply(profile=self._loop.limits.layers.profile_name, profiles=listed)


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"


def _modes_reply(modes: power_modes.Modes) -> Reply:
    return ModesReply(modes=msgspec.convert(modes, PowerModes, from_attributes=True))
