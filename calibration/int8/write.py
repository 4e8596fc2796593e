"""Explicit INT8: one calibration of a float ONNX model, then one QuantizeLinear/DequantizeLinear graph per target.

- `trt`: what TensorRT fuses. Symmetric int8, zero point 0, on what kernels read; float bias (see `placement`).
- `x86`: what ONNX Runtime is fast with on x86. uint8 activations, a Q/DQ pair on every tensor between quantised nodes.
- `arm`: the same places, int8 activations, which is what its ARM kernels want. Not symmetric: only with the zero point
  at the lowest level, after a ReLU, does clipping do the ReLU's work, and only then is the node fused.

Weights are symmetric int8 per output channel in all three, so that a zero stays a zero; those for x86 are smaller,
since processors without VNNI saturate otherwise.

nvidia-modelopt is no second way to the `trt` file: measured on the demo detector it places pairs alike and is no more
accurate (-0.28 points against -0.23), for 2 GB of packages, a forced opset 19 and no file for processors.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edged_calibration.graph.index import Feed, Graph, copy_of, drop_unused, output_axis
from edged_calibration.int8 import place
from edged_calibration.int8.calibrate import Histogram, Range, collect
from edged_calibration.int8.place import Placement
from edged_calibration.progress import Advance, silent

Target = Literal["trt", "x86", "arm"]


@dataclass(frozen=True)
class Grid:
    """real = (q - zero_point) * scale; the zero point's type is that of q."""

    scale: np.float32
    zero_point: np.int8 | np.uint8


def grid(values: Range, target: Target) -> Grid:
    """The INT8 grid of a range: `trt` symmetric, the others just wide enough, all with an exact zero."""
    low, high = min(values.low, 0.0), max(values.high, 0.0)
    if target == "trt":
        return Grid(np.float32(_half_precise(np.array(max(-low / 128, high / 127)))), np.int8(0))
    scale = max((high - low) / 255, 1e-10)
    zero = int(np.clip(np.rint(-low / scale), 0, 255))
    return Grid(np.float32(scale), np.uint8(zero) if target == "x86" else np.int8(zero - 128))


def _half_precise(scales: NDArray[Any]) -> NDArray[np.float32]:
    """The scales, rounded up to what FP16 holds: a strongly typed FP16 graph then has the same grid, to the bit."""
    half = np.maximum(scales, np.finfo(np.float16).smallest_subnormal).astype(np.float16)
    half = np.where(half < scales, np.nextafter(half, np.float16(np.inf)), half)
    return np.asarray(half, np.float32)


