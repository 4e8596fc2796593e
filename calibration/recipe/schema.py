"""A recipe: the TOML file that says how a float model becomes a bundle, as frozen structs.

In: a path. Out: a `Recipe`, or a UsageError that names the file, the key, what was expected and what to do. Paths in a
recipe are relative to the recipe's own directory.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from edged.engines.decoder_spec import Decoder
from edged.engines.manifest import Name, Side
from edged.errors import UsageError
from edged.toml_file import read_toml
from edged.validate import convert
from edged_calibration.options import GateOptions, HalveOptions, Points, QuantizeOptions, SparsifyOptions

Target = Literal["x86", "arm", "trt"]
Count = Annotated[int, Meta(ge=1, le=1_000_000, description="a whole number, at least 1")]
Channels = Annotated[tuple[float, float, float], Meta(description="three numbers, one for each channel")]


class InputOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """What the float model's input holds: (p - mean) / std of pixels p from 0 to 255, in the order `color`."""

    mean: Channels = (0.0, 0.0, 0.0)
    std: Channels = (255.0, 255.0, 255.0)
    color: Literal["RGB", "BGR"] = "RGB"
    pad: Annotated[int, Meta(ge=0, le=255, description="a whole number from 0 to 255")] = 114
    width: Side | None = None
    """only for a model whose input has no fixed size"""
    height: Side | None = None
    name: str = ""
    """of the picture's input, where the model has several that could be it"""
    layout: Literal["NCHW", "NHWC"] | None = None
    """only where the shape leaves it open"""
    constants: dict[str, list[float]] = {}
    """values of the inputs beside the picture; im_shape, scale_factor and orig_target_sizes are known"""


class CalibrationOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Pictures that the ranges are measured on: a folder, a .npy file of them, or scene://SEED?count=N."""

    frames: str
    count: Count = 512
    """at most; taken evenly from the folder"""


class ValidationOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Other pictures, that accuracy is measured on."""

    frames: str
    labels: str = ""
    """a COCO .json, a .csv of file,label, "folders" or "scene"; empty: agreement with the float model is measured"""
    count: Count = 100_000


class VariantOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """One variant of the bundle. `points` stands in for the gate's own limit, where one variant may lose more."""

    name: Name
    precision: Literal["fp32", "fp16", "int8"]
    sparse: bool = False
    points: Points | None = None


class Recipe(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    name: Name
    model: str
    output: Decoder
    calibration: CalibrationOptions
    validation: ValidationOptions
    variant: Annotated[list[VariantOptions], Meta(min_length=1, max_length=16)]
    labels: list[str] | str = ""
    """names of the classes, or a text file with one a line; empty: class-0, class-1 ..."""
    input: InputOptions = InputOptions()
    targets: Annotated[tuple[Target, ...], Meta(min_length=1)] = ("x86", "arm", "trt")
    """which INT8 files are made: for ONNX Runtime on x86-64 and on aarch64, and for TensorRT"""
    sparsify: SparsifyOptions = SparsifyOptions()
    quantize: QuantizeOptions = QuantizeOptions()
    halve: HalveOptions = HalveOptions()
    gate: GateOptions = GateOptions()

    def limit(self, variant: VariantOptions) -> float:
        """The points that a variant may lose."""
        if variant.points is not None:
            return variant.points
        return self.gate.int8_points if variant.precision == "int8" else self.gate.fp16_points


@dataclass(frozen=True)
class RecipeFile:
    """A recipe and where it came from."""

    path: Path
    recipe: Recipe
    sha256: str

    def beside(self, name: str) -> Path:
        """A path of the recipe, seen from the recipe's directory."""
        return self.path.parent / name


def load_recipe(path: Path) -> RecipeFile:
    """Read and check a recipe. UsageError says what to fix."""
    data = read_toml(path, "a recipe (calibration/recipes has examples)")
    recipe = convert(data, Recipe, str(path))
    _check(path, recipe)
    return RecipeFile(path, recipe, hashlib.sha256(path.read_bytes()).hexdigest())


def _check(path: Path, recipe: Recipe) -> None:
    names = [variant.name for variant in recipe.variant]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"{path}: variant.name {twice!r} appears twice", "give each variant a name of its own")
    if all(variant.precision == "int8" for variant in recipe.variant):
        raise UsageError(
            f"{path}: no variant is fp16 or fp32",
            "add one: the others are measured against it, on the device too",
        )
    if min(recipe.input.std) <= 0:
        raise UsageError(
            f"{path}: input.std is {list(recipe.input.std)}, expected numbers above 0", "correct input.std"
        )
    if (recipe.input.width is None) != (recipe.input.height is None):
        raise UsageError(f"{path}: input.width and input.height go together", "give both, or neither")
    if recipe.calibration.frames == recipe.validation.frames:
        raise UsageError(
            f"{path}: calibration and validation take the same frames",
            "accuracy has to be measured on pictures that were not calibrated on: give two sets",
        )


def options_json(*options: Any) -> str:
    """The options as one text, the same for the same values: for digests."""
    return msgspec.json.encode([msgspec.to_builtins(option) for option in options], order="deterministic").decode()
