"""The description of a bundle: `manifest.json`, as frozen structs. Pure data; `bundle.py` reads and verifies it.

A bundle is a directory: the manifest and the engine files it names. One model, several variants of it; a variant may
have a file per runtime and machine, all from one calibration, each with its own digest and its own measured accuracy.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from edged.engines.decoder_spec import Decoder, Fraction, Task

# \Z, not $: that would let a final newline through
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}\Z")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
RelativePath = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,126}\Z")]
Side = Annotated[int, Meta(ge=8, le=8192)]


class InputSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """The one input tensor: a letterboxed picture. uint8 [N, height, width, 3], BGR, where normalisation is inside the
    graph, as every file that edged-calibrate makes has it; else [N, 3, height, width] of value * scale + bias, which
    only a GPU prepares."""

    name: str
    width: Side
    height: Side
    pad: Annotated[int, Meta(ge=0, le=255)] = 114
    dtype: Literal["uint8", "float16", "float32", "int8"] = "uint8"
    layout: Literal["NHWC", "NCHW"] = "NHWC"
    color: Literal["BGR", "RGB"] = "BGR"
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    bias: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def raw(self) -> bool:
        """Whether it is the bytes of the picture."""
        return self.dtype == "uint8"


class Layers(Struct, frozen=True, forbid_unknown_fields=True):
    """What the engine inspector reports of a plan's layers: how many have weights, how many of those compute in INT8,
    have weights that qualify for sparse math, and really use a sparse kernel; None where it does not report it."""

    weighted: Annotated[int, Meta(ge=0)]
    int8: Annotated[int, Meta(ge=0)]
    sparse_eligible: Annotated[int, Meta(ge=0)] | None
    sparse_used: Annotated[int, Meta(ge=0)] | None


class Built(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a TensorRT plan comes from: it runs on that version and that compute capability, and nowhere else."""

    tensorrt: Annotated[str, Meta(pattern=r"^[0-9]+(\.[0-9]+){1,3}\Z")]
    capability: Annotated[str, Meta(pattern=r"^[0-9]+\.[0-9]+\Z")]
    device: Annotated[str, Meta(min_length=1, max_length=200)]
    source: Sha256
    """of the ONNX file it was built from, whose accuracy it is taken to have"""
    max_batch: Annotated[int, Meta(ge=1, le=64)]
    layers: Layers | None = None


class EngineFile(Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a variant. `arch` is that of `platform.machine()`, or "any". A plan of TensorRT has `built`; without
    it, a file for TensorRT is the ONNX file that plans are built from.

    `accuracy` holds figures measured on `images` held-out images, of this very file (digest) or, for a plan, of the one
    it was built from: metric -> 0..1.
    """

    runtime: Literal["onnxruntime", "tensorrt"]
    path: RelativePath
    sha256: Sha256
    bytes: Annotated[int, Meta(ge=1)]
    accuracy: dict[str, Fraction]
    images: Annotated[int, Meta(ge=0)]
    arch: Literal["any", "x86_64", "aarch64"] = "any"
    built: Built | None = None


class VariantSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """One variant of the model; `sparse` says that its weights carry the 2:4 pattern, not that a runtime uses it."""

    name: Name
    precision: Literal["fp32", "fp16", "int8"]
    sparse: bool
    files: Annotated[list[EngineFile], Meta(min_length=1)]


class DriftStatistics(Struct, frozen=True, forbid_unknown_fields=True):
    """Of the calibration set, over its images' luma (0..255): mean and standard deviation across images."""

    brightness_mean: float
    brightness_std: float
    contrast_mean: float
    contrast_std: float
    low_percentile_mean: float
    """mean over the images of each one's 1st luma percentile"""
    high_percentile_mean: float
    """mean over the images of each one's 99th luma percentile"""


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """`manifest.json`, whole. `metric` names the key of `accuracy` that the governor ranks variants by."""

    version: Literal[1]
    name: Name
    task: Task
    labels: Annotated[list[str], Meta(min_length=1, max_length=10000)]
    input: InputSpec
    output: Decoder
    metric: str
    reference: Name
    """The variant whose accuracy the others are measured against."""
    variants: Annotated[list[VariantSpec], Meta(min_length=1, max_length=16)]
    max_batch: Annotated[int, Meta(ge=1, le=64)] = 8
    drift: DriftStatistics | None = None
    provenance: dict[str, str] = {}
    """Tool versions, recipe, seeds, digest of the calibration set."""
