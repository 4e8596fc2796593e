"""Power profiles: `profiles/NAME.toml` beside the configuration, else a shipped one, as limits laid over [limits].

A profile holds nothing but what it changes: `[limits]` keys, in `lift` the names of limits that do not hold while it is
in force, and in `mode` the board's power mode that goes with it. It is laid over the configuration's own limits, never
over those of another profile. Any thread.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from edged.config import Config, Limits, ModeName
from edged.config.schedule import OWN_LIMITS
from edged.errors import EdgedError, UsageError, encodable
from edged.toml_file import read_toml
from edged.validate import convert

SHIPPED: Final = Path(__file__).parent
LIFTABLE: Final = ("power_w", "energy_wh", "temperature_c", "memory_mb")
"""Limits that may be absent."""


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    description: Annotated[
        str, Meta(min_length=1, max_length=200, description="a sentence in quotes, at most 200 characters")
    ]
    mode: ModeName | None = None
    limits: dict[str, Any] = {}
    lift: list[str] = []


@dataclass(frozen=True)
class Profile:
    """`limits`: what it sets, None for what it lifts. `mode`: the board's power mode that goes with it, None for
    whichever is in force."""

    name: str
    description: str
    path: Path
    limits: Mapping[str, float | None]
    mode: str | None = None

    def apply(self, base: Limits) -> Limits:
        """`base` are the configuration's own limits."""
        return msgspec.structs.replace(base, **self.limits)


def find(name: str, config: Path) -> Profile:
    """The profile of that name for the configuration at `config`. UsageError if there is none or it is wrong."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,31}", name):
        raise UsageError(f"{name[:40]!r} is no name of a profile", "1 to 32 lower-case letters, digits, - or _")
    for directory in _directories(config):
        path = directory / f"{name}.toml"
        try:
            there = path.exists()
        except OSError as error:
            raise UsageError(
                f"{path}: cannot be read: {error.strerror}", "check its directory's permissions"
            ) from error
        if there:
            return _load(name, path)
    known = names(config)
    near = difflib.get_close_matches(name, known, 1)
    guess = f"did you mean {near[0]}? " if near else ""
    raise UsageError(
        f"there is no profile {name!r}", f"{guess}known are {', '.join(known)}; or write {_own(config) / name}.toml"
    )


def starting(config: Config, path: Path, scheduled: str | None) -> Profile | None:
    """The profile to start with, `scheduled` being that of the [schedule]; None: the configuration's own limits.
    UsageError for any profile of the configuration that is not there or wrong."""
    for at, name in config.schedule.items():
        if name == OWN_LIMITS:
            continue
        try:
            find(name, path)
        except UsageError as error:
            raise UsageError(f'{path}: schedule."{at}": {error.message}', error.hint) from error
    wanted = scheduled if config.schedule else config.profile
    return None if wanted is None else find(wanted, path)


def names(config: Path) -> list[str]:
    """Of all profiles there are, right or wrong; bytes of a file name that are not UTF-8 are escaped."""
    found = {path.stem for directory in _directories(config) for path in directory.glob("*.toml")}
    return sorted(map(encodable, found))


def find_all(config: Path) -> list[tuple[str, Profile | EdgedError]]:
    """Every profile there is by name, or what is wrong with it."""
    found: list[tuple[str, Profile | EdgedError]] = []
    for name in names(config):
        try:
            found.append((name, find(name, config)))
        except EdgedError as error:
            found.append((name, error))
    return found


def checked_limits(limits: Mapping[str, Any], where: str) -> dict[str, float | None]:
    """Changes of limits, as numbers in their bounds. UsageError names the key."""
    valid = convert(dict(limits), Limits, where, prefix="limits")
    return {key: getattr(valid, key) for key in limits}


def _load(name: str, path: Path) -> Profile:
    file = convert(read_toml(path, "a power profile"), _File, str(path))
    limits = checked_limits(file.limits, str(path))
    for key in file.lift:
        if key not in LIFTABLE:
            raise UsageError(f"{path}: lift names {key[:40]!r}", f"what can be lifted is {', '.join(LIFTABLE)}")
        if key in limits:
            raise UsageError(f"{path}: {key} is both set and lifted", "leave one out")
        limits[key] = None
    if not limits and file.mode is None:
        raise UsageError(f"{path}: it changes no limit", "add a [limits] table, or lift = [...]")
    return Profile(name, file.description, path, limits, file.mode)


def _own(config: Path) -> Path:
    return config.parent / "profiles"


def _directories(config: Path) -> tuple[Path, Path]:
    return _own(config), SHIPPED
