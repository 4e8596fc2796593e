"""What changes while the daemon runs: the configuration read again, another power profile. Any thread but the engine
loop's; what they bring is taken on the engine loop.

A reload takes cameras, limits and profile live, and says what needs a restart. Of a reload and a profile one runs at a
time, since a profile's power mode may take fifteen seconds to set.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from edged import profiles
from edged.config import Config, Limits, diff, load
from edged.errors import EdgedError
from edged.frames.cameras import check_sources
from edged.loop.build import Loop
from edged.loop.limit_layers import LimitLayers
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
    def __init__(self, path: Path, config: Config, loop: Loop, modes: PowerModeManager) -> None:
        """`config` as read from `path`."""
        self.path = path
        self._config = config
        self._loop = loop
        self._modes = modes
        self._cameras_at_start = len(config.camera)
        self._one_at_a_time = threading.Lock()

    @property
    def config(self) -> Config:
        """As last taken."""
        return self._config

    @property
    def busy(self) -> bool:
        """Whether a reload or a profile is being taken."""
        return self._one_at_a_time.locked()

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

    def reload(self) -> Reloaded:
        """Read the configuration again and take what can be taken live. If wrong, EdgedError and nothing changes."""
        loop = self._loop
        with self._alone():
            new, before = load(self.path), loop.limits.layers.profile
            profile = self._profile_after(new, before)
            changes, needs_restart = diff(
                msgspec.structs.replace(self._config, limits=Limits()), msgspec.structs.replace(new, limits=Limits())
            )

            def take() -> list[str]:
                check_sources(new.camera)
                limits = loop.limits.reload(new.limits, profile)
                loop.engine_loop.configure(new.camera)
                return limits

            changes = loop.calls.call(take) + changes
            needs_restart += self._larger_batches(new)
            if profile is None or profile.mode is None:
                self._modes.taken(None, None)
            elif before is None or (before.name, before.mode) != (profile.name, profile.mode):
                self._modes.soon(profile.name, profile.mode)
                changes.append(f"power mode: {profile.mode} is being set, an event will report the result")
            self._config = msgspec.structs.replace(
                self._config, camera=new.camera, limits=new.limits, profile=new.profile
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

    def _profile_after(self, new: Config, in_force: Profile | None) -> Profile | None:
        """The one the configuration names now; if it names the same as before, the one in force, read again."""
        name = new.profile
        if new.profile == self._config.profile and in_force is not None:
            name = in_force.name
        return None if name is None else profiles.find(name, self.path)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._one_at_a_time.acquire(timeout=WAIT_S):
            raise EdgedError("another reload or profile is being taken", "try again when it is done")
        try:
            yield
        finally:
            self._one_at_a_time.release()
