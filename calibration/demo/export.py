"""The demo detector as ONNX: from torch to a float graph on normalised pixels."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from onnx import numpy_helper

from edged_calibration.demo.data import HEIGHT, WIDTH
from edged_calibration.graph.index import copy_of, drop_unused

if TYPE_CHECKING:
    from edged_calibration.demo.model import Detector

OPSET = 17  # the newest that every supported TensorRT parses
PIXELS = "pixels"  # input of the graph: (p - 128) / 128


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
