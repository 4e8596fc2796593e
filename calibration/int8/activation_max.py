"""The largest magnitude that each float tensor of a model takes on some batches, without keeping the tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from edged_calibration.graph.index import Feed, Graph, copy_of, session
from edged_calibration.progress import Advance, silent


def largest_magnitudes(model: onnx.ModelProto, feeds: Sequence[Feed], progress: Advance = silent) -> dict[str, float]:
    """Tensor -> largest magnitude, of constants too; a tensor that is not finite counts as infinite."""
    graph = Graph(model)
    found = {
        name: float(np.abs(graph.array(name)).max(initial=0))
        for name, tensor in graph.constants.items()
        if tensor.data_type == TensorProto.FLOAT
    }
    names = [*graph.inputs, *(name for node in graph.nodes for name in node.output if name)]
    watched = {f"largest_of_{i}": name for i, name in enumerate(names) if graph.is_float(name)}
    probe = _probe(model, watched)
    for done, feed in enumerate(feeds, start=1):
        for output, value in zip(watched, probe.run(list(watched), dict(feed)), strict=True):
            magnitude = float(value) if np.isfinite(value) else np.inf
            found[watched[output]] = max(found.get(watched[output], 0.0), magnitude)
        progress(done, len(feeds))
    return found


def _probe(model: onnx.ModelProto, watched: dict[str, str]) -> onnxruntime.InferenceSession:
    """A session on the model that gives nothing but the largest magnitude of each watched tensor."""
    probed = copy_of(model)
    del probed.graph.output[:]
    for output, name in watched.items():
        probed.graph.node.append(helper.make_node("Abs", [name], [f"{output}_abs"]))
        probed.graph.node.append(helper.make_node("ReduceMax", [f"{output}_abs"], [output], keepdims=0))
        probed.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, []))
    return session(probed, exact=True)
