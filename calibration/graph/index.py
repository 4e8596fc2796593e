"""What every pass over an ONNX graph needs: who produces and who consumes a tensor, and its constants."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from edged.errors import UsageError

_REALS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})
WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})

Feed = Mapping[str, NDArray[Any]]


class Graph:
    """An index over a model's graph; valid until nodes are added, removed or rewired."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self._model = model
        self.nodes: list[onnx.NodeProto] = list(graph.node)
        self.constants: dict[str, onnx.TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs = [value.name for value in graph.input if value.name not in self.constants]
        self.outputs = [value.name for value in graph.output]
        self.producers: dict[str, onnx.NodeProto] = {name: node for node in self.nodes for name in node.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)

    def weighted(self) -> list[onnx.NodeProto]:
        """The convolutions and matrix products by a constant, in graph order."""
        return [node for node in self.nodes if self.is_weighted(node)]

    def is_weighted(self, node: onnx.NodeProto) -> bool:
        """Whether the node multiplies by a constant."""
        return node.op_type in WEIGHTED and node.input[1] in self.constants

    def is_float(self, tensor: str) -> bool:
        """Whether a tensor holds floats, not shapes or indices; where its type cannot be inferred, yes."""
        return self._types.get(tensor, TensorProto.FLOAT) == TensorProto.FLOAT

    def is_real(self, tensor: str) -> bool:
        """Whether a tensor holds floats of any precision; where its type cannot be inferred, yes."""
        return self._types.get(tensor, TensorProto.FLOAT) in _REALS

    @cached_property
    def _types(self) -> dict[str, int]:
        graph = onnx.shape_inference.infer_shapes(self._model).graph
        values = [*graph.value_info, *graph.input, *graph.output]
        types = {value.name: int(value.type.tensor_type.elem_type) for value in values}
        return types | {tensor.name: int(tensor.data_type) for tensor in graph.initializer}

    def array(self, name: str) -> NDArray[Any]:
        """The value of a constant."""
        return np.asarray(numpy_helper.to_array(self.constants[name]))

    def sole_consumer(self, tensor: str) -> onnx.NodeProto | None:
        """The one node that reads the tensor; None where there are more, or where it is an output of the graph."""
        nodes = self.consumers.get(tensor, [])
        return nodes[0] if len(nodes) == 1 and tensor not in self.outputs else None


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute."""
    for item in node.attribute:
        if item.name == name:
            return onnx.helper.get_attribute_value(item)
    return default


def matching(model: onnx.ModelProto, patterns: Iterable[str]) -> list[str]:
    """Names of the nodes that one of the patterns names, as a glob or literally. UsageError for a pattern of none."""
    names = [node.name for node in model.graph.node]
    found: dict[str, None] = {}
    for pattern in patterns:
        hits = [name for name in names if name == pattern or fnmatch.fnmatchcase(name, pattern)]
        if not hits:
            near = difflib.get_close_matches(pattern, names, 1)
            hint = f"did you mean {near[0]}?" if near else "edged-calibrate analyze lists the nodes"
            raise UsageError(f"no node of the model is named {pattern!r}", hint)
        found.update(dict.fromkeys(hits))
    return list(found)


def output_axis(node: onnx.NodeProto) -> int:
    """The axis of a weighted node's weights that runs over its output channels."""
    return 0 if node.op_type == "Conv" or (node.op_type == "Gemm" and attribute(node, "transB", 0)) else 1


def stored_weights(graph: Graph, node: onnx.NodeProto) -> NDArray[Any] | None:
    """The weights that a node multiplies by, as they are stored: float, or int8 behind a DequantizeLinear.

    None for a node without constant weights. Weights that a QuantizeLinear turns into int8 are quantised here.
    """
    if node.op_type not in WEIGHTED or not (name := weights_name(graph, node)):
        return None
    reader = graph.consumers[name][0]
    return quantised_constant(graph, reader) if reader.op_type == "QuantizeLinear" else graph.array(name)


def weights_name(graph: Graph, node: onnx.NodeProto) -> str:
    """The constant that a node multiplies by, through Q/DQ; empty if there is none."""
    name = str(node.input[1])
    while name not in graph.constants:
        producer = graph.producers.get(name)
        if producer is None or producer.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            return ""
        name = producer.input[0]
    return name


def quantised_constant(graph: Graph, quantiser: onnx.NodeProto) -> NDArray[Any]:
    """What a QuantizeLinear makes of a constant."""
    values, scale = graph.array(quantiser.input[0]), graph.array(quantiser.input[1]).astype(np.float64)
    zero = graph.array(quantiser.input[2]) if len(quantiser.input) > 2 else np.zeros(scale.shape, np.uint8)
    if scale.size > 1:
        shape = [1] * values.ndim
        shape[attribute(quantiser, "axis", 1)] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    limits = np.iinfo(zero.dtype)
    return np.clip(np.rint(values / scale) + zero, limits.min, limits.max).astype(zero.dtype)


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every node has a name of its own."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    seen: set[str] = set()
    for index, node in enumerate(copied.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{index}"
        seen.add(node.name)
    return copied


def drop_unused(model: onnx.ModelProto) -> None:
    """Remove nodes whose outputs nobody reads, then constants without a reader, then stale shapes."""
    graph = model.graph
    needed = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if any(name in needed for name in node.output):
            kept.append(node)
            needed.update(node.input)
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(constants)


def session(model: onnx.ModelProto, exact: bool = False) -> onnxruntime.InferenceSession:
    """A single-threaded CPU session; `exact` keeps ONNX Runtime from fusing, so that every tensor can be read."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")  # no saturation where there is no VNNI
    if exact:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    # It makes the float bias of a TensorRT graph int32, on a grid that FP16 scales cannot hold: channels overflow.
    disabled = ["WeightBiasQuantization"]
    content, providers = _quantising_fp32(model).SerializeToString(), ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(content, options, providers=providers, disabled_optimizers=disabled)


def _quantising_fp32(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, with casts to FP32 before every QuantizeLinear that reads FP16: the same quotients, but rounded.

    Before 1.30, so in all that there is for Python 3.10, ONNX Runtime's CPU kernel for FP16 cuts their fractions off:
    every second value comes out one step too near to zero, as on no device.
    """
    half = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    if not any(node.op_type == "QuantizeLinear" and node.input[1] in half for node in model.graph.node):
        return model
    widened = onnx.ModelProto()
    widened.CopyFrom(model)
    nodes: dict[str, onnx.NodeProto] = {}  # by what they write, so that a tensor with two readers is cast once
    for node in widened.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[1] in half:
            for position, name in enumerate(node.input[:2]):
                node.input[position] = f"{name}_fp32"
                cast = onnx.helper.make_node("Cast", [name], [f"{name}_fp32"], to=TensorProto.FLOAT)
                nodes.setdefault(f"{name}_fp32", cast)
        nodes[node.output[0]] = node
    ordered = list(nodes.values())
    del widened.graph.node[:]
    widened.graph.node.extend(ordered)
    return widened


class Tap:
    """Runs a float model and returns tensors from inside it."""

    def __init__(self, model: onnx.ModelProto, tensors: Iterable[str]) -> None:
        self._inputs = {value.name for value in model.graph.input}
        self._tensors = [name for name in dict.fromkeys(tensors) if name not in self._inputs]
        self._from_input = [name for name in dict.fromkeys(tensors) if name in self._inputs]
        tapped = onnx.ModelProto()
        tapped.CopyFrom(model)
        del tapped.graph.output[:]
        tapped.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in self._tensors)
        self._session = session(tapped, exact=True) if self._tensors else None

    def __call__(self, feed: Feed) -> dict[str, NDArray[Any]]:
        """Tensor name -> value, for one batch."""
        values = {name: np.asarray(feed[name]) for name in self._from_input}
        if self._session is not None:
            values.update(zip(self._tensors, self._session.run(self._tensors, dict(feed)), strict=True))
        return values
