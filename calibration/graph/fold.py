"""Shape arithmetic folded into constants, once the size of the picture is fixed.

In: a model with one picture size. Out: the same function without what depends on shapes alone: grids, strides, sizes
for Resize, branches that the shapes decide. What such a tensor holds is read from real runs, with one and two pictures;
what is the same in both does not depend on the batch and becomes a constant.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edged_calibration.graph.index import Feed, Graph, Tap, attribute, copy_of, drop_unused

_PAIR = ("QuantizeLinear", "DequantizeLinear")
_CHANCE = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli")
_MOST_BYTES = 64 << 20  # of one constant that folding makes

Values = list[NDArray[Any]]


def folded(model: onnx.ModelProto, feeds: Sequence[Feed], keep: Collection[str] = ()) -> onnx.ModelProto:
    """The model with constants for what depends on shapes alone. `feeds`: batches of different sizes, or one batch if
    the model takes no other. Nodes named in `keep` stay, and all that reads them."""
    result = copy_of(model)
    while True:
        values = _values(result, feeds, keep)
        _replace(result, values)
        if not _inline(result):
            drop_unused(result)
            return result


def _values(model: onnx.ModelProto, feeds: Sequence[Feed], keep: Collection[str]) -> dict[str, Values]:
    """What each tensor holds that depends on shapes alone, one value for each feed."""
    graph = Graph(model)
    known = set(graph.constants)
    derived: list[str] = []
    for node in graph.nodes:
        if node.op_type in ("Shape", "Size"):
            follows = node.name not in keep
        else:
            follows = (
                node.op_type not in (*_PAIR, *_CHANCE)
                and node.name not in keep
                and all(not name or name in known for name in node.input)
                and not any(item.type == onnx.AttributeProto.GRAPH for item in node.attribute)
            )
        if follows:
            outputs = [name for name in node.output if name]
            known.update(outputs)
            derived += outputs
    if not derived:
        return {}
    tap = Tap(model, derived)
    runs = [tap(feed) for feed in feeds]
    return {name: [run[name] for run in runs] for name in derived}


def _replace(model: onnx.ModelProto, values: dict[str, Values]) -> None:
    """Constants for the tensors that are the same in all runs, and for the shapes of a Reshape that only differ in the
    batch."""
    outputs = {value.name for value in model.graph.output}
    constant = {
        name: found[0]
        for name, found in values.items()
        if name not in outputs
        and found[0].nbytes <= _MOST_BYTES
        and all(np.array_equal(found[0], other) for other in found)
    }
    made = [
        onnx.NodeProto.FromString(n.SerializeToString())
        for n in model.graph.node
        if not constant.keys() >= set(n.output)
    ]
    used = {name for node in made for name in _all_inputs(node)}
    for node in made:
        if node.op_type == "Reshape" and node.input[1] in values and node.input[1] not in constant:
            open_shape = _open_shape(values[node.input[1]])
            if open_shape is not None and not attribute(node, "allowzero", 0):
                name = f"{node.name}/shape"
                model.graph.initializer.append(numpy_helper.from_array(open_shape, name))
                node.input[1] = name
    del model.graph.node[:]
    model.graph.node.extend(made)
    for name, value in constant.items():
        if name in used:
            model.graph.initializer.append(numpy_helper.from_array(np.array(value, order="C"), name))


def _open_shape(found: Values) -> NDArray[np.int64] | None:
    """[N, a, b] as [-1, a, b]; None where more than the first side follows the batch, or a side is open already."""
    first = found[0]
    if first.ndim != 1 or not first.size or len(found) < 2 or (first <= 0).any():
        return None
    if any(not np.array_equal(first[1:], other[1:]) for other in found):
        return None
    return np.concatenate(([-1], first[1:])).astype(np.int64)


def _inline(model: onnx.ModelProto) -> bool:
    """Put the branch of every If with a constant condition in its place. Whether there was one."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    found = False
    for node in model.graph.node:
        if node.op_type != "If" or node.input[0] not in constants:
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
            continue
        found = True
        taken = bool(numpy_helper.to_array(constants[node.input[0]]).reshape(-1)[0])
        branch: onnx.GraphProto = attribute(node, "then_branch" if taken else "else_branch", None)
        names = {name: f"{node.name}/{name}" for inner in branch.node for name in inner.output if name}
        names |= {tensor.name: f"{node.name}/{tensor.name}" for tensor in branch.initializer}
        for tensor in branch.initializer:
            copied = model.graph.initializer.add()
            copied.CopyFrom(tensor)
            copied.name = names[tensor.name]
        for inner in branch.node:
            copy = onnx.NodeProto.FromString(inner.SerializeToString())
            copy.name = f"{node.name}/{inner.name}"
            copy.input[:] = [names.get(name, name) for name in inner.input]
            copy.output[:] = [names.get(name, name) for name in inner.output]
            nodes.append(copy)
        for inside, outside in zip(branch.output, node.output, strict=True):
            source = names.get(inside.name, inside.name)
            nodes.append(onnx.helper.make_node("Identity", [source], [outside], name=f"{node.name}/{outside}"))
    if found:
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    return found


def _all_inputs(node: onnx.NodeProto) -> list[str]:
    """What a node reads, the nodes in its branches included."""
    found = list(node.input)
    for item in node.attribute:
        if item.type == onnx.AttributeProto.GRAPH:
            found += [name for inner in item.g.node for name in _all_inputs(inner)]
            found += [value.name for value in item.g.output]
    return found
