"""Which layers cost accuracy in INT8, and which to keep in float so that the gate passes at the least time lost.

In: a float model, ranges, and a function that scores a model (higher is better). Out: a drop and a cost per layer, or
the names to keep. Drops do not add up, so the set that is chosen is always measured again as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx
from msgspec import Struct

from edged_calibration.graph.gemm import gemms
from edged_calibration.graph.index import Graph
from edged_calibration.int8 import place
from edged_calibration.int8.calibrate import Range
from edged_calibration.int8.write import Target, quantize
from edged_calibration.profile.roofline import microseconds
from edged_calibration.progress import Advance, silent

Score = Callable[[onnx.ModelProto], float]

_REFORMAT_US = 1.0  # of a layer kept in float between INT8 layers, beside its own time: conversions and a launch
_MOST_TAKEN_BACK = 8  # layers tried one by one, each at the price of a full scoring
_LEAST_DROP = 1e-6  # a layer that costs no more than this is not worth keeping in float


class LayerDrop(Struct, frozen=True):
    """`drop`: the score lost with this layer alone in INT8; `cost`: microseconds a frame lost by keeping it float."""

    node: str
    drop: float
    cost: float


class Sensitivity(Struct, frozen=True):
    """Scores of the float model and of all layers in INT8, and every layer, the most worth keeping in float first."""

    baseline: float
    all_int8: float
    layers: list[LayerDrop]


def sensitivity(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    score: Score,
    target: Target = "x86",
    progress: Advance = silent,
) -> Sensitivity:
    """Score the model with each layer alone in INT8."""
    graph = Graph(model)
    nodes = [node.name for node in place.tensorrt(graph).weighted]
    movers = [node.name for node in graph.nodes if node.op_type in place.JOINS | place.SAME_VALUES]
    costs = {gemm.node: microseconds(gemm, "fp16") - microseconds(gemm, "int8") for gemm in gemms(model)}
    total = len(nodes) + 2
    baseline = score(model)
    progress(1, total)
    all_int8 = score(quantize(model, ranges, target))
    progress(2, total)
    layers = []
    for done, name in enumerate(nodes, start=3):
        others = [other for other in nodes if other != name]
        drop = baseline - score(quantize(model, ranges, target, [*others, *movers]))
        layers.append(LayerDrop(name, drop, round(max(costs[name], 0.0) + _REFORMAT_US, 3)))
        progress(done, total)
    return Sensitivity(baseline, all_int8, sorted(layers, key=lambda layer: -layer.drop / layer.cost))


def keep_to_pass(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    score: Score,
    wanted: float,
    found: Sensitivity,
    progress: Advance = silent,
    target: Target = "x86",
) -> list[str] | None:
    """The nodes to keep in float so that the score is at least `wanted`; None if no set does it.

    The fewest of the most worthwhile layers are found by halving; then those are taken back, the dearest first, that
    the score turns out not to need. Every set is scored as it is.
    """
    ranked = [layer for layer in found.layers if layer.drop > _LEAST_DROP]
    ranked += [layer for layer in found.layers if layer.drop <= _LEAST_DROP]
    steps, most = 0, len(ranked).bit_length() + 1 + _MOST_TAKEN_BACK

    def passes(names: list[str]) -> bool:
        nonlocal steps
        steps += 1
        progress(min(steps, most), most)
        return score(quantize(model, ranges, target, names)) >= wanted

    if found.all_int8 >= wanted:
        return []
    if found.baseline < wanted or not passes([layer.node for layer in ranked]):
        return None
    low, high = 0, len(ranked)  # the first `low` are too few, the first `high` are enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes([layer.node for layer in ranked[:middle]]) else (middle, high)
    kept = ranked[:high]
    for layer in sorted(kept, key=lambda layer: -layer.cost)[:_MOST_TAKEN_BACK]:
        fewer = [other for other in kept if other is not layer]
        if passes([other.node for other in fewer]):
            kept = fewer
    return [layer.node for layer in kept]
