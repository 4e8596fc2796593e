"""The bundle on disk: engine files and their manifest, written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from edged import files as file_system
from edged.engines.bundle import MANIFEST_NAME
from edged.engines.decoder_spec import task_of
from edged.engines.manifest import EngineFile, Manifest, VariantSpec
from edged.errors import EdgedError, UsageError
from edged_calibration.bundle.provenance import provenance
from edged_calibration.evaluate.gate import refusal
from edged_calibration.evaluate.metrics import Evaluation
from edged_calibration.job import Job

MAX_BATCH: Final = 8


def package(job: Job, directory: Path) -> Manifest:
    """Write the bundle of a job. EdgedError, and nothing is written, if one of its files fails the gate."""
    check_gate(job)
    contents = {
        name: file.model.SerializeToString(deterministic=True)
        for variant in job.recipe.variant
        for name, file in job.files(variant).items()
    }
    manifest = _manifest(job, contents)
    write_bundle(directory, manifest, contents)
    return manifest


def check_gate(job: Job) -> None:
    """EdgedError with the reason, and the layers to look at, if a file fails."""
    worst = {
        file: [error.node for error in job.errors(variant).layers]
        for variant in job.recipe.variant
        for file in job.files(variant)
    }
    refused = refusal(job.verdicts, worst)
    if refused is not None:
        raise EdgedError(*refused)


def _manifest(job: Job, contents: Mapping[str, bytes]) -> Manifest:
    recipe, task = job.recipe, job.inputs.task
    variants = [
        VariantSpec(
            variant.name,
            variant.precision,
            variant.sparse,
            [
                engine_file(runtime, arch, name, contents[name], job.evaluation(variant, name))
                for name in job.files(variant)
                for runtime, arch in _places(name)
            ],
        )
        for variant in recipe.variant
    ]
    floats = sorted((v for v in recipe.variant if v.precision != "int8"), key=lambda v: v.sparse)
    return Manifest(
        version=1,
        name=recipe.name,
        task=task_of(task.output),
        labels=list(task.labels),
        input=task.input,
        output=task.output,
        metric=job.baseline.metric,
        reference=floats[0].name,
        variants=variants,
        max_batch=job.inputs.batch or MAX_BATCH,
        drift=job.frames.drift,
        provenance=provenance(job),
    )


def _places(file: str) -> list[tuple[str, str]]:
    """(runtime, architecture) that a file is for, by its name: a float file serves all."""
    match file.removesuffix(".onnx").rpartition(".")[2]:
        case "x86_64" | "aarch64" as arch:
            return [("onnxruntime", arch)]
        case "tensorrt":
            return [("tensorrt", "any")]
        case _:
            return [("onnxruntime", "any"), ("tensorrt", "any")]


def engine_file(runtime: str, arch: str, path: str, content: bytes, found: Evaluation) -> EngineFile:
    """What the manifest says of one file."""
    fields: dict[str, Any] = {
        "runtime": runtime,
        "arch": arch,
        "path": path,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "accuracy": found.figures,
        "images": found.images,
    }
    return msgspec.convert(fields, EngineFile)  # unlike the constructor, checks the values


def write_bundle(directory: Path, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Put the files and their manifest into `directory`, in place of what was there.

    Everything is written to a temporary directory beside it first, so that no reader ever finds half a bundle there.
    Raises ValueError if the files are not exactly those of the manifest, digests included.
    """
    encoded = _checked(manifest, files)
    directory = directory.absolute()
    kept = _profiles(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        for name, content in {**kept, **files, MANIFEST_NAME: encoded}.items():
            _write(staging / name, content)
        staging.chmod(0o755)
        file_system.sync(staging)
        file_system.replace_directory(staging, directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _profiles(directory: Path) -> dict[str, bytes]:
    """What was measured of the bundle that is replaced; tied to digests, it stays true of files that stay the same."""
    if not directory.exists():
        return {}
    if not directory.is_dir() or not ((directory / MANIFEST_NAME).is_file() or not any(directory.iterdir())):
        raise UsageError(f"{directory} is there already and is no bundle", "choose another place with --out")
    return {path.name: path.read_bytes() for path in directory.glob("profile.*.json")}


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


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
