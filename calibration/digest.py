"""The digest of a value, by which a cache knows the inputs of a step. A `Path` stands for the content of its file.

In: a model, an array, options, a set of pictures, or any nesting of them. Out: SHA-256. Each part is digested together
with its type and all digests have one length, so different values do not share a digest.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from msgspec import Struct

_BLOCK_BYTES = 1 << 20


def digest_of(value: Any) -> str:
    """SHA-256 of a value. TypeError for a value whose content is not known: nothing would show that it changed."""
    return _digest(value).hex()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            found.update(block)
    return found.hexdigest()


def _digest(value: Any) -> bytes:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if (parts := _parts(value)) is not None:
        return _hash(kind, b"".join(_digest(part) for part in parts))
    return _hash(kind, _content(value))


def _parts(value: Any) -> Iterable[Any] | None:
    """What a value that holds others consists of; None for any other."""
    match value:
        case Mapping():
            return (part for item in value.items() for part in item)
        case list() | tuple():
            return value
        case Struct():
            return (getattr(value, name) for name in value.__struct_fields__)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return (getattr(value, field.name) for field in dataclasses.fields(value))
    return None


def _content(value: Any) -> bytes:
    match value:
        case None | bool() | int() | float() | str():
            return repr(value).encode()
        case bytes():
            return value
        case np.ndarray() | np.generic():
            array = np.ascontiguousarray(value)
            return f"{array.dtype.str} {np.shape(value)} ".encode() + array.tobytes()
        case onnx.ModelProto():
            return bytes(value.SerializeToString(deterministic=True))
        case Path():
            return file_digest(value).encode()
    if callable(own := getattr(value, "digest", None)):
        return str(own()).encode()
    raise TypeError(f"a {type(value).__qualname__} has no digest: give it a method digest()")


def _hash(kind: str, content: bytes) -> bytes:
    return hashlib.sha256(kind.encode() + b"\0" + content).digest()
