"""What each layer of a model is to the hardware, and whether INT8 and 2:4 sparsity can help it.

In: a float or Q/DQ model, and the ranges of its activations if they are known. Out: facts per layer, with the reasons,
and what they come to for the whole model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import onnx
from msgspec import Struct
from numpy.typing import NDArray

from edged_calibration.graph.gemm import Gemm, gemms
from edged_calibration.graph.index import Graph, output_axis, stored_weights
from edged_calibration.int8.calibrate import Range
from edged_calibration.profile.roofline import ORIN_NANO, Rates, is_memory_bound, microseconds
from edged_calibration.sparsity.apply import worthwhile
from edged_calibration.sparsity.pattern import LEAST_OUTPUTS, forbidden, is_2_4

Gain = Literal["yes", "little", "no"]
Sparsity = Literal["present", "possible", "forbidden"]

_FP16_ALIGNMENT, _INT8_ALIGNMENTS = 8, (16, 32)
_WORTH_TELLING = 1.1  # ratio of two bounds from which one counts as a gain
_UNEVEN = 30.0  # times the median channel's largest weight: then one scale for the layer would waste most levels


class LayerFacts(Struct, frozen=True):
    """One weighted layer. `m`, `n`, `k`: its matrix product, once per group; `*_us`: least time of one frame.

    `weights`: smallest and largest; `uneven`: the largest channel's range over the median channel's; `activation`: of
    its input, None where it was not measured.
    """

    node: str
    op: str
    macs: int
    parameters: int
    m: int
    n: int
    k: int
    groups: int
    inputs: int
    outputs: int
    kernel: list[int]
    depthwise: bool
    aligned_fp16: bool
    aligned_int8_16: bool
    aligned_int8_32: bool
    sparsity: Sparsity
    sparsity_reason: str
    weights: tuple[float, float]
    zeros: float
    uneven: float
    activation: tuple[float, float] | None
    fp16_us: float
    int8_us: float
    sparse_us: float
    memory_bound: bool
    int8_gain: Gain
    int8_reason: str
    sparse_gain: Gain
    sparse_reason: str


class Analysis(Struct, frozen=True):
    """Of a whole model; `device` is the one whose rates the times are bounded by."""

    layers: list[LayerFacts]
    notes: list[str]
    device: str


def analyze(model: onnx.ModelProto, ranges: Mapping[str, Range] | None = None, rates: Rates = ORIN_NANO) -> Analysis:
    """The facts of every layer that multiplies by constant weights, in graph order."""
    graph = Graph(model)
    nodes = {node.name: node for node in graph.nodes}
    layers = [_facts(graph, nodes[gemm.node], gemm, ranges or {}, rates) for gemm in gemms(model)]
    return Analysis(layers, _notes(graph, layers), rates.name)


def _facts(graph: Graph, node: onnx.NodeProto, gemm: Gemm, ranges: Mapping[str, Range], rates: Rates) -> LayerFacts:
    weights = stored_weights(graph, node)
    assert weights is not None
    why = forbidden(node, weights)
    present = not why and is_2_4(weights, 1 - output_axis(node))
    state: Sparsity = "forbidden" if why else "present" if present else "possible"
    int8_gain, int8_reason = _int8_gain(gemm, rates)
    sparse_gain, sparse_reason = _sparse_gain(gemm, why, rates)
    seen = ranges.get(node.input[0])
    us = {p: round(microseconds(gemm, p, rates), 3) for p in ("fp16", "int8", "int8-sparse")}
    return LayerFacts(
        node=gemm.node,
        op=gemm.op,
        macs=gemm.macs,
        parameters=gemm.parameters,
        m=gemm.m,
        n=gemm.n,
        k=gemm.k,
        groups=gemm.groups,
        inputs=gemm.inputs,
        outputs=gemm.outputs,
        kernel=list(gemm.kernel),
        depthwise=gemm.depthwise,
        aligned_fp16=_aligned(gemm, _FP16_ALIGNMENT),
        aligned_int8_16=_aligned(gemm, _INT8_ALIGNMENTS[0]),
        aligned_int8_32=_aligned(gemm, _INT8_ALIGNMENTS[1]),
        sparsity=state,
        sparsity_reason=why,
        weights=(float(weights.min()), float(weights.max())),
        zeros=round(1 - np.count_nonzero(weights) / weights.size, 4),
        uneven=_uneven(weights, output_axis(node)),
        activation=None if seen is None else (seen.low, seen.high),
        fp16_us=us["fp16"],
        int8_us=us["int8"],
        sparse_us=us["int8-sparse"] if not why else us["int8"],
        memory_bound=is_memory_bound(gemm, rates),
        int8_gain=int8_gain,
        int8_reason=int8_reason,
        sparse_gain=sparse_gain,
        sparse_reason=sparse_reason,
    )


def _aligned(gemm: Gemm, multiple: int) -> bool:
    return gemm.groups == 1 and gemm.inputs % multiple == 0 and gemm.outputs % multiple == 0


def _uneven(weights: NDArray[Any], axis: int) -> float:
    others = tuple(i for i in range(weights.ndim) if i != axis)
    largest = np.abs(weights.astype(np.float32)).max(axis=others)
    return round(float(largest.max() / max(float(np.median(largest)), 1e-12)), 2)


def _int8_gain(gemm: Gemm, rates: Rates) -> tuple[Gain, str]:
    if gemm.outputs < LEAST_OUTPUTS:
        return "no", f"{gemm.outputs} output channels: no work for a Tensor Core, stays float"
    if gemm.depthwise:
        return "little", "depthwise: no Tensor Cores, half the bytes at best"
    if gemm.groups > 1:
        return "little", f"{gemm.groups} groups: each product is small"
    ratio = microseconds(gemm, "fp16", rates) / microseconds(gemm, "int8", rates)
    if ratio < _WORTH_TELLING:
        return "little", f"{gemm.inputs} to {gemm.outputs} channels pad to 32: most of the work is padding"
    return "yes", "half the bytes" if is_memory_bound(gemm, rates) else "twice the arithmetic"


def _sparse_gain(gemm: Gemm, why: str, rates: Rates) -> tuple[Gain, str]:
    if why:
        return "no", why
    if microseconds(gemm, "int8", rates) < _WORTH_TELLING * microseconds(gemm, "int8-sparse", rates):
        return "no", "bound by the memory that its activations need: fewer multiplications save no time"
    if not worthwhile(gemm):
        return "little", f"{gemm.inputs} to {gemm.outputs} channels: sparse kernels win on wide layers"
    saved = "nearly half the weights to read" if is_memory_bound(gemm, rates) else "half the arithmetic"
    return "yes", f"{saved}, if TensorRT picks a sparse kernel"


def _notes(graph: Graph, layers: list[LayerFacts]) -> list[str]:
    """The model in sentences: what gains, what cannot, and what to look at."""
    total = max(sum(layer.macs for layer in layers), 1)

    def share(chosen: list[LayerFacts]) -> str:
        return f"{sum(layer.macs for layer in chosen) / total:.0%} of the arithmetic"

    bounds = [sum(getattr(layer, f"{key}_us") for layer in layers) for key in ("fp16", "int8", "sparse")]
    possible = [layer for layer in layers if layer.sparsity != "forbidden"]
    worth = [layer for layer in layers if layer.sparse_gain == "yes"]
    present = [layer for layer in layers if layer.sparsity == "present"]
    weights_m = sum(layer.parameters for layer in layers) / 1e6
    notes = [
        f"{len(layers)} weighted layers, {total / 1e6:.1f} MMAC, {weights_m:.2f} M weights",
        f"INT8 helps {share([layer for layer in layers if layer.int8_gain == 'yes'])}",
        f"2:4 is possible in {len(possible)} layers, {share(possible)}, and present in {len(present)}",
        f"2:4 may save time in {len(worth)} layers, {share(worth)}",
        f"at best {bounds[0]:.0f} us a frame in FP16, {bounds[1]:.0f} us in INT8, {bounds[2]:.0f} us in sparse INT8",
    ]
    depthwise = [layer for layer in layers if layer.depthwise]
    if depthwise:
        notes.append(f"{len(depthwise)} depthwise layers, {share(depthwise)}, run without Tensor Cores")
    odd = [layer for layer in layers if layer.groups == 1 and not layer.aligned_int8_32]
    if odd:
        notes.append(
            f"{len(odd)} layers, {share(odd)}, have channels that are no multiple of 32 and are padded in INT8"
        )
    uneven = [layer.node for layer in layers if layer.uneven > _UNEVEN]
    if uneven:
        notes.append(f"weights of {', '.join(uneven[:3])} differ so much between channels that a look is worth it")
    products = sum(node.op_type == "MatMul" and stored_weights(graph, node) is None for node in graph.nodes)
    if products:
        notes.append(f"{products} products of two activations stay FP16: TensorRT fuses attention whole")
    return notes
