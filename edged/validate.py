"""Untrusted plain data in, typed structs out; what does not fit becomes a sentence with the key, the value and a hint.

Pure, any thread. The expected value is described by the type's own `Meta(description=...)`.
"""

from __future__ import annotations

import difflib
import math
import re
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from edged.errors import UsageError

T = TypeVar("T", bound=Struct)
Describe = Callable[[str], str]

MAX_SHOWN = 80
MAX_DEPTH = 24
_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.S)
_UNKNOWN = re.compile(r"unknown field `(.*)`", re.S)
_MISSING = re.compile(r"missing required field `(.*)`", re.S)
_STEP = re.compile(r"[^.\[\]]+")  # of a path such as variant[0].precision


def convert(data: object, kind: type[T], where: str, locate: Describe | None = None, prefix: str = "") -> T:
    """`data` as a `kind`; UsageError that begins with `where`, or with `locate(key path)` if that is given.

    `prefix` is put before the key path in messages: the table's own place in its file.
    """

    def refuse(path: str, problem: str, hint: str) -> UsageError:
        place = locate(path) if locate else where
        return UsageError(f"{place}: {problem}", hint)

    if unfit := _unfit(data):
        key = _join(prefix, unfit[0])
        raise refuse(key, f"{key or 'it'} {unfit[1]}", unfit[2])
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        found = _AT.match(str(error))
        what, path = (found["what"], found["path"] or "") if found else (str(error), "")
    except OverflowError:
        what, path = "a number is too large", ""
    path = path.lstrip(".")
    if unknown := _UNKNOWN.search(what):
        raise _unknown_key(unknown[1], path, kind, prefix, refuse)
    if missing := _MISSING.search(what):
        key = _join(prefix, _join(path, missing[1]))
        wanted = expectation(_type_at(kind, _join(path, missing[1])))
        raise refuse(key, f"{key} is missing", f"add it: {wanted or 'see the shipped edged.toml'}")
    key = _join(prefix, path)
    wanted = expectation(_type_at(kind, path)) or _plain(what)
    raise refuse(key, f"{key or 'it'} is {show(_value_at(data, path))}, expected {wanted}", f"correct {key or 'it'}")


def show(value: object) -> str:
    """A value fit for a message: short, and without what may be a password."""
    if isinstance(value, str) and "@" in value:
        return "(hidden, it may hold a password)"
    try:
        text = "null" if value is None else repr(value) if not isinstance(value, dict | list) else _kind_name(value)
    except ValueError:  # an integer of thousands of digits
        text = "a number far too large"
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def expectation(kind: Any) -> str:
    """What a value of this type must be, in words; empty if the type does not say."""
    if typing.get_origin(kind) is Annotated:
        described = [meta.description for meta in kind.__metadata__ if isinstance(meta, Meta) and meta.description]
        return described[0] if described else expectation(typing.get_args(kind)[0])
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in typing.get_args(kind))
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return next((words for arm in typing.get_args(kind) if (words := expectation(arm))), "")
    plain = {str: "a text in quotes", float: "a number", int: "a whole number", bool: "true or false"}
    if isinstance(kind, type) and issubclass(kind, Struct):
        return "a table with the keys " + ", ".join(kind.__struct_encode_fields__)
    return plain.get(kind, "")


def _unknown_key(
    name: str, path: str, kind: type[Struct], prefix: str, refuse: Callable[[str, str, str], UsageError]
) -> UsageError:
    table = _type_at(kind, path) if path else kind
    keys = _keys(table)
    near = difflib.get_close_matches(name[:MAX_SHOWN], keys, 1)
    hint = f"did you mean {near[0]}?" if near else "known here: " + (", ".join(keys) or "none, leave it out")
    key = _join(prefix, _join(path, name[:MAX_SHOWN] if name.isprintable() else repr(name[:MAX_SHOWN])))
    return refuse(key, f"{key} is not a known key", hint)


def _keys(kind: Any) -> list[str]:
    """The keys of a table; where several kinds of table may stand, of all of them."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return list(dict.fromkeys(key for arm in typing.get_args(kind) for key in _keys(arm)))
    return list(getattr(kind, "__struct_encode_fields__", ()))


def _type_at(kind: Any, path: str) -> Any:
    for step in _STEP.findall(path):
        while typing.get_origin(kind) is Annotated:
            kind = typing.get_args(kind)[0]
        if typing.get_origin(kind) in (list, tuple):
            kind = typing.get_args(kind)[0]
            continue
        kind = _field(kind, step)
    return kind


def _field(kind: Any, name: str) -> Any:
    """The type of a table's key; where several kinds of table may stand, of the key that tells them apart, or of the
    first kind that has it."""
    if isinstance(kind, type):
        return typing.get_type_hints(kind, include_extras=True).get(name)
    arms = [arm for arm in typing.get_args(kind) if isinstance(arm, type) and issubclass(arm, Struct)]
    tags = [arm.__struct_config__.tag for arm in arms if arm.__struct_config__.tag_field == name]
    if tags:
        return Literal[tuple(tags)]
    return next((found for arm in arms if (found := _field(arm, name)) is not None), None)


def _value_at(data: Any, path: str) -> Any:
    for step in _STEP.findall(path):
        if isinstance(data, list):
            data = data[int(step)] if step.isdecimal() and int(step) < len(data) else None
        else:
            data = data.get(step) if isinstance(data, dict) else None
    return data


def _unfit(data: object) -> tuple[str, str, str] | None:
    """(key path, problem, hint) of the first value that fits none of the expected types."""
    waiting: list[tuple[object, str, int]] = [(data, "", 0)]
    while waiting:
        value, path, depth = waiting.pop()
        if isinstance(value, float) and not math.isfinite(value):
            return path, "must be a finite number", "nan and inf are not limits; leave the key out instead"
        if isinstance(value, str) and "\0" in value:
            return path, "holds a NUL character", "no name, path or address can have one: remove it"
        if not isinstance(value, dict | list):
            continue
        if depth >= MAX_DEPTH:
            return path[:MAX_SHOWN], f"is nested more than {MAX_DEPTH} deep", "remove what is in it"
        items = value.items() if isinstance(value, dict) else enumerate(value)
        waiting += [(inner, _join(path, _shown_key(key)), depth + 1) for key, inner in items][::-1]
    return None


def _shown_key(key: object) -> str:
    text = str(key)[:MAX_SHOWN]
    return text if text.isprintable() else repr(text)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path and key else path or key


def _plain(what: str) -> str:
    return what.replace("Expected ", "", 1).replace("`", "")


def _kind_name(value: object) -> str:
    return "a table" if isinstance(value, dict) else "a list"
