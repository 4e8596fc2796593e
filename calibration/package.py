"""The bundle on disk: engine files and their manifest, written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from calibration.evaluate import Accuracy
from edged.engines.manifest import DriftStatistics, EngineFile, Manifest

MANIFEST = "manifest.json"


def drift_statistics(images: NDArray[np.uint8]) -> DriftStatistics:
    """Brightness, contrast and luma percentiles of BGR pictures [n, height, width, 3], as a guard compares them."""
    weights = np.array([0.114, 0.587, 0.299], np.float32)
    luma = (images.astype(np.float32) @ weights).reshape(len(images), -1)
    brightness, contrast = luma.mean(axis=1), luma.std(axis=1)
    low, high = np.percentile(luma, (1, 99), axis=1)
    figures = [brightness.mean(), brightness.std(), contrast.mean(), contrast.std(), low.mean(), high.mean()]
    return DriftStatistics(*(round(float(figure), 3) for figure in figures))


def engine_file(runtime: str, arch: str, path: str, content: bytes, accuracy: Accuracy) -> EngineFile:
    """What the manifest says of one file."""
    fields: dict[str, Any] = {
        "runtime": runtime,
        "arch": arch,
        "path": path,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "accuracy": accuracy.figures(),
        "images": accuracy.images,
    }
    return msgspec.convert(fields, EngineFile)  # unlike the constructor, checks the values


def write_bundle(directory: Path, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Put the files and their manifest into `directory`, in place of what was there.

    Everything is written to a temporary directory beside it first, so that no reader ever finds half a bundle there.
    Raises ValueError if the files are not exactly those of the manifest, digests included.
    """
    encoded = _checked(manifest, files)
    directory = directory.absolute()
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        for name, content in {**files, MANIFEST: encoded}.items():
            _write(staging / name, content)
        staging.chmod(0o755)
        _sync(staging)
        _swap(staging, directory)
        _sync(directory.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _checked(manifest: Manifest, files: Mapping[str, bytes]) -> bytes:
    encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    msgspec.json.decode(encoded, type=Manifest)
    described = {file.path: file for variant in manifest.variants for file in variant.files}
    if described.keys() != files.keys():
        raise ValueError(f"the manifest names {sorted(described)}, the files are {sorted(files)}")
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != described[name].sha256 or len(content) != described[name].bytes:
            raise ValueError(f"{name} is not the file that the manifest describes")
    return encoded


def _swap(staging: Path, directory: Path) -> None:
    """Rename `staging` to `directory`; a bundle that is in the way is moved aside first, and back on failure."""
    if not directory.exists():
        os.rename(staging, directory)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{directory.name}-old-", dir=directory.parent))
    try:
        os.rename(directory, aside / "old")
        try:
            os.rename(staging, directory)
        except OSError:
            os.rename(aside / "old", directory)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
