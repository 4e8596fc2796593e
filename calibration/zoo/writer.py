"""Writes a network node by node and runs each one at once on probe pictures, so that weights can be scaled to fit.

A convolution's weights are drawn by He's rule; then each output channel is given the mean and spread that a batch norm
would have given it on the probe, which is what folding a trained batch norm leaves behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edged.synthetic.scene import sample, textures
from edged_calibration.graph.index import session

OPSET = 17
INPUT = "pixels"
Activation = Literal["", "relu", "relu6", "silu"]

_PROBE_PIXELS = 4 * 224 * 224  # in all pictures together: enough to estimate a channel's spread, still quick
_PROBE_SEED = 7
_LEAST_SPREAD = 0.05  # of the layer's mean spread: a channel that hardly answers the probe is not blown up to noise

_LEANING = 2.0  # how much stronger weights answer to what their inputs vary in together

Array = NDArray[Any]


@dataclass(frozen=True)
class Pixels:
    """How RGB bytes enter a model: (byte - mean) / std, per channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class BatchNorm:
    """What a folded batch norm gives an average channel: its spread, and its mean (or one for each channel)."""

    spread: float = 1.0
    mean: float | Array = 0.0


IMAGENET = Pixels((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
UNIT = Pixels((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))


def probe(size: int, pixels: Pixels = IMAGENET) -> NDArray[np.float32]:
    """Rendered pictures [n, 3, size, size], as they enter a model."""
    count = int(np.clip(_PROBE_PIXELS // size**2, 4, 16))
    cv2.setNumThreads(1)
    grounds = textures(_PROBE_SEED, 4, size, size)
    pictures = [sample(np.random.default_rng((_PROBE_SEED, i)), grounds, size, size)[0] for i in range(count)]
    colours = np.stack(pictures)[..., ::-1].astype(np.float32)
    planes = (colours - np.array(pixels.mean, np.float32)) / np.array(pixels.std, np.float32)
    return np.ascontiguousarray(planes.transpose(0, 3, 1, 2))


class Writer:
    """Collects nodes and constants; every method returns the name of the tensor it adds."""

    def __init__(self, size: int, seed: int, pixels: Pixels = IMAGENET) -> None:
        self.rng = np.random.default_rng(seed)
        self._size = size
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._values: dict[str, Array] = {INPUT: probe(size, pixels)}
        self._count = 0

    def value(self, tensor: str) -> Array:
        """What the tensor holds for the probe."""
        return self._values[tensor]

    def constant(self, name: str, value: Array) -> str:
        """Add a constant."""
        self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
        self._values[name] = value
        return name

    def op(self, kind: str, inputs: Sequence[str], name: str = "", **attributes: Any) -> str:
        """Add a node with one output."""
        return self.split(kind, inputs, 1, name, **attributes)[0]

    def split(self, kind: str, inputs: Sequence[str], outputs: int, name: str = "", **attributes: Any) -> list[str]:
        """Add a node with several outputs."""
        self._count += 1
        name = name or f"{kind.lower()}_{self._count}"
        names = [f"{name}_out" if outputs == 1 else f"{name}_out{i}" for i in range(outputs)]
        node = helper.make_node(kind, list(inputs), names, name=name, **attributes)
        self._values.update(zip(names, self._run(node), strict=True))
        self._nodes.append(node)
        return names

    def _run(self, node: onnx.NodeProto) -> list[Array]:
        feed = {name: self._values[name] for name in node.input if name}
        ends = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in feed.items()
        ]
        outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
        return list(session(_model([node], ends, outputs, [])).run(None, feed))

    def conv(
        self,
        source: str,
        outputs: int,
        kernel: int,
        name: str,
        *,
        stride: int = 1,
        groups: int = 1,
        act: Activation = "",
        norm: BatchNorm = BatchNorm(),
    ) -> str:
        """A convolution with its batch norm folded, and its activation."""
        weights = self._drawn(source, outputs, kernel, groups)
        weight = self.constant(f"{name}.weight", weights.astype(np.float32))
        bias = self.constant(f"{name}.bias", np.zeros(outputs, np.float32))
        window = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        result = self.op("Conv", [source, weight, bias], name, group=groups, **window)
        scale, shift = self._folded(self._values[result], norm.spread)
        shift += np.asarray(norm.mean, np.float32)
        self.constant(weight, (weights * scale[:, None, None, None]).astype(np.float32))
        self.constant(bias, shift)
        self._values[result] = self._values[result] * scale[:, None, None] + shift[:, None, None]
        return self.activation(result, act, f"{name}.{act}")

    def _drawn(self, source: str, outputs: int, kernel: int, groups: int) -> NDArray[np.float64]:
        """Weights [outputs, inputs, kernel, kernel] that answer to what the input varies in, as learned ones do.

        Weights drawn without regard to their input amplify its noise as much as its signal: after fifty layers any
        rounding would look like a different picture, which is not how a trained network behaves.
        """
        values = self._values[source]
        inputs = values.shape[1] // groups
        weights = self.rng.standard_normal((outputs, inputs, kernel, kernel)) * np.sqrt(2 / (inputs * kernel**2))
        blur = np.exp(-0.5 * (np.arange(kernel) - kernel // 2) ** 2 / max(kernel / 3, 1) ** 2)
        weights = weights * 0.5 + weights.mean(axis=(2, 3), keepdims=True) * kernel * np.outer(blur, blur)
        if groups == 1:
            flat = np.moveaxis(values, 1, 0).reshape(inputs, -1)
            flat = flat - flat.mean(axis=1, keepdims=True)
            shared = flat @ flat.T  # what the input's channels vary in together
            shared_part = np.einsum("oikl,ij->ojkl", weights, shared / np.linalg.norm(shared), optimize=True)
            weights = weights + _LEANING * shared_part
        return np.asarray(weights, np.float64)

    def _folded(self, answers: Array, spread: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(scale, shift) of each channel's batch norm over the answers [n, channels, height, width]."""
        mean, deviation = answers.mean(axis=(0, 2, 3)), answers.std(axis=(0, 2, 3))
        gamma = self.rng.uniform(0.5, 1.5, len(mean)) * spread
        scale = gamma / np.maximum(deviation, max(_LEAST_SPREAD * float(deviation.mean()), 1e-6))
        shift = self.rng.normal(0, 0.3, len(mean)) * spread - mean * scale
        return scale.astype(np.float32), shift.astype(np.float32)

    def activation(self, source: str, act: Activation, name: str) -> str:
        """The activation, in the form that exporters write it."""
        if act == "relu":
            return self.op("Relu", [source], name)
        if act == "relu6":
            bounds = [self.constant("zero", np.array(0, np.float32)), self.constant("six", np.array(6, np.float32))]
            return self.op("Clip", [source, *bounds], name)
        if act == "silu":
            return self.op("Mul", [source, self.op("Sigmoid", [source], f"{name}.sigmoid")], name)
        return source

    def linear(self, source: str, outputs: int, name: str, gain: float = 1.0) -> str:
        """A product of the last axis with weights [inputs, outputs], and its bias, as for tokens."""
        inputs = self._values[source].shape[-1]
        weights = self.rng.standard_normal((inputs, outputs)) * gain / np.sqrt(inputs)
        weight = self.constant(f"{name}.weight", weights.astype(np.float32))
        bias = self.constant(f"{name}.bias", self.rng.normal(0, 0.1, outputs).astype(np.float32))
        return self.op("Add", [self.op("MatMul", [source, weight], name), bias], f"{name}.add")

    def classifier(self, source: str, classes: int) -> str:
        """A fully connected layer on [n, inputs]."""
        inputs = self._values[source].shape[-1]
        weights = self.rng.standard_normal((classes, inputs)) * 2 / np.sqrt(inputs)
        weight = self.constant("classifier.weight", weights.astype(np.float32))
        bias = self.constant("classifier.bias", self.rng.normal(0, 0.1, classes).astype(np.float32))
        return self.op("Gemm", [source, weight, bias], "classifier", transB=1)

    def integers(self, name: str, *values: int) -> str:
        """A constant of int64, as shapes and axes are."""
        return self.constant(name, np.array(values, np.int64))

    def model(self, result: str, output: str) -> onnx.ModelProto:
        """The finished model, whose output `result` is called `output`."""
        for node in self._nodes:
            node.output[:] = [output if name == result else name for name in node.output]
            node.input[:] = [output if name == result else name for name in node.input]
        inputs = [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", 3, self._size, self._size])]
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", *self._values[result].shape[1:]])]
        model = _model(self._nodes, inputs, outputs, list(self._constants.values()))
        onnx.checker.check_model(model, full_check=True)
        return model


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: list[onnx.TensorProto],
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "zoo", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8, producer_name="edged")
