"""What quantisation does to each layer: the signal-to-noise ratio of its output, quantised against float.

In: the float model, a quantised form of it and some batches. Out: an error per convolution, matrix product, addition
and output of the graph. Every layer is fed by the quantised layers before it, as in use: so a low figure means that
the damage is there by then, and the first layer where it falls is the one to look at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from msgspec import Struct
from numpy.typing import NDArray

from edged_calibration.graph.index import WEIGHTED, Feed, Graph, Tap
from edged_calibration.progress import Advance, silent

_NO_NOISE_DB: Final = 200.0


class LayerError(Struct, frozen=True, forbid_unknown_fields=True):
    """`sqnr_db`: power of the float output over the power of the difference, in decibels."""

    node: str
    op: str
    tensor: str
    sqnr_db: float


@dataclass(frozen=True)
class Part:
    """Some values of an output: `first` to before `last` on `axis` (0 is the batch)."""

    tensor: str
    axis: int
    first: int
    last: int

    def of(self, value: NDArray[Any]) -> NDArray[Any]:
        return np.take(value, range(self.first, self.last), axis=self.axis)


class Errors(Struct, frozen=True, forbid_unknown_fields=True):
    """Every layer that both models have, the worst first, and every output of the graph, in decibels. An output that
    holds different things counts by its parts: errors of boxes in pixels would hide those of class scores."""

    layers: list[LayerError] = []
    outputs: dict[str, float] = {}


def measure_errors(
    model: onnx.ModelProto,
    quantised: onnx.ModelProto,
    feeds: Sequence[Feed],
    progress: Advance = silent,
    parts: Mapping[str, Part] | None = None,
) -> Errors:
    """Run both models on the feeds and compare; `parts` of outputs by what they are called."""
    made = {name for node in quantised.graph.node for name in node.output}
    nodes = [n for n in Graph(model).nodes if n.op_type in (*WEIGHTED, "Add") and n.output[0] in made]
    outputs = [value.name for value in model.graph.output]
    tensors = list(dict.fromkeys([*(node.output[0] for node in nodes), *outputs]))
    undivided = [name for name in outputs if all(part.tensor != name for part in (parts or {}).values())]
    ratios = _ratios(model, quantised, tensors, feeds, progress, parts or {})
    layers = [LayerError(node.name, node.op_type, node.output[0], ratios[node.output[0]]) for node in nodes]
    return Errors(
        sorted(layers, key=lambda error: error.sqnr_db), {name: ratios[name] for name in (*undivided, *(parts or {}))}
    )


def _ratios(
    model: onnx.ModelProto,
    quantised: onnx.ModelProto,
    tensors: list[str],
    feeds: Sequence[Feed],
    progress: Advance,
    parts: Mapping[str, Part],
) -> dict[str, float]:
    wanted, found = Tap(model, tensors), Tap(quantised, tensors)
    names = [*tensors, *parts]
    signal, noise = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for done, feed in enumerate(feeds, start=1):
        exact, rounded = wanted(feed), found(feed)
        for values in (exact, rounded):
            values.update({name: part.of(values[part.tensor]) for name, part in parts.items()})
        for name in names:
            signal[name] += float(np.square(exact[name], dtype=np.float64).sum())
            noise[name] += float(np.square(exact[name] - rounded[name], dtype=np.float64).sum())
        progress(done, len(feeds))
    return {name: _decibels(signal[name], noise[name]) for name in names}


def _decibels(signal: float, noise: float) -> float:
    if not noise:
        return _NO_NOISE_DB
    return round(float(10 * np.log10(max(signal, 1e-30) / noise)), 2)
