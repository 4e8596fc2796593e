"""The demo detector as ONNX: from torch to a float graph on normalised pixels, and from that to one on raw pictures."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from calibration.calibrators import Range
from calibration.demo.data import HEIGHT, WIDTH
from calibration.graph import copy_of, drop_unused

if TYPE_CHECKING:
    from calibration.demo.model import Detector

OPSET = 17  # the newest that every supported TensorRT parses
PIXELS, IMAGE = "pixels", "image"  # input of the graph: normalised floats; raw bytes
PIXEL_RANGE = Range(-1.0, 127 / 128)  # of (p - 128) / 128: its INT8 grid is the pixel itself

Form = Literal["cast", "dequantize"]


def export(model: Detector) -> onnx.ModelProto:
    """The float graph, batch norm folded: `pixels` [N, 3, HEIGHT, WIDTH] -> `cls`, `box`; N is dynamic."""
    import torch

    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the newer exporter writes no opset below 18
        path = Path(directory) / "model.onnx"
        torch.onnx.export(
            model.eval(),
            (torch.zeros(1, 3, HEIGHT, WIDTH),),
            path,
            opset_version=OPSET,
            input_names=[PIXELS],
            output_names=["cls", "box"],
            dynamic_axes={name: {0: "N"} for name in (PIXELS, "cls", "box")},
            dynamo=False,
        )
        exported = copy_of(onnx.load(path))
    _lift_constants(exported)
    drop_unused(exported)
    onnx.checker.check_model(exported, full_check=True)
    return exported


def _lift_constants(model: onnx.ModelProto) -> None:
    """Turn Constant nodes and copies of constants into initializers, named after the node that reads them."""
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        values = [item.t for item in node.attribute if item.name == "value"]
        if node.op_type == "Constant" and values:
            constants[node.output[0]] = numpy_helper.to_array(values[0])
        elif node.op_type == "Identity" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
        else:
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
    initializers = []
    for node in kept:
        for position, name in enumerate(node.input):
            if name in constants:
                role = {1: "weight", 2: "bias"}[position] if node.op_type == "Conv" else str(position)
                node.input[position] = f"{node.name.removesuffix('/Conv').lstrip('/')}/{role}"
                initializers.append(numpy_helper.from_array(constants[name], node.input[position]))
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(initializers)


def on_pictures(model: onnx.ModelProto, form: Form) -> onnx.ModelProto:
    """The graph on `image`, uint8 [N, HEIGHT, WIDTH, 3] BGR, normalised by (p - 128) / 128 inside.

    "cast" is the form that TensorRT takes: bytes may only enter a cast there. "dequantize" is one node on ONNX
    Runtime; where the graph quantises its input to bytes on the same grid, the bytes go straight in.
    """
    result = copy_of(model)
    graph = result.graph
    center, scale = _float("center", 128), _float("center_scale", 1 / 128)
    if form == "cast":
        nodes = [
            helper.make_node("Cast", [IMAGE], ["image_float"], name="image_Cast", to=TensorProto.FLOAT),
            helper.make_node("Sub", ["image_float", "center"], ["image_centered"], name="image_Sub"),
            helper.make_node("Mul", ["image_centered", "center_scale"], ["image_scaled"], name="image_Mul"),
            helper.make_node("Transpose", ["image_scaled"], [PIXELS], name="image_Transpose", perm=[0, 3, 1, 2]),
        ]
    else:
        center = numpy_helper.from_array(np.array(128, np.uint8), "center")
        inputs = ["image_planes", "center_scale", "center"]
        nodes = [
            helper.make_node("Transpose", [IMAGE], ["image_planes"], name="image_Transpose", perm=[0, 3, 1, 2]),
            helper.make_node("DequantizeLinear", inputs, [PIXELS], name="image_Dequantize"),
        ]
        _feed_bytes(result)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    del graph.node[:], graph.input[:]
    graph.node.extend([*nodes, *copies])
    graph.input.append(helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, ["N", HEIGHT, WIDTH, 3]))
    graph.initializer.extend([center, scale])
    drop_unused(result)
    onnx.checker.check_model(result, full_check=True)
    return result


def _feed_bytes(model: onnx.ModelProto) -> None:
    """Let readers of the input's quantised bytes read the picture, if its grid is the picture's own."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] == PIXELS:
            scale, zero = constants[node.input[1]], constants[node.input[2]]
            if zero.dtype == np.uint8 and zero == 128 and scale == np.float32(1 / 128):
                for reader in model.graph.node:
                    for position, name in enumerate(reader.input):
                        if name == node.output[0]:
                            reader.input[position] = "image_planes"


def _float(name: str, value: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, np.float32), name)
