"""A float ONNX graph as a PyTorch module, for the operators of convolutional networks and vision transformers.

In: a float model with its constants as initializers. Out: a module that computes the same, whose parameters are the
float constants by name. It covers what the recipes need and refuses the rest by name: a model with other operators is
fine-tuned where it was trained, and given to `[sparsify] model`.
"""

# Torch is an extra: where it is not installed, its types are unknown.
# mypy: allow-subclassing-any, allow-untyped-calls, no-warn-return-any, no-warn-unused-ignores

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from edged.errors import UsageError
from edged_calibration.graph.index import Graph, attribute

Inputs = list[Any]
Operator = Callable[[onnx.NodeProto, Inputs], Any]


class OnnxModule(nn.Module):
    """Runs the graph; `constants` holds parameters for floats and buffers for the rest, under the names in `names`."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        self._graph = Graph(model)
        unknown = sorted({node.op_type for node in self._graph.nodes} - OPERATORS.keys())
        if unknown:
            hint = "fine-tune where the model was trained, and name the result under [sparsify] model"
            raise UsageError(f"fine-tuning does not know the operator {unknown[0]}", hint)
        self.trained: dict[str, nn.Parameter] = {}
        self._fixed: dict[str, Tensor] = {}
        for number, name in enumerate(self._graph.constants):
            value = torch.from_numpy(self._graph.array(name).copy())
            if value.dtype == torch.float32 and value.numel() > 1:
                self.trained[name] = nn.Parameter(value)
                self.register_parameter(f"constant_{number}", self.trained[name])
            else:
                self._fixed[name] = value

    def forward(self, feed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs of the graph by name."""
        values: dict[str, Any] = {**self._fixed, **self.trained, **feed}
        for node in self._graph.nodes:
            result = OPERATORS[node.op_type](node, [values[name] if name else None for name in node.input])
            made = list(result) if len(node.output) > 1 else [result]
            values.update(zip(node.output, made, strict=True))
        return {name: values[name] for name in self._graph.outputs}


def _padded(node: onnx.NodeProto, x: Tensor, value: float) -> Tensor:
    """The picture with the node's padding, which may differ between its sides, put around it."""
    if attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise UsageError(f"fine-tuning does not know automatic padding, at {node.name!r}", "export explicit pads")
    pads = list(attribute(node, "pads", [0, 0, 0, 0]))
    top, left, bottom, right = pads
    return functional.pad(x, (left, right, top, bottom), value=value) if any(pads) else x


def _conv(node: onnx.NodeProto, inputs: Inputs) -> Tensor:
    x, weight, bias = (*inputs, None)[:3]
    window = {"stride": attribute(node, "strides", [1, 1]), "dilation": attribute(node, "dilations", [1, 1])}
    return functional.conv2d(_padded(node, x, 0.0), weight, bias, groups=attribute(node, "group", 1), **window)


def _max_pool(node: onnx.NodeProto, inputs: Inputs) -> Tensor:
    window, strides = attribute(node, "kernel_shape", None), attribute(node, "strides", [1, 1])
    padded = _padded(node, inputs[0], -torch.inf)
    return functional.max_pool2d(padded, window, strides, ceil_mode=bool(attribute(node, "ceil_mode", 0)))


def _gemm(node: onnx.NodeProto, inputs: Inputs) -> Tensor:
    first = inputs[0].T if attribute(node, "transA", 0) else inputs[0]
    second = inputs[1].T if attribute(node, "transB", 0) else inputs[1]
    product = attribute(node, "alpha", 1.0) * (first @ second)
    return product + attribute(node, "beta", 1.0) * inputs[2] if len(inputs) > 2 else product


def _reshape(node: onnx.NodeProto, inputs: Inputs) -> Tensor:
    x, shape = inputs[0], inputs[1].tolist()
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(shape)])


def _resize(node: onnx.NodeProto, inputs: Inputs) -> Tensor:
    sizes = inputs[3].tolist()[2:] if len(inputs) > 3 else None
    scales = None if sizes else inputs[2].tolist()[2:]
    if attribute(node, "mode", b"nearest") != b"nearest":
        raise UsageError(f"fine-tuning knows nearest Resize only, not {node.name!r}", "fine-tune where it was trained")
    return functional.interpolate(inputs[0], size=sizes, scale_factor=scales, mode="nearest")