def quantize_weights(weights: NDArray[Any], axis: int, target: Target) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 weights and their scales along `axis`, the output channels. Zeros stay zero.

    For `x86` no two weights of an output that have one sign exceed 128 together. Processors without VNNI add the
    products of two uint8 values and two int8 weights in 16 bits, with saturation: 255 * 128 still fits, so the file
    gives the same result on all of them, whichever weights a kernel pairs. uint8 weights would keep all levels and be
    exact too, but take 2.3 times as long on the demo where there is VNNI.
    """
    rows = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)
    largest = _largest_pair(rows) if target == "x86" else np.abs(rows).max(axis=1)
    # A channel that is all but dead gets no finer grid than that: its bias has to fit the grid as an int32.
    scale = _half_precise(np.maximum(largest, float(largest.max()) * 1e-4) / 127)
    shape = [1] * weights.ndim
    shape[axis] = -1
    return np.clip(np.rint(weights / scale.reshape(shape)), -127, 127).astype(np.int8), scale


def _largest_pair(rows: NDArray[Any]) -> NDArray[Any]:
    """Of each row, the largest sum of the magnitudes of two values that have one sign."""
    signed = np.stack([np.maximum(rows, 0), np.maximum(-rows, 0)])
    return np.asarray(np.partition(signed, -min(2, rows.shape[1]), axis=2)[:, :, -2:].sum(axis=2).max(axis=0))


# ---- calibration -------------------------------------------------------------------------------------------------


def calibrated_tensors(model: onnx.ModelProto) -> list[str]:
    """Every tensor whose range `quantize` may ask for."""
    graph = Graph(copy_of(model))  # whose nodes have names
    return list(dict.fromkeys(name for plan in _plans(graph).values() for name in _ranged(plan)))


def _plans(graph: Graph) -> dict[Target, Placement]:
    between = place.processor(graph)
    return {"trt": place.tensorrt(graph), "x86": between, "arm": between}


def _ranged(plan: Placement) -> list[str]:
    """The tensors with a pair, and those whose values their grids have to hold."""
    paired = [*(node.input[position] for node, position in plan.edges), *plan.everywhere]
    return [name for tensor in paired for name in (tensor, *plan.shared.get(tensor, []))]


def calibrate(model: onnx.ModelProto, feeds: Sequence[Feed], progress: Advance = silent) -> dict[str, Histogram]:
    """Run the float model on the feeds and count the values of every tensor that `quantize` may ask about."""
    return collect(model, feeds, calibrated_tensors(model), progress)


# ---- placement ---------------------------------------------------------------------------------------------------


def quantize(
    model: onnx.ModelProto, ranges: Mapping[str, Range], target: Target, keep_float: Collection[str] = ()
) -> onnx.ModelProto:
    """The model with Q/DQ pairs for the target; nodes named in `keep_float` stay in float.

    Raises KeyError for a tensor without a range.
    """
    quantised = copy_of(model)
    graph = Graph(quantised)
    plan = place.tensorrt(graph, keep_float) if target == "trt" else place.processor(graph, keep_float)
    writer = _Writer(graph, ranges, target, plan.shared)
    for node, position in plan.edges:
        writer.read_quantised(node, position)
    for tensor in plan.everywhere:
        writer.read_quantised_everywhere(tensor)
    for node in plan.weighted:
        writer.quantise_weights(node, bias=target != "trt")
    writer.finish(quantised)
    drop_unused(quantised)
    onnx.checker.check_model(quantised)
    return quantised


class _Writer:
    """Collects the Q/DQ nodes of one model and rewires the readers; `finish` puts them into the graph."""

    def __init__(
        self, graph: Graph, ranges: Mapping[str, Range], target: Target, shared: Mapping[str, Sequence[str]]
    ) -> None:
        self._graph, self._ranges, self._target, self._shared = graph, ranges, target, shared
        self._after: dict[str, list[onnx.NodeProto]] = {}  # tensor -> the pair that follows its producer
        self._first: list[onnx.NodeProto] = []  # reads constants only
        self._constants: dict[str, onnx.TensorProto] = {}
        self._rewired: list[tuple[onnx.NodeProto, int, str]] = []
        self._renamed: dict[str, str] = {}  # output of the graph -> what its producer writes from now on

    def grid(self, tensor: str) -> Grid:
        """The grid of a tensor, wide enough for all whose values it has to hold."""
        held = [self._ranges[name] for name in self._shared.get(tensor, [tensor])]
        return grid(Range(min(r.low for r in held), max(r.high for r in held)), self._target)

    def read_quantised(self, node: onnx.NodeProto, position: int) -> None:
        """Let one input of a node pass through Q/DQ; readers of one tensor share the pair."""
        tensor = node.input[position]
        if tensor not in self._after:
            self._after[tensor] = self._pair(tensor, tensor, f"{tensor}_dq")
        self._rewired.append((node, position, f"{tensor}_dq"))

    def read_quantised_everywhere(self, tensor: str) -> None:
        """Let every reader of a tensor, the graph's output too, get it through Q/DQ."""
        if tensor in self._graph.outputs:  # keeps its name behind the pair, so its readers stay as they are
            self._renamed[tensor] = f"{tensor}_float"
            self._after[tensor] = self._pair(tensor, f"{tensor}_float", tensor)
            return
        for node in self._graph.consumers.get(tensor, []):
            for position, name in enumerate(node.input):
                if name == tensor:
                    self.read_quantised(node, position)

    def _pair(self, tensor: str, source: str, result: str) -> list[onnx.NodeProto]:
        chosen = self.grid(tensor)
        scale = self._constant(f"{tensor}_scale", np.asarray(chosen.scale))
        zero = self._constant(f"{tensor}_zero", np.asarray(chosen.zero_point))
        names = [source, scale, zero]
        return [
            helper.make_node("QuantizeLinear", names, [f"{tensor}_q"], name=f"{tensor}_Quantize"),
            helper.make_node("DequantizeLinear", [f"{tensor}_q", scale, zero], [result], name=f"{tensor}_Dequantize"),
        ]

    def quantise_weights(self, node: onnx.NodeProto, bias: bool) -> None:
        """Store a node's weights as int8 and, if asked, its bias as int32 on the grid of the products."""
        name, axis = node.input[1], output_axis(node)
        values, scales = quantize_weights(self._graph.array(name), axis, self._target)
        self._rewired.append((node, 1, self._dequantised(name, values, scales, axis)))
        constant = len(node.input) > 2 and node.input[2] in self._graph.constants
        if bias and constant and self._graph.array(node.input[2]).shape == scales.shape:
            product = (float(self.grid(node.input[0]).scale) * scales.astype(np.float64)).astype(np.float32)
            limit = np.iinfo(np.int32).max
            rounded = np.rint(self._graph.array(node.input[2]).astype(np.float64) / product)
            stored = np.clip(rounded, -limit, limit).astype(np.int32)
            shared = len(self._graph.consumers[node.input[2]]) > 1  # its grid would be that of one reader only
            name = f"{node.input[2]}_{node.name}" if shared else node.input[2]
            self._rewired.append((node, 2, self._dequantised(name, stored, product, 0)))

    def _dequantised(self, name: str, values: NDArray[Any], scales: NDArray[np.float32], axis: int) -> str:
        result = f"{name}_dq"
        if f"{name}_q" not in self._constants:
            zeros = np.zeros(scales.shape, values.dtype)
            inputs = [
                self._constant(f"{name}_q", values),
                self._constant(f"{name}_scale", scales),
                self._constant(f"{name}_zero", zeros),
            ]
            self._first.append(
                helper.make_node("DequantizeLinear", inputs, [result], name=f"{name}_Dequantize", axis=axis)
            )
        return result

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
        return name

    def finish(self, model: onnx.ModelProto) -> None:
        """Rewire the readers and put each new node right behind what it reads."""
        for node, position, name in self._rewired:
            node.input[position] = name
        ordered = [pair for name in self._graph.inputs for pair in self._after.get(name, [])] + self._first
        for node in self._graph.nodes:
            ordered.append(node)
            written = list(node.output)
            for position, name in enumerate(written):
                node.output[position] = self._renamed.get(name, name)
            ordered += [pair for name in written for pair in self._after.get(name, [])]
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(self._constants.values())
