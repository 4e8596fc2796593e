"""What changes while the daemon runs: the configuration read again, another power profile, single settings. Any thread
but the engine loop's; what they bring is taken on the engine loop.

A reload takes cameras, limits and profile live, and says what needs a restart. Of a reload and a profile one runs at a
time, since a profile's power mode may take fifteen seconds to set.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from edged import clock, profiles
from edged.bus import schema
from edged.config import MAX_NAME, CameraConfig, Config, Limits, load
from edged.config.text import diff
from edged.errors import EdgedError, UsageError
from edged.loop.build import Loop
from edged.loop.limit_layers import LimitLayers
from edged.loop.profile_schedule import ProfileSchedule
from edged.power.power_mode_manager import PowerModeManager
from edged.profiles import Profile

WAIT_S: Final = 5.0
"""What one waits for the other: a reload takes less; a power mode may take longer."""

log = logging.getLogger("edged")


class Reloaded(NamedTuple):
    """What a reload changed and what of the files waits for a restart, in words."""

    changes: list[str]
    needs_restart: list[str]


class ProfileTaken(NamedTuple):
    """What a profile changed, in words, and the limits then in force."""

    changes: list[str]
    limits: Limits


class Reconfiguration:
    def __init__(
        self, path: Path, config: Config, loop: Loop, modes: PowerModeManager, schedule: ProfileSchedule
    ) -> None:
        """`config` as read from `path`."""
        self.path = path
        self._config = config
        self._loop = loop
        self._modes = modes
        self._cameras_at_start = len(config.camera)
        self._schedule = schedule
        self._one_at_a_time = threading.Lock()

    @property
    def config(self) -> Config:
        """As last taken."""
        return self._config

    @property
    def busy(self) -> bool:
        """Whether a reload or a profile is being taken."""
        return self._one_at_a_time.locked()

    def set(
        self, limits: Mapping[str, float | None], cameras: Mapping[str, Mapping[str, float | None]]
    ) -> tuple[Limits, list[CameraConfig]]:
        """Change single limits, and by name `fps` and `weight` of cameras. Returns the limits in force then and the
        cameras that were named. EdgedError, and nothing changed, for an unknown camera and for limits that cannot be
        held."""
        loop = self._loop
        if not cameras:  # no need to wait for a profile that sets its power mode
            return loop.calls.call(lambda: loop.limits.set(limits)), []
        with self._alone():
            known = {camera.name: camera for camera in self._config.camera}
            for name in cameras.keys() - known.keys():
                raise EdgedError(f"there is no camera {name[:MAX_NAME]!r}", "cameras are " + ", ".join(known))
            changed = [msgspec.structs.replace(known[name], **changes) for name, changes in cameras.items()]
            known |= {camera.name: camera for camera in changed}
            new = list(known.values())

            def take() -> Limits:
                in_force = loop.limits.set(limits) if limits else loop.limits.layers.in_force
                loop.engine_loop.configure(new)
                return in_force

            in_force = loop.calls.call(take)
            self._config = msgspec.structs.replace(self._config, camera=new)
        return in_force, changed

    def take_profile(self, name: str | None) -> ProfileTaken:
        """Lay a profile over the configuration, its power mode first; None: the configuration alone. EdgedError, and
        nothing changed, if the profile is wrong, its mode cannot be set or no variant could hold its limits."""
        loop = self._loop
        with self._alone():
            profile = None if name is None else profiles.find(name, self.path)
            mode = None if profile is None else profile.mode
            extra = []
            if mode is not None:
                # the limits are tried first: once the board runs in another mode there is no quick way back
                tried = LimitLayers(self._config.limits, profile).in_force
                loop.calls.call(lambda: loop.governor.check(tried))
                extra.append(f"power mode {self._modes.set(mode).current}")
            changes, limits = loop.calls.call(lambda: (loop.limits.take_profile(profile), loop.limits.layers.in_force))
            changes += extra
            self._modes.taken(name, mode)
        log.info("profile %s: %s", name or "none", "; ".join(changes) or "nothing changed")
        return ProfileTaken(changes, limits)

    def follow_schedule(self, now: datetime) -> None:
        """Put the profile of [schedule] in force whose time has come; `now` is local time. Its power mode is set in the
        background, and an event has what changed, or why it is refused. Does nothing while another change is made.
        EdgedError if the engine loop does not answer: then the entry is still due."""
        if not self._one_at_a_time.acquire(blocking=False):
            return
        try:
            if (entry := self._schedule.due(now)) is None:
                return
            text = f"{entry.profile or 'no profile'}, scheduled for {entry.since:%H:%M}"
            try:
                profile = None if entry.profile is None else profiles.find(entry.profile, self.path)
                changes = self._loop.calls.call(lambda: self._loop.limits.take_profile(profile))
            except UsageError as error:
                self._schedule.taken(entry, error.message)
                text += f", is refused: {error.message}"
                log.error("profile %s; %s", text, error.hint)
            else:
                self._take_mode_soon(profile)
                self._schedule.taken(entry)
                text += f": {'; '.join(changes) or 'no limit changed'}"
                log.info("profile %s", text)
            self._loop.publisher.publish(schema.Event(kind="schedule", text=f"profile {text}"))
        finally:
            self._one_at_a_time.release()

    def _take_mode_soon(self, profile: Profile | None) -> None:
        """The power mode of a profile that is in force, in the background; a profile without one leaves it as it is."""
        if profile is None or profile.mode is None:
            self._modes.taken(None, None)
        else:
            self._modes.soon(profile.name, profile.mode)

    def reload(self) -> Reloaded:
        """Read the configuration again and take what can be taken live. If wrong, EdgedError and nothing changes."""
        loop = self._loop
        with self._alone():
            new, before = load(self.path), loop.limits.layers.profile
            now = clock.local_time()
            profile = self._profile_after(new, before, now)
            changes, needs_restart = diff(
                msgspec.structs.replace(self._config, limits=Limits()), msgspec.structs.replace(new, limits=Limits())
            )

            def take() -> list[str]:
                loop.engine_loop.check(new.camera)
                limits = loop.limits.reload(new.limits, profile)
                loop.engine_loop.configure(new.camera)
                return limits

            changes = loop.calls.call(take) + changes
            needs_restart += self._larger_batches(new)
            if before is None or profile is None or (before.name, before.mode) != (profile.name, profile.mode):
                self._take_mode_soon(profile)
                if profile is not None and profile.mode is not None:
                    changes.append(f"power mode: {profile.mode} is being set, an event will report the result")
            if new.schedule != self._config.schedule:
                self._schedule.replace(new.schedule, now)
            self._config = msgspec.structs.replace(
                self._config, camera=new.camera, limits=new.limits, profile=new.profile, schedule=new.schedule
            )
        log.info("reloaded: %s", "; ".join(changes) or "nothing changed")
        for key in needs_restart:
            log.warning("needs a restart: %s", key)
        return Reloaded(changes, needs_restart)

    def _larger_batches(self, new: Config) -> list[str]:
        """The engines were made ready for batches of one frame of each camera that there was at the start, which
        matters on a GPU."""
        size, pool = min(len(new.camera), new.engine.max_batch), self._loop.pool
        if pool.device != "cpu" and pool.max_batch == self._cameras_at_start < size:
            return [f"engine: batches of up to {size} frames, of {len(new.camera)} cameras"]
        return []

    def _profile_after(self, new: Config, in_force: Profile | None, now: datetime) -> Profile | None:
        """The one the configuration names now; if it names the same as before, the one in force, read again."""
        entry = ProfileSchedule(new.schedule, now).current
        starting = profiles.starting(new, self.path, None if entry is None else entry.profile)
        same = (new.profile, new.schedule) == (self._config.profile, self._config.schedule)
        return profiles.find(in_force.name, self.path) if same and in_force is not None else starting

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._one_at_a_time.acquire(timeout=WAIT_S):
            raise EdgedError("another reload or profile is being taken", "try again when it is done")
        try:
            yield
        finally:
            self._one_at_a_time.release()
