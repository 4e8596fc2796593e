"""Runs a float model piece by piece, keeping what is still to be read: layers can be changed while walking past them.

Each layer then sees the inputs that the changed layers before it give, and still every node runs only once. In: a model
whose constants may be replaced, and batches. Out: values of tensors, one array per batch. Frames that would need more
memory than is allowed are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from edged_calibration.graph.gemm import shapes
from edged_calibration.graph.index import Feed, Graph, session

_MEMORY_BYTES = 1 << 30  # for what is kept of all batches together


class IncrementalRunner:
    """A run of `model` over the feeds, as far as has been asked for."""

    def __init__(self, model: onnx.ModelProto, feeds: Sequence[Feed], memory_bytes: int = _MEMORY_BYTES) -> None:
        self._model = model
        self._graph = Graph(model)
        self._left = {node.name: node for node in self._graph.nodes}
        frames = max(memory_bytes // _most_bytes(self._graph, shapes(model)), 1)
        self._values: dict[str, list[NDArray[Any]]] = {name: [] for name in self._graph.inputs}
        for feed in feeds:
            taken = min(frames, len(next(iter(feed.values()))))
            frames -= taken
            if taken:
                for name in self._graph.inputs:
                    self._values[name].append(np.asarray(feed[name])[:taken])

    def until(self, tensor: str) -> list[NDArray[Any]]:
        """The tensor's values, batch by batch; runs what leads to it with the constants as they are now."""
        if tensor not in self._values:
            self._run(self._leading_to(tensor), tensor)
        return self._values[tensor]

    def _leading_to(self, tensor: str) -> list[onnx.NodeProto]:
        needed: set[str] = set()
        waiting = [tensor]
        while waiting:
            node = self._graph.producers.get(waiting.pop())
            if node is not None and node.name in self._left and node.name not in needed:
                needed.add(node.name)
                waiting += [name for name in node.input if name not in self._values]
        return [node for node in self._graph.nodes if node.name in needed]

    def _run(self, nodes: list[onnx.NodeProto], target: str) -> None:
        for node in nodes:
            del self._left[node.name]
        unread = {name for node in self._left.values() for name in node.input} | {target}
        made = [name for node in nodes for name in node.output if name in unread]
        read = dict.fromkeys(name for node in nodes for name in node.input)
        sources = [name for name in read if name in self._values]
        constants = [self._graph.constants[name] for name in read if name in self._graph.constants]
        kinds = {name: helper.np_dtype_to_tensor_dtype(self._values[name][0].dtype) for name in sources}
        ends = [
            helper.make_tensor_value_info(name, kinds[name], [None] * self._values[name][0].ndim) for name in sources
        ]
        outputs = [helper.make_empty_tensor_value_info(name) for name in made]
        graph = helper.make_graph(nodes, "piece", ends, outputs, constants)
        piece = session(
            helper.make_model(graph, opset_imports=self._model.opset_import, ir_version=self._model.ir_version),
            exact=True,
        )
        batches = len(next(iter(self._values.values()))) if self._values else 0
        results = [piece.run(made, {name: self._values[name][i] for name in sources}) for i in range(batches)]
        for position, name in enumerate(made):
            self._values[name] = [result[position] for result in results]
        for name in [name for name in self._values if name not in unread]:
            del self._values[name]


def _most_bytes(graph: Graph, sizes: dict[str, tuple[int, ...]]) -> int:
    """Of one frame: the most that is kept at any point of a walk in graph order."""
    last = {name: index for index, node in enumerate(graph.nodes) for name in node.input}
    kept = {name: prod(sizes[name]) * 4 for name in graph.inputs}
    most = 0
    for index, node in enumerate(graph.nodes):
        kept |= {name: prod(sizes.get(name, ())) * 4 for name in node.output if name in last}
        most = max(most, sum(kept.values()))
        kept = {name: size for name, size in kept.items() if last[name] > index}
    return max(most, 1)
