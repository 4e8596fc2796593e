"""What a recipe may say about each step, as frozen structs; every key has its default here and nowhere else."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Points = Annotated[float, Meta(gt=0, lt=100, description="a number of points, above 0 and below 100")]


class SparsifyOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Which layers become 2:4 sparse, and how."""

    method: Literal["obs", "wanda", "magnitude"] = "obs"
    layers: Literal["all", "worthwhile", "3x3"] = "worthwhile"
    dense: list[str] = []
    """names of nodes, or globs, that are never pruned"""
    rows: Annotated[int, Meta(ge=256, le=1 << 20, description="a whole number from 256 to 1048576")] = 16384
    """input rows drawn for each layer's statistics"""
    seed: Annotated[int, Meta(ge=0, description="a whole number, at least 0")] = 0
    most_error: Annotated[float, Meta(gt=0, description="a number above 0, such as 0.3")] = 1.0
    """a layer whose output would change by more than this share, root mean square, stays dense"""
    fine_tune_steps: Annotated[int, Meta(ge=0, description="a whole number, at least 0")] = 0
    """batches of calibration frames on which the pruned model learns to answer as the dense one; needs edged[train]"""
    model: str = ""
    """a float ONNX that is pruned and fine-tuned already, used instead of pruning; relative to the recipe"""


class QuantizeOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """How activations get their ranges, and which nodes stay float."""

    method: Literal["best", "max", "percentile", "entropy", "mse"] = "best"
    """"best" tries all of them on the pictures kept for choices, and keeps the one that scores best"""
    percentile: Annotated[float, Meta(gt=50, le=100, description="a number above 50 and at most 100")] = 99.999
    keep_float: list[str] = []
    """names of nodes, or globs"""
    model: str = ""
    """an ONNX with Q/DQ pairs, quantised in training, whose weights and ranges are taken; relative to the recipe"""


class HalveOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Which nodes compute in FP32 although the variant is FP16; those that overflow are found without being named."""

    keep_float: list[str] = []
    """names of nodes, or globs"""


class GateOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """How much accuracy a variant may lose against the float model, in points (hundredths of the metric)."""

    fp16_points: Points = 0.5
    int8_points: Points = 1.5
