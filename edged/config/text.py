"""A configuration as text: all of it as TOML, and what changed between two. Passwords are redacted."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec
from msgspec import Struct

from edged.config import Config, Limits
from edged.errors import encodable
from edged.uri import redact

_TABLES: Final = (
    "limits", "power", "bus", "engine", "record", "motion", "snapshots", "metrics", "web", "mqtt", "nats", "webhook",
)  # fmt: skip


def effective_toml(config: Config) -> str:
    """The whole configuration as TOML, defaults and all, with passwords in camera sources redacted."""
    lines = [f"bundle = {toml_value(config.bundle)}"]
    lines.append("# profile is not set" if config.profile is None else f"profile = {toml_value(config.profile)}")
    for name in _TABLES:
        lines += ["", f"[{name}]", *_toml_lines(getattr(config, name))]
    if config.schedule:
        lines += [
            "",
            "[schedule]",
            *(f"{toml_value(at)} = {toml_value(profile)}" for at, profile in config.schedule.items()),
        ]
    for camera in config.camera:
        shown = msgspec.structs.replace(camera, source=_shown(camera.source))
        lines += ["", "[[camera]]", *_toml_lines(shown)]
    return "\n".join(lines) + "\n"


def diff(old: Config, new: Config) -> tuple[list[str], list[str]]:
    """(what a live reload changes, what needs a restart), in words and without credentials.

    Limits and cameras change live; the bundle, the bus, the engine and power do not.
    """
    changes = _changes("limits", old.limits, new.limits)
    if old.profile != new.profile:
        changes.append(f"profile: {toml_value(old.profile)} -> {toml_value(new.profile)}")
    if old.schedule != new.schedule:
        changes.append(f"schedule: {toml_value(old.schedule)} -> {toml_value(new.schedule)}")
    before, after = ({camera.name: camera for camera in config.camera} for config in (old, new))
    changes += [f"camera {name}: removed" for name in before if name not in after]
    for name, camera in after.items():
        if name not in before:
            changes.append(f"camera {name}: added, {_shown(camera.source)}")
        else:
            changes += _changes(f"camera {name}", before[name], camera)
    restart = [] if old.bundle == new.bundle else [f"bundle: {toml_value(old.bundle)} -> {toml_value(new.bundle)}"]
    for table in ("power", "bus", "engine", "record", "motion", "snapshots"):
        restart += _changes(table, getattr(old, table), getattr(new, table))
    return changes, restart


def limit_changes(old: Limits, new: Limits) -> list[str]:
    """Which limits differ, in words."""
    return _changes("limits", old, new)


def _changes(table: str, old: Struct, new: Struct) -> list[str]:
    found = []
    for key in old.__struct_fields__:
        was, now = getattr(old, key), getattr(new, key)
        if was != now and key == "source":
            was, now = _shown(was), _shown(now)
            found.append(f"{table}: source " + (f"{was} -> {now}" if was != now else "has other credentials"))
        elif was != now:
            found.append(f"{table}: {key} {toml_value(was)} -> {toml_value(now)}")
    return found


def _shown(source: str) -> str:
    return encodable(redact(source))


def _toml_lines(table: Struct) -> list[str]:
    pairs = ((key, getattr(table, key)) for key in table.__struct_fields__)
    return [f"# {key} is not set" if value is None else f"{key} = {toml_value(value)}" for key, value in pairs]


def toml_value(value: Any) -> str:
    """A value as TOML writes it, tables in one line; JSON's text escapes are TOML's, but for DEL."""
    if value is None:
        return "(not set)"
    if isinstance(value, Struct):
        names = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
        value = {key: inner for field, key in names if (inner := getattr(value, field)) is not None}
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {toml_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(inner) for inner in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(encodable(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def _key(name: str) -> str:
    return name if re.match(r"[A-Za-z0-9_-]+\Z", name) else toml_value(name)
