"""Any exporter's opset and structure brought to what the passes work on: opset 13 or newer, no local functions, sorted.

In: a model as it was read. Out: the same function in a form that ONNX Runtime and TensorRT take; UsageError else.
"""

from __future__ import annotations

from typing import Final

import onnx
from onnx import inliner, version_converter

from edged.errors import UsageError

OLDEST: Final = 7
RAISED_TO: Final = 17
"""What an opset below 13 becomes: per-channel DequantizeLinear came with 13, and TensorRT 8.6 parses up to 17."""

LOWERED_TO: Final = 20
"""What a newer opset becomes where that is possible: the newest that TensorRT 10.3 parses."""

_LEAST: Final = 13
_IR_VERSION: Final = 10
_NEWER: Final = f"export it again with opset_version={RAISED_TO}"


def standard(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model without local functions, in an opset from 13 on, its nodes in an order in which they can run."""
    if model.functions:
        try:
            model = inliner.inline_local_functions(model, convert_version=True)
        except Exception as error:  # the binding raises several unrelated types
            raise UsageError(f"{name}: its functions cannot be inlined: {_first(error)}", _NEWER) from error
    _check_domains(model, name)
    _sort(model, name)
    model = _converted(model, name)
    model.ir_version = min(max(model.ir_version, 8), _IR_VERSION)  # from 4 on weights need not be inputs as well
    return model


def opset(model: onnx.ModelProto) -> int:
    """The version of the standard operators."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def _check_domains(model: onnx.ModelProto, name: str) -> None:
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise UsageError(
                f"{name}: the operator {node.op_type} of {node.domain} is not a standard one",
                "export the model without custom operators; leave decoding and NMS to edged",
            )
    used = {node.domain for node in model.graph.node} | {"", "ai.onnx"}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _converted(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    version = opset(model)
    if version < OLDEST:
        raise UsageError(f"{name} has opset {version or 'of no version'}; {OLDEST} and newer can be worked on", _NEWER)
    if version < _LEAST:
        try:
            return version_converter.convert_version(model, RAISED_TO)
        except Exception as error:  # the converter raises several unrelated types
            raise UsageError(
                f"{name}: its opset {version} cannot be raised to {RAISED_TO}: {_first(error)}", _NEWER
            ) from error
    if version > LOWERED_TO:
        try:
            return version_converter.convert_version(model, LOWERED_TO)
        except Exception:  # it has what only the newer opset has: ONNX Runtime takes it, a newer TensorRT too
            return model
    return model


def _sort(model: onnx.ModelProto, name: str) -> None:
    """Put the nodes into an order in which each reads only what is there. UsageError for a cycle."""
    graph = model.graph
    waiting = list(graph.node)
    known = {"", *(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)}
    known |= {tensor.values.name for tensor in graph.sparse_initializer}
    produced = {output for node in waiting for output in node.output}
    ordered: list[onnx.NodeProto] = []
    while waiting:
        ready, later = [], []
        for node in waiting:
            if all(value in known or value not in produced for value in _reads(node)):
                ready.append(node)
                known.update(node.output)
            else:
                later.append(node)
        if not ready:
            raise UsageError(
                f"{name}: its graph has a cycle through {waiting[0].op_type} ({waiting[0].name or 'unnamed'})",
                "give the file that the training framework exported",
            )
        ordered += ready
        waiting = later
    if [id(node) for node in ordered] != [id(node) for node in graph.node]:
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
        del graph.node[:]
        graph.node.extend(copies)


def _reads(node: onnx.NodeProto) -> list[str]:
    """What a node reads, the nodes in its branches included."""
    found = list(node.input)
    for item in node.attribute:
        if item.type == onnx.AttributeProto.GRAPH:
            found += [name for inner in item.g.node for name in _reads(inner)]
    return found


def _first(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[-1][:300] if text else type(error).__name__
