"""Where Q/DQ pairs go in a float graph, for each target. In: the graph, which nodes stay float. Out: tensors and edges.

A pair at the wrong place costs a kernel: it splits what would have been fused, or sends bytes through floats and back.
The work is done by weighted nodes; around them, nodes that only move values (pooling, joining, resizing, splitting) and
additions are *carried* along where what they give reaches a weighted node again. All else stays float: a softmax, a
layer norm, a SiLU, the decoding behind a detector's heads, and attention's products of two activations, which TensorRT
runs as one fused FP16 kernel.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx

from edged_calibration.graph.index import Graph, output_axis
from edged_calibration.sparsity.pattern import LEAST_OUTPUTS

# The outputs of these hold values of their first input only, so that they share its grid.
SAME_VALUES = frozenset(
    {"Resize", "MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Split", "Slice"}
)
ACTIVATIONS = frozenset({"Relu", "Clip"})  # in the epilogue of the kernel before them
JOINS = frozenset({"Add", "Concat"})
_CUTS = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Split", "Slice", "Gather"})
_BYTE_KERNELS = frozenset({"Resize", "MaxPool", "Split", "Slice", "Concat"})  # of TensorRT, when they read a pair
_POINTWISE = ACTIVATIONS | {"Mul", "Sigmoid", "LeakyRelu", "HardSwish", "HardSigmoid", "Tanh", "Elu"}


@dataclass(frozen=True)
class Placement:
    """What to do to a graph.

    `weighted`: nodes whose weights become int8. `edges`: (node, position of the input that it reads through a pair).
    `everywhere`: tensors that all readers, the graph's output too, read through a pair. `shared`: tensor -> the tensors
    whose values its grid has to hold, itself among them.
    """

    weighted: list[onnx.NodeProto]
    edges: list[tuple[onnx.NodeProto, int]]
    everywhere: list[str]
    shared: dict[str, list[str]]


def tensorrt(graph: Graph, keep_float: Collection[str] = ()) -> Placement:
    """Pairs on what kernels read: weighted nodes, byte movers between them, the skip branch of residual additions.

    Everything that a join or a mover connects shares one grid, so that it moves bytes and needs no rescaling.
    """
    weighted = _weighted(graph, keep_float)
    carried = _carried(graph, weighted, keep_float)
    edges = [(node, 0) for node in weighted]
    for node in carried:
        if node.op_type in _BYTE_KERNELS:
            edges += [(node, position) for position in activation_inputs(node)]
    edges += _skip_branches(graph, [node for node in carried if node.op_type == "Add"], weighted)
    edges += _attention_inputs(graph, weighted)
    return Placement(weighted, edges, [], _islands(carried))


def processor(graph: Graph, keep_float: Collection[str] = ()) -> Placement:
    """Pairs on every tensor that weighted and carried nodes read or write, behind the activation where one follows.

    A convolution with none in INT8 behind it, as the last of a detector's heads, stays float: in INT8 its kernel would
    round the answers themselves to 8 bits. A last matrix product is mostly bound by reading its weights, so it is INT8.
    """
    able = _weighted(graph, keep_float)
    earlier = _leading_to(graph, able)
    weighted = [node for node in able if node.op_type != "Conv" or node.output[0] in earlier]
    chosen = {node.name for node in [*weighted, *_carried(graph, able, keep_float)]}
    tensors: dict[str, None] = {}
    for node in graph.nodes:
        if node.name in chosen:
            tensors |= {node.input[position]: None for position in activation_inputs(node)}
            tensors |= {name: None for name in _results(graph, node)}
    shared = {name: [_origin(graph, name, chosen)] for name in tensors}
    return Placement(weighted, [], list(tensors), shared)


def activation_inputs(node: onnx.NodeProto) -> list[int]:
    """Positions of the inputs that carry activations."""
    return list(range(len(node.input))) if node.op_type in JOINS else [0]


def _weighted(graph: Graph, keep_float: Collection[str]) -> list[onnx.NodeProto]:
    return [
        node
        for node in graph.weighted()
        if node.name not in keep_float
        and graph.is_float(node.output[0])
        and graph.array(node.input[1]).shape[output_axis(node)] >= LEAST_OUTPUTS
    ]


def _leading_to(graph: Graph, weighted: list[onnx.NodeProto]) -> set[str]:
    """The tensors whose values reach one of those nodes."""
    found: set[str] = set()
    waiting = [node.input[0] for node in weighted]
    while waiting:
        tensor = waiting.pop()
        node = graph.producers.get(tensor)
        if tensor not in found:
            found.add(tensor)
            waiting += node.input if node is not None else ()
    return found


def _carried(graph: Graph, weighted: list[onnx.NodeProto], keep_float: Collection[str]) -> list[onnx.NodeProto]:
    """Movers and joins whose values reach a weighted node through nothing but their like and activations; in order."""
    found: set[str] = set()
    waiting = [node.input[0] for node in weighted]
    while waiting:
        node = graph.producers.get(waiting.pop())
        if node is None or node.name in found or node.name in keep_float:
            continue
        inputs = [node.input[position] for position in activation_inputs(node)]
        if node.op_type in SAME_VALUES | JOINS | ACTIVATIONS and not any(name in graph.constants for name in inputs):
            found.add(node.name)
            waiting += inputs
    return [node for node in graph.nodes if node.name in found and node.op_type not in ACTIVATIONS]


def _results(graph: Graph, node: onnx.NodeProto) -> list[str]:
    """The tensors that a kernel writes: behind the activation where one follows; none before a bias of its own."""
    if len(node.output) > 1:
        return [name for name in node.output if graph.consumers.get(name)]
    follower = graph.sole_consumer(node.output[0])
    if follower is not None and follower.op_type in ACTIVATIONS:
        return [follower.output[0]]
    biased = follower is not None and follower.op_type == "Add" and any(n in graph.constants for n in follower.input)
    return [] if node.op_type == "MatMul" and biased else [node.output[0]]


def _origin(graph: Graph, tensor: str, chosen: Collection[str]) -> str:
    """The tensor whose values this one holds: itself, or what the carried movers before it were given."""
    producer = graph.producers.get(tensor)
    while producer is not None and producer.op_type in SAME_VALUES and producer.name in chosen:
        tensor = producer.input[0]
        producer = graph.producers.get(tensor)
    return tensor


def _skip_branches(
    graph: Graph, additions: list[onnx.NodeProto], weighted: list[onnx.NodeProto]
) -> list[tuple[onnx.NodeProto, int]]:
    """(addition, position of its skip input): the other input comes from a kernel that the addition is fused into."""
    kernels = {node.name for node in weighted}
    found = []
    for node in additions:
        for position in (1, 0):
            source = graph.producers.get(node.input[position])
            alone = source is not None and graph.sole_consumer(node.input[position]) is not None
            if alone and source is not None and (source.name in kernels or source.op_type in _POINTWISE):
                found.append((node, 1 - position))
                break
    return found


def _attention_inputs(graph: Graph, weighted: list[onnx.NodeProto]) -> list[tuple[onnx.NodeProto, int]]:
    """The readers of a product by weights whose result is cut into the heads of an attention.

    Without a pair there TensorRT for RTX 1.7 moves the cut before the product, so that the product reads INT8
    activations but weights in FP16.
    """
    found = []
    for node in weighted:
        tensor = _biased(graph, node)
        if node.op_type != "Conv" and _reaches_product(graph, tensor):
            readers = graph.consumers.get(tensor, [])
            found += [(reader, list(reader.input).index(tensor)) for reader in readers if reader.op_type in _CUTS]
    return found


def _biased(graph: Graph, node: onnx.NodeProto) -> str:
    """What a product gives, behind the addition of its bias where that is a node of its own."""
    follower = graph.sole_consumer(node.output[0])
    biased = follower is not None and follower.op_type == "Add" and any(n in graph.constants for n in follower.input)
    return str(follower.output[0] if follower is not None and biased else node.output[0])


def _reaches_product(graph: Graph, tensor: str) -> bool:
    """Whether the values are an operand of a product of two activations, through nodes that only cut them up."""
    waiting = [tensor]
    while waiting:
        for node in graph.consumers.get(waiting.pop(), []):
            if node.op_type == "MatMul" and not graph.is_weighted(node):
                return True
            if node.op_type in _CUTS:
                waiting += node.output
    return False


def _islands(carried: list[onnx.NodeProto]) -> dict[str, list[str]]:
    """Tensor -> all tensors that movers and concatenations connect it with."""
    island: dict[str, list[str]] = {}
    for node in carried:
        if node.op_type == "Add":
            continue
        names = [*(node.input[position] for position in activation_inputs(node)), *node.output]
        merged = list(dict.fromkeys(member for name in names for member in island.get(name, [name])))
        island |= {member: merged for member in merged}
    return island
