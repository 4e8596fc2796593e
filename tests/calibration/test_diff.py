"""Differences of two manifests, in order and in words."""

from __future__ import annotations

from msgspec import structs

from edged.engines.bundle import load_bundle
from edged.engines.manifest import Manifest
from edged_calibration.bundle.diff import differences

SHIPPED = "edged/bundles/demo"


def shipped() -> Manifest:
    return load_bundle(SHIPPED).manifest


def test_a_bundle_does_not_differ_from_itself() -> None:
    assert differences(shipped(), shipped()) == []


def test_what_changed_is_reported_with_points() -> None:
    first = shipped()
    file = next(file for file in first.variants[1].files if file.arch == "x86_64")
    changed = structs.replace(file, sha256="0" * 64, bytes=1, accuracy={"map50_95": file.accuracy["map50_95"] - 0.02})
    second = structs.replace(
        first,
        name="other",
        labels=[*first.labels[:-1], "lever"],
        variants=[first.variants[0], structs.replace(first.variants[1], files=[changed])],
        provenance={},
    )
    found = {entry.what: entry for entry in differences(first, second)}
    assert (found["name"].first, found["name"].second) == ("demo", "other")
    assert (found["labels"].first, found["labels"].second) == ("knob", "lever")
    place = "int8-sparse onnxruntime/x86_64"
    assert found[f"{place} digest"].second == "0" * 12
    assert found[f"{place} map50_95"].points == -2.0
    assert found[f"{place} map50"].second is None and found[f"{place} map50"].points is None
    gone = found["int8-sparse onnxruntime/aarch64"]
    assert gone.first is not None and "aarch64.onnx" in gone.first and gone.second is None
    assert "provenance tools" in found
