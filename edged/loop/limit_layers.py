"""The limits in force, in layers: the configuration, over it the power profile, over it what `set` changed.

One object owns them, on the engine loop. A request carries its change and never the limits that result, so that
several clients, a profile and a reload cannot undo one another: each is laid over what is in force when it is taken.
`set` lasts until the next profile or reload: they define the limits from then on, so they clear it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from edged.config import Limits
from edged.config.text import limit_changes
from edged.profiles import Profile


@dataclass(frozen=True)
class LimitLayers:
    """`configured`: [limits] of the configuration. `overrides`: by key, what `set` changed; None lifts a limit."""

    configured: Limits
    profile: Profile | None = None
    overrides: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def in_force(self) -> Limits:
        base = self.configured if self.profile is None else self.profile.apply(self.configured)
        return msgspec.structs.replace(base, **self.overrides)

    @property
    def profile_name(self) -> str | None:
        return None if self.profile is None else self.profile.name


class LimitControl:
    """Holds the layers and puts the limits in force. Every method is called on the engine loop's thread."""

    def __init__(self, layers: LimitLayers, put_in_force: Callable[[LimitLayers], None]) -> None:
        """`put_in_force` raises UsageError, and changes nothing, if no variant can hold the limits."""
        self._layers = layers
        self._put_in_force = put_in_force

    @property
    def layers(self) -> LimitLayers:
        return self._layers

    def set(self, changes: Mapping[str, float | None]) -> Limits:
        """Change single limits; returns all that are in force then. UsageError, and nothing changed, if they cannot be
        held."""
        layers = self._layers
        self._take(LimitLayers(layers.configured, layers.profile, {**layers.overrides, **changes}))
        return self._layers.in_force

    def take_profile(self, profile: Profile | None) -> list[str]:
        """Lay this profile over the configuration; None: the configuration alone. Returns what that changed, in words.
        UsageError as for `set`."""
        before = self._layers.in_force
        self._take(LimitLayers(self._layers.configured, profile))
        return limit_changes(before, self._layers.in_force)

    def reload(self, configured: Limits, profile: Profile | None) -> list[str]:
        """The configuration was read again, and with it the profile. Returns and raises as `take_profile`."""
        before = self._layers.in_force
        self._take(LimitLayers(configured, profile))
        return limit_changes(before, self._layers.in_force)

    def _take(self, layers: LimitLayers) -> None:
        self._put_in_force(layers)
        self._layers = layers
