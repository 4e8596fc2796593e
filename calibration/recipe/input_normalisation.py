"""Normalisation inside the graph: from a float model on normalised planes to one on the raw pictures of the daemon.

A model's input is (p - mean) / std. `to_bgr` first makes the float model read BGR, which costs nothing where its first
layer is a convolution. `on_pictures` puts the normalisation in front of any file that is made from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edged_calibration.graph.index import Graph, copy_of, drop_unused
from edged_calibration.int8.calibrate import Range

IMAGE: Final = "image"
"""The input of every file in a bundle: raw bytes, uint8 [N, height, width, 3]."""

Form = Literal["cast", "dequantize"]


@dataclass(frozen=True)
class Normalisation:
    """(p - mean) / std for each of the channels blue, green, red."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def planes(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Normalised [n, 3, height, width] from BGR pictures [n, height, width, 3]."""
        scaled = (images - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), np.float32)

    @property
    def range(self) -> Range:
        """Everything that bytes can become; for equal channels its INT8 grid is the byte itself."""
        ends = [((end - m) / s) for m, s in zip(self.mean, self.std, strict=True) for end in (0, 255)]
        return Range(min(ends), max(ends))

    @property
    def grid(self) -> tuple[float, int] | None:
        """(scale, zero point) of the byte itself; None where the channels differ or zero is not a byte."""
        mean, std = self.mean[0], self.std[0]
        alike = set(self.mean) == {mean} and set(self.std) == {std}
        return (1 / std, int(mean)) if alike and mean == int(mean) and 0 <= mean <= 255 else None


def to_bgr(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model that reads blue, green, red where it read red, green, blue."""
    result = copy_of(model)
    graph = Graph(result)
    name = graph.inputs[0]
    reader = graph.sole_consumer(name)
    if reader is not None and reader.op_type == "Conv" and graph.is_weighted(reader):
        weights = graph.array(reader.input[1])
        if weights.shape[1] == 3 and len(graph.consumers[reader.input[1]]) == 1:
            flipped = np.ascontiguousarray(weights[:, ::-1])
            graph.constants[reader.input[1]].CopyFrom(numpy_helper.from_array(flipped, reader.input[1]))
            return result
    order = numpy_helper.from_array(np.array([2, 1, 0], np.int64), "channel_order")
    result.graph.initializer.append(order)
    for node in graph.consumers[name]:
        for position, used in enumerate(node.input):
            if used == name:
                node.input[position] = f"{name}_rgb"
    nodes = [helper.make_node("Gather", [name, order.name], [f"{name}_rgb"], name="channel_order_Gather", axis=1)]
    nodes += [onnx.NodeProto.FromString(node.SerializeToString()) for node in result.graph.node]
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return result


def on_pictures(model: onnx.ModelProto, normalisation: Normalisation, form: Form) -> onnx.ModelProto:
    """The graph on `image`, uint8 [N, height, width, 3] BGR, normalised inside.

    "cast" is the form that TensorRT takes: bytes may only enter a cast there. "dequantize" is one node on ONNX
    Runtime, where the normalisation allows it; where the graph quantises its input to bytes on the same grid, the
    bytes go straight in.
    """
    result = copy_of(model)
    graph = result.graph
    entry = graph.input[0]
    planes, shape = entry.name, [side.dim_value for side in entry.type.tensor_type.shape.dim]
    grid = normalisation.grid
    if form == "cast" or grid is None:
        nodes, constants = _cast(planes, normalisation)
    else:
        nodes, constants = _dequantize(planes, *grid)
        _feed_bytes(result, planes, *grid)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    del graph.node[:], graph.input[:]
    graph.node.extend([*nodes, *copies])
    graph.input.append(
        helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, [shape[0] or "N", shape[2], shape[3], 3])
    )
    graph.initializer.extend(constants)
    drop_unused(result)
    onnx.checker.check_model(result, full_check=True)
    return result


def _cast(planes: str, normalisation: Normalisation) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    center = _constant("center", _channels(normalisation.mean))
    scale = _constant("center_scale", 1 / _channels(normalisation.std))
    return [
        helper.make_node("Cast", [IMAGE], ["image_float"], name="image_Cast", to=TensorProto.FLOAT),
        helper.make_node("Sub", ["image_float", "center"], ["image_centered"], name="image_Sub"),
        helper.make_node("Mul", ["image_centered", "center_scale"], ["image_scaled"], name="image_Mul"),
        helper.make_node("Transpose", ["image_scaled"], [planes], name="image_Transpose", perm=[0, 3, 1, 2]),
    ], [center, scale]


def _dequantize(planes: str, scale: float, zero: int) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    constants = [
        _constant("center_scale", np.array(scale, np.float32)),
        numpy_helper.from_array(np.array(zero, np.uint8), "center"),
    ]
    inputs = ["image_planes", "center_scale", "center"]
    return [
        helper.make_node("Transpose", [IMAGE], ["image_planes"], name="image_Transpose", perm=[0, 3, 1, 2]),
        helper.make_node("DequantizeLinear", inputs, [planes], name="image_Dequantize"),
    ], constants


def _feed_bytes(model: onnx.ModelProto, planes: str, scale: float, zero: int) -> None:
    """Let readers of the input's quantised bytes read the picture, if its grid is the picture's own."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] == planes:
            found, level = constants[node.input[1]], constants[node.input[2]]
            if level.dtype == np.uint8 and level == zero and found == np.float32(scale):
                for reader in model.graph.node:
                    for position, name in enumerate(reader.input):
                        if name == node.output[0]:
                            reader.input[position] = "image_planes"


def _channels(values: tuple[float, float, float]) -> NDArray[np.float32]:
    """One number where the channels agree, which broadcasts for less."""
    array = np.array(values, np.float32)
    return array[0].reshape(()) if len(set(values)) == 1 else array


def _constant(name: str, value: NDArray[Any]) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, np.float32), name)
