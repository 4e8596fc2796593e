"""A bundle appears whole or not at all, and says of its files what they are."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec
import pytest

from edged import files as file_system
from edged.engines.bundle import MANIFEST_NAME as MANIFEST
from edged.engines.bundle import load_bundle, verify_file
from edged.engines.decoder_spec import CenterDecoder
from edged.engines.manifest import InputSpec, Manifest, VariantSpec
from edged.errors import UsageError
from edged_calibration.bundle.write import engine_file, write_bundle
from edged_calibration.evaluate.metrics import Evaluation

FILES = {"a.onnx": b"one" * 100, "b.onnx": b"two" * 50}
MEASURED = Evaluation("map50", {"map50_95": 0.7, "map50": 0.9123, "map75": 0.8}, 10, [0.9])


def manifest(files: dict[str, bytes], name: str = "small") -> Manifest:
    entries = [engine_file("onnxruntime", "any", path, content, MEASURED) for path, content in files.items()]
    return Manifest(
        version=1,
        name=name,
        task="detect",
        labels=["x"],
        input=InputSpec(name="image", width=64, height=32),
        output=CenterDecoder(scores="cls", boxes="box", stride=8),
        metric="map50",
        reference="v0",
        variants=[VariantSpec(f"v{i}", "fp32", False, [entry]) for i, entry in enumerate(entries)],
    )


def test_what_is_written_loads_and_verifies(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", manifest(FILES), FILES)
    bundle = load_bundle(tmp_path / "bundle")
    assert [verify_file(bundle, variant.files[0]) for variant in bundle.manifest.variants] == list(FILES.values())
    entry = bundle.manifest.variants[0].files[0]
    assert entry.accuracy == {"map50_95": 0.7, "map50": 0.9123, "map75": 0.8} and entry.images == 10
    assert entry.sha256 == hashlib.sha256(FILES["a.onnx"]).hexdigest() and entry.bytes == 300
    assert sorted(os.listdir(tmp_path)) == ["bundle"]


def test_an_older_bundle_is_replaced_whole(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", manifest(FILES), FILES)
    newer = {"c.onnx": b"three"}
    write_bundle(tmp_path / "bundle", manifest(newer, "newer"), newer)
    assert sorted(os.listdir(tmp_path / "bundle")) == ["c.onnx", MANIFEST]
    assert load_bundle(tmp_path / "bundle").manifest.name == "newer"
    assert os.listdir(tmp_path) == ["bundle"]


def test_a_failure_leaves_the_older_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(tmp_path / "bundle", manifest(FILES), FILES)

    def full_disk(fresh: Path, path: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(file_system, "replace_directory", full_disk)
    newer = {"c.onnx": b"three"}
    with pytest.raises(OSError, match="no space"):
        write_bundle(tmp_path / "bundle", manifest(newer), newer)
    assert set(os.listdir(tmp_path / "bundle")) == {*FILES, MANIFEST}
    assert os.listdir(tmp_path) == ["bundle"]


def test_a_failure_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(descriptor: int) -> None:
        raise OSError("input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="input/output"):
        write_bundle(tmp_path / "bundle", manifest(FILES), FILES)
    assert os.listdir(tmp_path) == []


def test_the_bundle_is_complete_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = file_system.replace_directory
    arrived: list[set[str]] = []

    def watched(fresh: Path, path: Path) -> None:
        arrived.append(set(os.listdir(fresh)))
        replace(fresh, path)

    monkeypatch.setattr(file_system, "replace_directory", watched)
    write_bundle(tmp_path / "bundle", manifest(FILES), FILES)
    write_bundle(tmp_path / "bundle", manifest(FILES), FILES)
    assert arrived == [{*FILES, MANIFEST}] * 2


@pytest.mark.parametrize(
    "files",
    [{"a.onnx": FILES["a.onnx"]}, {**FILES, "c.onnx": b"extra"}, {**FILES, "b.onnx": b"other"}],
    ids=["missing", "extra", "changed"],
)
def test_files_that_the_manifest_does_not_describe_are_refused(tmp_path: Path, files: dict[str, bytes]) -> None:
    with pytest.raises(ValueError, match="manifest"):
        write_bundle(tmp_path / "bundle", manifest(FILES), files)
    assert os.listdir(tmp_path) == []


def test_an_unknown_runtime_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        engine_file("abacus", "any", "a.onnx", b"x", MEASURED)


def test_profiles_of_the_older_bundle_are_kept(tmp_path: Path) -> None:
    """They are tied to digests: of files that stay the same they stay true."""
    write_bundle(tmp_path / "bundle", manifest(FILES), FILES)
    (tmp_path / "bundle" / "profile.some-device.json").write_text("{}")
    write_bundle(tmp_path / "bundle", manifest(FILES), FILES)
    assert (tmp_path / "bundle" / "profile.some-device.json").read_text() == "{}"


def test_a_directory_that_is_no_bundle_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").write_text("dear")
    with pytest.raises(UsageError, match="is no bundle"):
        write_bundle(tmp_path / "home", manifest(FILES), FILES)
    assert os.listdir(tmp_path / "home") == ["letter"] and os.listdir(tmp_path) == ["home"]