def _slice(node: onnx.NodeProto, inputs: Inputs) -> Tensor:
    x, starts, ends = inputs[0], inputs[1].tolist(), inputs[2].tolist()
    axes = inputs[3].tolist() if len(inputs) > 3 and inputs[3] is not None else range(len(starts))
    steps = inputs[4].tolist() if len(inputs) > 4 else [1] * len(starts)
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[axis] = slice(start, end, step)
    return x[tuple(index)]


def _gather(node: onnx.NodeProto, inputs: Inputs) -> Tensor:
    (x, index), axis = inputs, attribute(node, "axis", 0) % inputs[0].ndim
    found = torch.index_select(x, axis, index.reshape(-1) % x.shape[axis])
    return found.reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])


def _norm(node: onnx.NodeProto, inputs: Inputs) -> Tensor:
    x, scale, bias = (*inputs, None)[:3]
    return functional.layer_norm(x, scale.shape, scale, bias, attribute(node, "epsilon", 1e-5))


def _unsqueeze(node: onnx.NodeProto, inputs: Inputs) -> Tensor:
    x, axes = inputs[0], inputs[1].tolist()
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _constant_of_shape(node: onnx.NodeProto, inputs: Inputs) -> Tensor:
    value = attribute(node, "value", None)
    fill = torch.zeros(1) if value is None else torch.from_numpy(numpy_helper.to_array(value).copy())
    return fill.expand(inputs[0].tolist()).clone()


def _cast(node: onnx.NodeProto, inputs: Inputs) -> Tensor:
    kind = helper.tensor_dtype_to_np_dtype(attribute(node, "to", TensorProto.FLOAT))
    return inputs[0].to(torch.from_numpy(np.zeros(1, kind)).dtype)


def _shape(node: onnx.NodeProto, inputs: Inputs) -> Tensor:
    return torch.tensor(inputs[0].shape)[attribute(node, "start", 0) : attribute(node, "end", None)]


OPERATORS: dict[str, Operator] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": lambda node, x: x[0] @ x[1],
    "Add": lambda node, x: x[0] + x[1],
    "Sub": lambda node, x: x[0] - x[1],
    "Mul": lambda node, x: x[0] * x[1],
    "Div": lambda node, x: x[0] / x[1],
    "Erf": lambda node, x: torch.erf(x[0]),
    "Relu": lambda node, x: functional.relu(x[0]),
    "Clip": lambda node, x: torch.clamp(x[0], *x[1:]),
    "Sigmoid": lambda node, x: torch.sigmoid(x[0]),
    "LeakyRelu": lambda node, x: functional.leaky_relu(x[0], attribute(node, "alpha", 0.01)),
    "HardSwish": lambda node, x: functional.hardswish(x[0]),
    "Softmax": lambda node, x: torch.softmax(x[0], attribute(node, "axis", -1)),
    "LayerNormalization": _norm,
    "MaxPool": _max_pool,
    "GlobalAveragePool": lambda node, x: x[0].mean((2, 3), keepdim=True),
    "Concat": lambda node, x: torch.cat(x, attribute(node, "axis", 0)),
    "Split": lambda node, x: torch.split(x[0], x[1].tolist(), attribute(node, "axis", 0)),
    "Slice": _slice,
    "Gather": _gather,
    "Shape": _shape,
    "Expand": lambda node, x: x[0] * torch.ones(x[1].tolist(), dtype=x[0].dtype),
    "Reshape": _reshape,
    "Flatten": lambda node, x: x[0].flatten(attribute(node, "axis", 1)),
    "Transpose": lambda node, x: x[0].permute(attribute(node, "perm", list(range(x[0].ndim))[::-1])),
    "Resize": _resize,
    "Identity": lambda node, x: x[0],
    "Cast": _cast,
    "Range": lambda node, x: torch.arange(x[0].item(), x[1].item(), x[2].item(), dtype=x[0].dtype),
    "ConstantOfShape": _constant_of_shape,
    "Unsqueeze": _unsqueeze,
}
