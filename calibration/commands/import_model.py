"""`edged-calibrate import`: looks at an exported model and writes a recipe for it, with its guesses marked.

The recipe runs as it is; what is marked "guess" is to be checked by whoever knows the model.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx

from edged.engines.decoder_shapes import class_count
from edged.engines.decoder_spec import CenterFaceDecoder, Decoder, ScrfdDecoder, YunetDecoder, task_of
from edged.errors import UsageError
from edged.files import write_atomic
from edged.terminal import console
from edged_calibration.cache import disk_faults_told
from edged_calibration.commands.terminal import print_json
from edged_calibration.graph.entry import Entry, find_entry
from edged_calibration.graph.index import session
from edged_calibration.graph.model_file import Wanted, check_model, input_size, read_model
from edged_calibration.recipe.frames import open_frames
from edged_calibration.recipe.guess import ExportedModel, guess, labels_of, metadata_of
from edged_calibration.recipe.input_normalisation import IMAGE, Normalisation, to_bgr
from edged_calibration.recipe.preparation import Preparation, guess_preparation
from edged_calibration.recipe.resolve import Probe, resolve

_DETECTOR_SIDE, _CLASSIFIER_SIDE = 640, 224
_PROBED = 4
_LISTED = 8


@dataclass(frozen=True)
class Guessed:
    """A model in plain form, and what it was taken for."""

    model: onnx.ModelProto
    entry: Entry
    size: tuple[int, int, str]
    output: Decoder
    reason: str
    preparation: Preparation
    normalisation: Normalisation
    labels: list[str]
    probe: Probe


def run(arguments: argparse.Namespace) -> int:
    path: Path = arguments.model
    target: Path = arguments.to or Path(f"{_name(path)}.toml")
    if target.exists() and not arguments.force:
        raise UsageError(f"{target} is there already", "give another place with --to, or --force to replace it")
    guessed = guess_model(path, arguments.size, arguments.frames)
    with disk_faults_told(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, _recipe(path, target, guessed, arguments.frames, arguments.validation))
    output = guessed.output
    if arguments.json:
        summary = {"recipe": str(target), "task": task_of(output), "output": msgspec.to_builtins(output)}
        print_json({**summary, "reason": guessed.reason})
    else:
        out = console()
        out.print(f"{path}: {task_of(output)}; {guessed.reason}", markup=False)
        out.print(f"written: {target}; check the guesses in it, then: edged-calibrate all {target}", markup=False)
    return 0


def guess_model(path: Path, size: tuple[int, int] | None, frames: str | None) -> Guessed:
    """What an exported model is for. UsageError for one that cannot be worked on, or whose outputs nothing reads."""
    raw = read_model(path)
    metadata = metadata_of(raw)
    entry = find_entry(raw, str(path))
    width, height, size_reason = _size(entry, metadata, size, raw)
    model = check_model(raw, str(path), Wanted(width, height))
    probe = _probe(model, _UNIT, None)
    found = guess(ExportedModel(probe, width, height, metadata))
    if found is None:
        shapes = ", ".join(f"{name} {list(value.shape[1:])}" for name, value in probe.items())
        raise UsageError(
            f"{path}: no decoder reads its outputs {shapes}",
            "export it without post-processing of its own, or write [output] by docs/models.md",
        )
    output, reason = found
    preparation = guess_preparation(raw, output, entry.name, entry.pixels)
    (r, g, b), (dr, dg, db) = preparation.mean, preparation.std
    turned = preparation.color == "RGB"
    normalisation = Normalisation((b, g, r), (db, dg, dr)) if turned else Normalisation((r, g, b), (dr, dg, db))
    model = to_bgr(model) if turned else model
    labels = labels_of(metadata)
    probe = _probe(model, normalisation, frames)
    output = resolve(output, model, probe, len(labels) or None)
    return Guessed(
        model, entry, (width, height, size_reason), output, reason, preparation, normalisation, labels, probe
    )


_UNIT = Normalisation((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))


def _size(
    entry: Entry, metadata: dict[str, str], given: tuple[int, int] | None, model: onnx.ModelProto
) -> tuple[int, int, str]:
    """Of the input, and where it is from; "" where the file fixes it."""
    if given:
        return *given, "as given"
    if entry.width and entry.height:
        return entry.width, entry.height, ""
    numbers = [int(number) for number in re.findall(r"\d+", metadata.get("imgsz", ""))]
    if len(numbers) in (1, 2):
        return entry.width or numbers[-1], entry.height or numbers[0], "its metadata says imgsz"
    flat = all(len(value.type.tensor_type.shape.dim) == 2 for value in model.graph.output)
    side = _CLASSIFIER_SIDE if flat else _DETECTOR_SIDE
    return entry.width or side, entry.height or side, "guess: the file leaves it open"


def _probe(model: onnx.ModelProto, normalisation: Normalisation, frames: str | None) -> Probe:
    """The outputs of a picture of noise, of rendered scenes and, if there are any, of own pictures."""
    from edged.engines.manifest import InputSpec

    width, height = input_size(model)
    spec = InputSpec(IMAGE, width, height)
    pictures = [np.random.default_rng(0).integers(0, 256, (1, height, width, 3)).astype(np.uint8)]
    opened = open_frames(frames or f"scene://7?count={_PROBED}", Path(), spec, _PROBED)
    pictures += [opened.images(number, 1) for number in range(len(opened))]
    names, entry = [value.name for value in model.graph.output], model.graph.input[0].name
    running = session(model)
    runs = [running.run(names, {entry: normalisation.planes(picture)}) for picture in pictures]
    return {name: np.concatenate([run[at] for run in runs]) for at, name in enumerate(names)}


def _recipe(path: Path, target: Path, guessed: Guessed, frames: str | None, validation: str | None) -> str:
    """The text of the recipe."""
    output, preparation, size, labels = guessed.output, guessed.preparation, guessed.size, guessed.labels
    lines = [
        f"# Made by edged-calibrate import from {path.name}. Lines marked as a guess are to be checked.",
        f"name = {_toml(_name(path))}",
        f"model = {_toml(os.path.relpath(path, target.parent))}",
    ]
    if labels:
        lines.append(f"labels = {_toml(labels)}")
    elif isinstance(output, ScrfdDecoder | YunetDecoder | CenterFaceDecoder):
        lines.append('labels = ["face"]')
    else:
        count = class_count(output, {name: value.shape[1:] for name, value in guessed.probe.items()}) or 1
        lines.append(f"# labels = [...]  # guess: the file has none: class-0 to class-{count - 1}")
    lines += ["", f"[input]      # guess: {preparation.reason}"]
    if not guessed.entry.pixels:
        lines += [f"mean = {_toml(list(preparation.mean))}", f"std = {_toml(list(preparation.std))}"]
    lines.append(f'color = "{preparation.color}"      # guess')
    if (guessed.entry.width, guessed.entry.height) != size[:2]:
        lines += [f"width = {size[0]}      # {size[2]}", f"height = {size[1]}"]
    lines += ["", f"[output]      # {task_of(output)}; guess: {guessed.reason}"]
    lines += [f"{key} = {_toml(value)}" for key, value in _fields(output).items()]
    lines += _frames("calibration", frames, "scene://1?count=64", target)
    lines += _frames("validation", validation, "scene://2?count=120", target)
    for variant in ("fp16", "int8"):
        lines += ["", "[[variant]]", f'name = "{variant}"', f'precision = "{variant}"']
    return "\n".join(lines) + "\n"


def _frames(section: str, given: str | None, rendered: str, target: Path) -> list[str]:
    mark = "" if given else "      # guess: rendered pictures; give a folder of frames of your cameras"
    return ["", f"[{section}]", f"frames = {_toml(_place(given, target) if given else rendered)}{mark}"]


def _fields(output: Decoder) -> dict[str, Any]:
    """What differs from the defaults, and the decoder's name."""
    fields = {"decoder": output.__struct_config__.tag}
    for field in msgspec.structs.fields(output):
        value = getattr(output, field.name)
        if value is not None and value != field.default:
            fields[field.name] = value
    return fields


def _place(given: str, target: Path) -> str:
    return given if given.startswith("scene:") else os.path.relpath(given, target.parent)


def _toml(value: Any) -> str:
    """A value of a recipe. JSON's strings, numbers and lists are TOML's too."""
    return json.dumps(value, ensure_ascii=False)


def _name(path: Path) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("-._")[:63] or "model"
