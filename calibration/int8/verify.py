"""Checks a Q/DQ graph against the rules that TensorRT 10.3 to 11.4 share, and against what its fusions want.

In: any ONNX model, ours or from a training framework. Out: what is wrong, one sentence each; nothing is changed. It
knows nothing of how `quantize` places pairs: it reads the finished graph alone, so that either can find the other out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from edged_calibration.graph.index import WEIGHTED, Graph, attribute, output_axis

_PAIR = ("QuantizeLinear", "DequantizeLinear")
_PER_AXIS_OPSET, _HALF_SCALE_OPSET = 13, 19
# Fused into the kernel before them; by TensorRT more than by ONNX Runtime, which wants a pair before a SiLU.
_EPILOGUE = frozenset({"Relu", "Clip", "LeakyRelu"})
_TENSORRT_EPILOGUE = _EPILOGUE | {"Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Elu"}
_MOST_OF_A_PAIR = (2**15 - 1) // 255  # two products of uint8 by int8 are added in 16 bits
_INT8_LEVELS = {"trt": (TensorProto.INT8,), "arm": (TensorProto.INT8,), "x86": (TensorProto.UINT8,)}


@dataclass(frozen=True)
class Problem:
    """A rule that a node breaks, and how."""

    node: str
    rule: str
    text: str


def verify_qdq(model: onnx.ModelProto, target: Literal["trt", "x86", "arm"] = "trt") -> list[Problem]:
    """Everything that is wrong with the graph for the target, in graph order; empty if nothing is."""
    checker = _Checker(model, target)
    problems = list(checker.opsets())
    for node in checker.graph.nodes:
        if node.op_type in _PAIR:
            problems += [*checker.grids(node), *checker.pairs(node)]
        elif checker.graph.is_real(node.output[0]):
            problems += [*checker.weights(node), *checker.joins(node)]
    return problems


class _Checker:
    """The rules, each over one node; a rule yields what it finds."""

    def __init__(self, model: onnx.ModelProto, target: str) -> None:
        self.graph = Graph(model)
        self._target = target
        self._opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)

    def opsets(self) -> Iterator[Problem]:
        """Scales per channel came with opset 13, scales in FP16 with 19."""
        nodes = [node for node in self.graph.nodes if node.op_type in _PAIR]
        half = any(self._scale_type(node) == TensorProto.FLOAT16 for node in nodes)
        least = _HALF_SCALE_OPSET if half else _PER_AXIS_OPSET
        if nodes and self._opset < least:
            why = "its scales are FP16" if half else "its weights have a scale per channel"
            yield Problem("", "opset", f"the model is of opset {self._opset}; {least} is needed because {why}")

    def grids(self, node: onnx.NodeProto) -> Iterator[Problem]:
        """Scales are constants, positive and finite; zero points are constants of the target's type, and zero."""
        if node.input[1] not in self.graph.constants:
            yield Problem(node.name, "constant scale", "its scale is computed, not a constant of the graph")
            return
        scales = self.graph.array(node.input[1])
        if not (np.isfinite(scales).all() and (scales > 0).all()):
            yield Problem(node.name, "valid scale", "its scale is zero, negative or not finite")
        weights = self._weights_of(node)
        bias = self._is_bias(node)
        if scales.size > 1 and weights is None and not bias:
            yield Problem(node.name, "per-tensor activations", f"{scales.size} scales on an activation, instead of one")
        yield from self._zero_point(node, weights is not None, bias)
        if bias and self._target == "trt":
            yield Problem(node.name, "float bias", "a bias goes through Q/DQ; TensorRT wants it in float")

    def _zero_point(self, node: onnx.NodeProto, weights: bool, bias: bool) -> Iterator[Problem]:
        if len(node.input) < 3 or not node.input[2]:
            if node.op_type == "QuantizeLinear" and self._target != "x86":
                yield Problem(node.name, "int8", "it has no zero point, which makes it uint8, not int8")
            return
        if node.input[2] not in self.graph.constants:
            yield Problem(node.name, "constant zero point", "its zero point is computed, not a constant of the graph")
            return
        zero = self.graph.array(node.input[2])
        kind = self.graph.constants[node.input[2]].data_type
        wanted = (TensorProto.INT32,) if bias else (TensorProto.INT8,) if weights else _INT8_LEVELS[self._target]
        if kind not in wanted:
            names = TensorProto.DataType.Name(kind).lower(), TensorProto.DataType.Name(wanted[0]).lower()
            yield Problem(node.name, "int8", f"its values are {names[0]}, not {names[1]}")
        elif zero.any() and (self._target == "trt" or weights or bias):
            yield Problem(node.name, "symmetric", "its zero point is not zero")

    def pairs(self, node: onnx.NodeProto) -> Iterator[Problem]:
        """Every Q is read by DQs alone, with its own scale; every DQ reads a Q or a constant."""
        if node.op_type == "DequantizeLinear":
            source = self.graph.producers.get(node.input[0])
            if node.input[0] in self.graph.constants or (source is None and node.input[0] in self.graph.inputs):
                return
            if source is None or source.op_type != "QuantizeLinear":
                yield Problem(node.name, "pairs", "it dequantises what no QuantizeLinear made")
            return
        readers = self.graph.consumers.get(node.output[0], [])
        if not readers or any(reader.op_type != "DequantizeLinear" for reader in readers):
            yield Problem(node.name, "pairs", "what it quantises is not read by a DequantizeLinear alone")
        for reader in readers:
            if reader.op_type == "DequantizeLinear" and not self._same_grid(node, reader):
                yield Problem(reader.name, "pairs", f"its scale or zero point differs from that of {node.name}")
        yield from self._epilogue(node)

    def _epilogue(self, node: onnx.NodeProto) -> Iterator[Problem]:
        """No pair between a kernel and what is fused into it."""
        source = self.graph.producers.get(node.input[0])
        if source is None or source.op_type not in WEIGHTED or not self._reads_pair(source, 0):
            return
        for reader in self.graph.consumers.get(node.output[0], []):
            for follower in self.graph.consumers.get(reader.output[0], []):
                if follower.op_type in (_TENSORRT_EPILOGUE if self._target == "trt" else _EPILOGUE):
                    text = f"it stands between {source.name} and {follower.name}, which would be one kernel"
                    yield Problem(node.name, "fusion", text)

    def weights(self, node: onnx.NodeProto) -> Iterator[Problem]:
        """A weighted node reads both its inputs through pairs or neither; its weights have a scale per output.

        On processors a node with float weights may read what the node before it gives in INT8: else that one, whose
        result would be read in float too, could not compute in INT8.
        """
        if node.op_type not in WEIGHTED:
            return
        values = self._dequantiser(node.input[1])
        weights = values is not None and self._stored(values) is not None
        if not weights and node.input[1] not in self.graph.constants:
            return  # a product of two activations: quantised or not, as it likes
        paired = self._reads_pair(node, 0)
        if weights != paired and (weights or self._target == "trt"):
            missing, verb = ("its input", "stays") if weights else ("its weights", "stay")
            yield Problem(node.name, "both inputs", f"{missing} {verb} float while the other goes through a pair")
        if values is None or not weights or values.input[1] not in self.graph.constants:
            return
        stored = self._stored(values)
        scales = self.graph.array(values.input[1])
        axis = output_axis(node)
        assert stored is not None
        shape = self.graph.array(stored).shape
        outputs = shape[axis % len(shape)]
        if self._target == "x86" and self.graph.constants[stored].data_type == TensorProto.INT8:
            pair = _largest_pair(self.graph.array(stored), axis)
            if pair > _MOST_OF_A_PAIR:
                text = f"two weights of one output sum to {pair}, which saturates on x86 processors without VNNI"
                yield Problem(node.name, "saturation", text)
        if scales.size != outputs or (outputs > 1 and attribute(values, "axis", 1) % len(shape) != axis):
            text = f"its weights have {scales.size} scales, not one for each of {outputs} outputs on axis {axis}"
            yield Problem(node.name, "per-channel weights", text)

    def joins(self, node: onnx.NodeProto) -> Iterator[Problem]:
        """Of a residual addition one branch is quantised, the kernel's own is not; a concatenation has one grid."""
        if self._target != "trt":
            return
        if node.op_type == "Add":
            yield from self._residual(node)
        if node.op_type == "Concat":
            scales = {self._pair_scale(name) for name in node.input}
            if None in scales and len(scales) > 1:
                yield Problem(node.name, "concatenation", "some of its inputs go through a pair, others do not")
            elif len(scales) > 1:
                yield Problem(node.name, "concatenation", "its inputs have different scales, so that it must rescale")

    def _residual(self, node: onnx.NodeProto) -> Iterator[Problem]:
        behind = [self._behind_pair(name) for name in node.input]
        kernels = [source is not None and source.op_type == "Conv" and self._reads_pair(source, 0) for source in behind]
        paired = [self._pair_scale(name) is not None for name in node.input]
        if all(paired) and any(kernels):
            text = "both its branches go through a pair, so that the convolution cannot take the addition in"
            yield Problem(node.name, "residual", text)
        elif any(kernels) and not any(paired) and self._stays_int8(node):
            yield Problem(node.name, "residual", "its skip branch goes through no pair, so that it is read as float")

    # ---- looking at the graph -------------------------------------------------------------------------------------

    def _dequantiser(self, tensor: str) -> onnx.NodeProto | None:
        node = self.graph.producers.get(tensor)
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    def _stored(self, dequantiser: onnx.NodeProto) -> str | None:
        """The constant behind a DequantizeLinear, or behind the QuantizeLinear before it."""
        name = dequantiser.input[0]
        source = self.graph.producers.get(name)
        if source is not None and source.op_type == "QuantizeLinear":
            name = source.input[0]
        return name if name in self.graph.constants else None

    def _reads_pair(self, node: onnx.NodeProto, position: int) -> bool:
        return self._dequantiser(node.input[position]) is not None

    def _pair_scale(self, tensor: str) -> float | None:
        node = self._dequantiser(tensor)
        if node is None or node.input[1] not in self.graph.constants:
            return None
        return float(self.graph.array(node.input[1]).ravel()[0])

    def _behind_pair(self, tensor: str) -> onnx.NodeProto | None:
        """Who makes the tensor, looking through a pair."""
        node = self.graph.producers.get(tensor)
        while node is not None and node.op_type in _PAIR:
            node = self.graph.producers.get(node.input[0])
        return node

    def _stays_int8(self, node: onnx.NodeProto) -> bool:
        """Whether what the node gives is quantised again, behind its activation if it has one."""
        readers = self.graph.consumers.get(node.output[0], [])
        if len(readers) == 1 and readers[0].op_type in _EPILOGUE:
            readers = self.graph.consumers.get(readers[0].output[0], [])
        return any(reader.op_type == "QuantizeLinear" for reader in readers)

    def _weighted_readers(self, node: onnx.NodeProto) -> Iterator[tuple[onnx.NodeProto, int]]:
        """(weighted node, position) of what reads the constant that this node is on the way of."""
        names = list(node.output)
        if node.op_type == "QuantizeLinear":
            names = [name for n in names for r in self.graph.consumers.get(n, []) for name in r.output]
        for name in names:
            for reader in self.graph.consumers.get(name, []):
                if reader.op_type in WEIGHTED:
                    yield from ((reader, position) for position, read in enumerate(reader.input) if read == name)

    def _constant_source(self, node: onnx.NodeProto) -> bool:
        return self._stored(node) is not None if node.op_type == _PAIR[1] else node.input[0] in self.graph.constants

    def _weights_of(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The weighted node whose weights this node stores."""
        if not self._constant_source(node):
            return None
        return next((reader for reader, position in self._weighted_readers(node) if position == 1), None)

    def _is_bias(self, node: onnx.NodeProto) -> bool:
        return self._constant_source(node) and any(position == 2 for _, position in self._weighted_readers(node))

    def _same_grid(self, quantiser: onnx.NodeProto, dequantiser: onnx.NodeProto) -> bool:
        for first, second in zip(quantiser.input[1:], dequantiser.input[1:], strict=False):
            if first == second:
                continue
            known = first in self.graph.constants and second in self.graph.constants
            if not known or not np.array_equal(self.graph.array(first), self.graph.array(second)):
                return False
        return len(quantiser.input) == len(dequantiser.input)

    def _scale_type(self, node: onnx.NodeProto) -> int:
        tensor = self.graph.constants.get(node.input[1])
        return TensorProto.FLOAT if tensor is None else int(tensor.data_type)


def _largest_pair(weights: NDArray[Any], axis: int) -> int:
    """The largest sum of two weights of one output, along `axis`, that have one sign."""
    rows = np.moveaxis(weights.astype(np.int64), axis, 0).reshape(weights.shape[axis], -1)
    signed = np.stack([np.maximum(rows, 0), np.maximum(-rows, 0)])
    return int(np.partition(signed, -min(2, rows.shape[1]), axis=2)[:, :, -2:].sum(axis=2).max())
