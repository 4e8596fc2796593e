"""What differs between two bundles: files, accuracy, sizes, tensors, calibration. Two manifests in, lines out. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from edged.engines.manifest import EngineFile, Manifest


class Difference(Struct, frozen=True, forbid_unknown_fields=True):
    """`first` or `second` is None where only the other bundle has it; `points`: by how much accuracy rises."""

    what: str
    first: str | None
    second: str | None
    points: float | None = None


def differences(first: Manifest, second: Manifest) -> list[Difference]:
    """In the order of the manifest: the model, then each file, then where they come from."""
    return [*_model(first, second), *_files(first, second), *_provenance(first, second)]


def _model(first: Manifest, second: Manifest) -> Iterator[Difference]:
    for key in ("name", "task", "metric", "reference", "max_batch"):
        yield from _unlike(key, getattr(first, key), getattr(second, key))
    for key in ("input", "output", "drift"):
        before, after = (msgspec.to_builtins(getattr(manifest, key)) or {} for manifest in (first, second))
        for name in dict.fromkeys([*before, *after]):
            yield from _unlike(f"{key}.{name}", before.get(name), after.get(name))
    if first.labels != second.labels:
        gone, new = (set(a.labels) - set(b.labels) for a, b in ((first, second), (second, first)))
        names_or_counts = [
            ", ".join(sorted(names)) or f"{count} labels"
            for names, count in ((gone, len(first.labels)), (new, len(second.labels)))
        ]
        yield Difference("labels", names_or_counts[0], names_or_counts[1])


def _files(first: Manifest, second: Manifest) -> Iterator[Difference]:
    before, after = _by_place(first), _by_place(second)
    for place in dict.fromkeys([*before, *after]):
        one, other = before.get(place), after.get(place)
        if one is None or other is None:
            yield Difference(place, _told(one), _told(other))
            continue
        if one.sha256 != other.sha256:
            yield Difference(f"{place} digest", one.sha256[:12], other.sha256[:12])
        yield from _unlike(f"{place} bytes", one.bytes, other.bytes)
        for metric in dict.fromkeys([*one.accuracy, *other.accuracy]):
            values = one.accuracy.get(metric), other.accuracy.get(metric)
            if values[0] != values[1]:
                known = None not in values
                points = round(((values[1] or 0) - (values[0] or 0)) * 100, 2) if known else None
                yield Difference(f"{place} {metric}", _text(values[0]), _text(values[1]), points)


def _provenance(first: Manifest, second: Manifest) -> Iterator[Difference]:
    for key in dict.fromkeys([*first.provenance, *second.provenance]):
        yield from _unlike(f"provenance {key}", first.provenance.get(key), second.provenance.get(key))


def _by_place(manifest: Manifest) -> dict[str, EngineFile]:
    return {f"{v.name} {file.runtime}/{file.arch}": file for v in manifest.variants for file in v.files}


def _told(file: EngineFile | None) -> str | None:
    return None if file is None else f"{file.path}, {file.bytes} bytes"


def _unlike(what: str, one: Any, other: Any) -> Iterator[Difference]:
    if one != other:
        yield Difference(what, _text(one), _text(other))


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
