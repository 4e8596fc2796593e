"""Dataclasses to plain lists and back, exactly, by the annotations of their fields. Pure, any thread.

`codec(kind)` compiles a type once into two functions. Numbers come back as what they were, int or float, to the last
bit. What comes back is checked against the annotations, since a log is read from a file: ValueError for anything else.
No name in the data chooses a type, so a log can make nothing but what the annotations say.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

import numpy as np

MAX_ARRAY: Final = 1 << 20
"""Numbers in an array of a log: far more than any state holds."""
_DTYPES: Final = ("<f8", "<i8", "|b1")


class Codec(NamedTuple):
    """`shape` names the type and all below it: two logs with the same shape can be read by the same code."""

    freeze: Callable[[Any], Any]
    thaw: Callable[[Any], Any]
    shape: str


@lru_cache(maxsize=256)
def codec(kind: Any) -> Codec:
    """For a dataclass, a NamedTuple, a number, a text, a tuple, a list, a mapping, an array, None, or a union of such.

    TypeError for a type that cannot be kept exactly: that is a fault of the program.
    """
    origin, arms = typing.get_origin(kind), typing.get_args(kind)
    if kind in (int, float, str, bool, type(None), None):
        return _leaf(type(None) if kind is None else kind)
    if origin is Literal:
        return _choice(arms)
    if origin in (typing.Union, types.UnionType):
        return _union(arms)
    if origin is tuple:
        return _many(arms[0]) if len(arms) == 2 and arms[1] is Ellipsis else _row(arms)
    if origin is list:
        items = _many(arms[0])
        return Codec(items.freeze, lambda data: list(items.thaw(data)), f"[{items.shape}]")
    if origin in (dict, Mapping) and arms[0] is str:
        return _mapping(arms[1])
    # numpy's NDArray: an alias of ndarray's own, and since numpy 2.5 one that Python keeps by its name
    if kind is np.ndarray or np.ndarray in (origin, typing.get_origin(getattr(origin, "__value__", None))):
        return Codec(_freeze_array, _thaw_array, "array")
    if isinstance(kind, type) and (dataclasses.is_dataclass(kind) or hasattr(kind, "_fields")):
        return _record(kind)
    raise TypeError(f"{kind} cannot be recorded exactly")


def _leaf(kind: type) -> Codec:
    accepted = (float, int) if kind is float else (kind,)

    def freeze(value: Any) -> Any:
        if type(value) in accepted:
            return value
        return kind(value)  # numpy's scalars are not msgpack's

    def thaw(data: Any) -> Any:
        if type(data) not in accepted:
            raise ValueError(f"{str(data)[:40]!r} is no {kind.__name__}")
        return data

    return Codec(freeze if kind is not type(None) else lambda value: None, thaw, kind.__name__)


def _choice(values: tuple[Any, ...]) -> Codec:
    def thaw(data: Any) -> Any:
        if data not in values:
            raise ValueError(f"{str(data)[:40]!r} is not one of {values}")
        return data

    return Codec(lambda value: value, thaw, f"one of {values}")


def _union(arms: tuple[Any, ...]) -> Codec:
    """X | None as itself; of several kinds the number of the one it is, and the value."""
    real = [arm for arm in arms if arm is not type(None)]
    optional, codecs = len(real) < len(arms), [codec(arm) for arm in real]
    shape = " | ".join([c.shape for c in codecs] + ["None"] * optional)
    if len(real) == 1:
        one = codecs[0]
        return Codec(
            lambda value: None if value is None else one.freeze(value),
            lambda data: None if data is None else one.thaw(data),
            shape,
        )

    def freeze(value: Any) -> Any:
        if value is None:
            return None
        n = next(i for i, arm in enumerate(real) if isinstance(value, typing.get_origin(arm) or arm))
        return [n, codecs[n].freeze(value)]

    def thaw(data: Any) -> Any:
        if data is None and optional:
            return None
        n, inner = _items(data, 2)
        if type(n) is not int or not 0 <= n < len(codecs):
            raise ValueError(f"there is no kind {str(n)[:40]}")
        return codecs[n].thaw(inner)

    return Codec(freeze, thaw, shape)


def _many(item: Any) -> Codec:
    each = codec(item)
    if item in (int, float, str, bool):
        freeze: Callable[[Any], Any] = lambda value: [each.freeze(x) for x in value]  # noqa: E731
    else:
        freeze = lambda value: list(map(each.freeze, value))  # noqa: E731
    return Codec(freeze, lambda data: tuple(map(each.thaw, _items(data, None))), f"({each.shape} ...)")


def _mapping(item: Any) -> Codec:
    """By text; in its own order."""
    each = codec(item)

    def thaw(data: Any) -> Any:
        if not isinstance(data, dict) or any(type(key) is not str for key in data):
            raise ValueError("expected a map by text")
        return {key: each.thaw(value) for key, value in data.items()}

    return Codec(lambda value: {key: each.freeze(x) for key, x in value.items()}, thaw, f"{{{each.shape}}}")


def _row(items: tuple[Any, ...]) -> Codec:
    codecs = [codec(item) for item in items]
    return Codec(
        lambda value: [c.freeze(x) for c, x in zip(codecs, value, strict=True)],
        lambda data: tuple([c.thaw(x) for c, x in zip(codecs, _items(data, len(codecs)), strict=True)]),
        f"({', '.join(c.shape for c in codecs)})",
    )


def _record(kind: Any) -> Codec:
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else list(kind._fields)
    codecs = [(name, codec(hints[name])) for name in names]

    def freeze(value: Any) -> Any:
        return [c.freeze(getattr(value, name)) for name, c in codecs]

    def thaw(data: Any) -> Any:
        values = _items(data, len(codecs))
        return kind(*[c.thaw(x) for (_, c), x in zip(codecs, values, strict=True)])

    fields = ", ".join(f"{name}: {c.shape}" for name, c in codecs)
    return Codec(freeze, thaw, f"{kind.__name__}({fields})")


def _freeze_array(value: Any) -> Any:
    kind = value.dtype.str
    if kind not in _DTYPES:
        raise TypeError(f"an array of {kind} cannot be recorded exactly")
    # the order of the axes in memory is kept too: sums over another order round otherwise
    fortran = value.flags.f_contiguous and not value.flags.c_contiguous
    return [kind, list(value.shape), fortran, value.tobytes("F" if fortran else "C")]


def _thaw_array(data: Any) -> Any:
    kind, shape, fortran, raw = _items(data, 4)
    sizes = _items(shape, None)
    if kind not in _DTYPES or not isinstance(raw, bytes) or any(type(n) is not int or n < 0 for n in sizes):
        raise ValueError("that is no array")
    if math.prod(sizes) > MAX_ARRAY or math.prod(sizes) * np.dtype(kind).itemsize != len(raw):
        raise ValueError("an array is not of the size it says")
    return np.frombuffer(raw, kind).reshape(sizes, order="F" if fortran is True else "C").copy("K")


def _items(data: Any, count: int | None) -> Any:
    if not isinstance(data, list) or (count is not None and len(data) != count):
        raise ValueError(f"expected a list{'' if count is None else f' of {count}'}")
    return data
