"""What lies on disk: a bundle's manifest and its engine files, verified before anything is loaded.

In: the path of a bundle directory. Out: a `Bundle` whose manifest holds together, and the verified bytes of a file.
Everything in a bundle is hostile until checked. A file is opened once, without following a link, and the bytes that
were hashed are the bytes that are loaded: nobody can change them in between. Start-up only, on the thread that starts.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import msgspec

from edged.engines.decoder_shapes import tensor_names, tensor_shapes
from edged.engines.decoder_spec import CenterDecoder, task_of
from edged.engines.engine import ModelTensors, TensorSpec
from edged.engines.manifest import EngineFile, Manifest, VariantSpec
from edged.errors import UsageError

MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 4 << 20
MAX_FILE_BYTES = 4 << 30
MAX_INPUT_BYTES = 64 << 20  # of one frame; above it the shared input of a batch is no longer a small thing
MAX_LABEL_CHARACTERS = 100

_FIX = "repair it, or package the bundle again with `edged-calibrate package`"
_COPY = "copy the bundle again, or package it again with `edged-calibrate package`"


@dataclass(frozen=True)
class Bundle:
    """A verified manifest and the directory it came from (resolved: a link swapped later changes nothing)."""

    directory: Path
    manifest: Manifest

    def variant(self, name: str) -> VariantSpec:
        for variant in self.manifest.variants:
            if variant.name == name:
                return variant
        known = ", ".join(v.name for v in self.manifest.variants)
        raise UsageError(f"bundle {self.manifest.name} has no variant {name!r}", f"it has: {known}")


def load_bundle(path: str | Path) -> Bundle:
    """Read and verify `manifest.json`. UsageError names the file, the key, what was expected and what to do.

    The engine files are verified one by one (`verify_file`), so that one bad variant does not cost the others.
    """
    directory = Path(path)
    try:
        directory = directory.resolve(strict=True)
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        raise UsageError(
            f"bundle {str(path)!r}: {_reason(error)}", "set `bundle` to the directory that holds manifest.json"
        ) from error
    if not directory.is_dir():
        raise UsageError(f"bundle {directory} is not a directory", "set `bundle` to the directory of manifest.json")
    file = directory / MANIFEST_NAME
    content = _read_regular(file, MAX_MANIFEST_BYTES)
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except msgspec.ValidationError as error:
        what, _, key = str(error).partition(" - at ")
        where = key.strip("`").removeprefix("$.") if key else "the whole file"
        raise UsageError(f"{file}: {_printable(where)}: {_printable(what)}", _FIX) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{file} is not JSON: {error}", _FIX) from error
    _check_names(file, manifest)
    _check_tensors(file, manifest)
    _check_accuracy(file, manifest)
    return Bundle(directory, manifest)


def select_file(
    variant: VariantSpec, runtime: str, machine: str, refuses: Callable[[EngineFile], str | None] = lambda file: None
) -> EngineFile:
    """The variant's file for this runtime and `platform.machine()`; one made for the machine beats one for any.
    `refuses` gives the reason why the runtime here cannot take a file, before any of it is read."""
    reasons = []
    for arch in (machine, "any"):
        for file in variant.files:
            if file.runtime != runtime or file.arch != arch:
                continue
            why = refuses(file)
            if why is None:
                return file
            reasons.append(f"{file.path} {why}")
    if reasons:
        raise UsageError(f"variant {variant.name}: {'; '.join(reasons)}", "build it here: edged-calibrate build BUNDLE")
    offered = ", ".join(sorted({f"{file.runtime}/{file.arch}" for file in variant.files}))
    raise UsageError(
        f"variant {variant.name} has no file for {runtime} on {machine}",
        f"it has {offered}; build one for this machine with `edged-calibrate`",
    )


def verify_file(bundle: Bundle, file: EngineFile) -> bytes:
    """The bytes of an engine file, if they are those of the manifest, by size and SHA-256. Nothing is loaded."""
    path = bundle.directory / file.path
    content = _read_regular(path, MAX_FILE_BYTES, exact_bytes=file.bytes)
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        raise UsageError(f"{path}: its SHA-256 is {digest[:12]}..., the manifest says {file.sha256[:12]}...", _COPY)
    return content


def model_tensors(manifest: Manifest) -> ModelTensors:
    """The tensors that every engine of the bundle must have; classes are counted by the labels."""
    spec, output, classes = manifest.input, manifest.output, len(manifest.labels)
    picture = (spec.height, spec.width, 3) if spec.layout == "NHWC" else (3, spec.height, spec.width)
    image = TensorSpec(spec.name, spec.dtype, picture)
    shapes = tensor_shapes(output, spec.width, spec.height, classes)
    return ModelTensors(image, tuple(TensorSpec(name, "float32", shape) for name, shape in shapes.items()))


def _read_regular(path: Path, limit_bytes: int, exact_bytes: int | None = None) -> bytes:
    """All of a regular file, through one descriptor; never a link, a pipe, a device or more than `limit_bytes`."""
    try:
        # O_NONBLOCK: opening a pipe that nobody writes to must not hang the start
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UsageError(f"{path} is a symbolic link", "put the file itself into the bundle") from error
        raise UsageError(f"{path} cannot be read: {_reason(error)}", _COPY) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path} is not a regular file", "put the file itself into the bundle")
        if exact_bytes is not None and status.st_size != exact_bytes:
            raise UsageError(f"{path} has {status.st_size} bytes, the manifest says {exact_bytes}", _COPY)
        if status.st_size > limit_bytes:
            raise UsageError(f"{path} has {status.st_size} bytes, at most {limit_bytes} are read", _FIX)
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            content = stream.read(status.st_size + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {_reason(error)}", _COPY) from error
    finally:
        os.close(descriptor)
    if len(content) != status.st_size:
        raise UsageError(f"{path} changed while it was read", "try again once nothing writes to the bundle")
    return content


def _check_names(file: Path, manifest: Manifest) -> None:
    labels = manifest.labels
    _check_unique(file, "labels", labels)
    for index, label in enumerate(labels):
        if not label.strip() or not label.isprintable() or len(label) > MAX_LABEL_CHARACTERS:
            _refuse(
                file,
                f"labels[{index}]",
                f"{label[:20]!r} is not 1 to {MAX_LABEL_CHARACTERS} printable characters",
            )
    names = [variant.name for variant in manifest.variants]
    _check_unique(file, "variants[].name", names)
    if manifest.reference not in names:
        _refuse(file, "reference", f"{manifest.reference!r} is not one of the variants ({', '.join(names)})")
    for index, variant in enumerate(manifest.variants):
        _check_unique(file, f"variants[{index}].files[] (runtime/arch)", [_place(entry) for entry in variant.files])
        for number, entry in enumerate(variant.files):
            if entry.built is not None and entry.runtime != "tensorrt":
                _refuse(file, f"variants[{index}].files[{number}].built", "only a plan of TensorRT is built somewhere")
            if entry.bytes > MAX_FILE_BYTES:
                _refuse(file, f"variants[{index}].files[{number}].bytes", f"{entry.bytes} is above {MAX_FILE_BYTES}")


def _place(entry: EngineFile) -> str:
    """Where a file runs: no two of a variant run at the same place."""
    built = entry.built
    return f"{entry.runtime}/{entry.arch}" + (f"/{built.tensorrt}/{built.capability}/{built.device}" if built else "")


def _check_tensors(file: Path, manifest: Manifest) -> None:
    spec, output = manifest.input, manifest.output
    task = task_of(output)
    if manifest.task != task:
        _refuse(file, "task", f"{manifest.task!r} does not go with this output decoder, which gives {task!r}")
    if isinstance(output, CenterDecoder) and (spec.width % output.stride or spec.height % output.stride):
        _refuse(file, "output.stride", f"{output.stride} does not divide the input {spec.width}x{spec.height}")
    tensors = [spec.name, *tensor_names(output)]
    _check_unique(file, "the names of input and output tensors", tensors)
    if not all(name and name.isprintable() for name in tensors):
        _refuse(file, "the names of input and output tensors", "one is empty or not printable")
    plain = (spec.layout, spec.color, *spec.scale, *spec.bias) == ("NHWC", "BGR", 1, 1, 1, 0, 0, 0)
    if not (plain if spec.raw else spec.layout == "NCHW"):
        _refuse(file, "input", "uint8 is NHWC, BGR, without scale and bias; every other dtype is NCHW")
    if not all(math.isfinite(value) for value in (*spec.scale, *spec.bias)) or 0 in spec.scale:
        _refuse(file, "input", "scale and bias must be numbers, and scale not 0")
    if spec.width * spec.height * 3 > MAX_INPUT_BYTES:
        _refuse(file, "input", f"{spec.width}x{spec.height} is larger than {MAX_INPUT_BYTES >> 20} MiB a frame")


def _check_accuracy(file: Path, manifest: Manifest) -> None:
    """A measured file has the bundle's metric; an unmeasured one has no figures at all, and is never the reference."""
    for index, variant in enumerate(manifest.variants):
        for number, entry in enumerate(variant.files):
            key = f"variants[{index}].files[{number}].accuracy"
            if manifest.metric not in entry.accuracy and (entry.accuracy or variant.name == manifest.reference):
                _refuse(file, key, f"the bundle's metric {manifest.metric!r} is missing (variant {variant.name})")
            if entry.accuracy and not entry.images:
                _refuse(file, key, f"figures measured on 0 images are no measurement (variant {variant.name})")


def _check_unique(file: Path, key: str, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            _refuse(file, key, f"{name[:MAX_LABEL_CHARACTERS]!r} appears twice")
        seen.add(name)


def _refuse(file: Path, key: str, what: str) -> NoReturn:
    raise UsageError(f"{file}: {key}: {what}", _FIX)


def _printable(text: str) -> str:
    """A key or a value of the manifest may be anything; a terminal or a log gets one line, no control codes."""
    return "".join(character if character.isprintable() else "?" for character in text[:300])


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
