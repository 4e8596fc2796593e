"""What TensorRT's engine inspector reports of a plan: which layers really compute in INT8 and on sparse kernels.

In: the inspector's JSON (detailed). Out: counts for the manifest, and a warning where a plan is not what it is called.
A layer that may be sparse is not one that is: TensorRT times both kernels and keeps the faster. The JSON is not
documented as stable. Two forms are known: a layer of TensorRT's own has `Weights`, and from 8 to 11 it kept what is
read here; a kernel of Myelin, TensorRT's compiler, lists its weights among `Constants` and does not report sparsity.
"""

from __future__ import annotations

import json
from typing import Any

from edged.engines.manifest import Layers

_WEIGHTED = ("convolution", "deconvolution", "matrix", "fully", "gemm", "correlation")
_MYELIN = ("correlation", "gemm", "runtime_fusion")  # kernels that may multiply by weights
_ELIGIBLE = ("HasSparseWeights", "AllowSparse")
_SPARSE = ("sparse", "sptensor")
_NO_TACTIC = ("0x0", "__myelin")  # how names begin that do not name a kernel


def read_layers(inspected: str) -> Layers | None:
    """None where the inspector gives names only, or nothing that can be read."""
    try:
        listed = json.loads(inspected).get("Layers", [])
    except (ValueError, AttributeError):
        return None
    layers = [layer for layer in listed if isinstance(layer, dict)]
    if not layers:
        return None
    weighted = [layer for layer in layers if _is_weighted(layer)]
    eligible = [any(layer.get(key) for key in _ELIGIBLE) for layer in weighted if _says_eligible(layer)]
    sparse = [_is_sparse(layer) for layer in weighted if _says_eligible(layer) or _names_tactic(layer)]
    return Layers(
        weighted=len(weighted),
        int8=sum(_is_int8(layer) for layer in weighted),
        sparse_eligible=sum(eligible) if eligible or not weighted else None,
        sparse_used=sum(sparse) if sparse or not weighted else None,
    )


def complaint(variant: str, precision: str, sparse: bool, layers: Layers | None) -> str | None:
    """One sentence where the plan is not what the variant is called, or where that is not known; else None."""
    if layers is None:
        return f"{variant}: the inspector does not report what its layers compute in"
    missing = []
    if precision == "int8" and layers.int8 == 0:
        missing.append("no layer computes in INT8")
    if sparse and layers.sparse_used == 0:
        able = "" if layers.sparse_eligible is None else f", though {layers.sparse_eligible} have weights that allow it"
        missing.append(f"no layer uses a sparse kernel{able}")
    if missing:
        return (
            f"{variant} is not what it is called on this device: of {layers.weighted} layers with weights "
            + ", and ".join(missing)
        )
    if sparse and layers.sparse_used is None:
        return f"{variant}: the inspector does not report which of its layers use sparse kernels; compare its latency"
    return None


def _is_weighted(layer: dict[str, Any]) -> bool:
    weights = layer.get("Weights")
    if isinstance(weights, dict):
        return bool(weights.get("Count"))
    if layer.get("LayerType") in _MYELIN and "Constants" in layer:
        return _matrix(layer) is not None
    kind = f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}".lower()
    return any(word in kind for word in _WEIGHTED)


def _matrix(layer: dict[str, Any]) -> dict[str, Any] | None:
    """The constant that a Myelin kernel multiplies by: one with more than one dimension above 1."""
    for constant in layer.get("Constants") or []:
        if isinstance(constant, dict):
            sides = constant.get("Dimensions") or []
            if sum(isinstance(side, int) and side > 1 for side in sides) > 1:
                return constant
    return None


def _is_int8(layer: dict[str, Any]) -> bool:
    weights = layer.get("Weights")
    if isinstance(weights, dict) and weights.get("Type"):
        return "int8" in str(weights["Type"]).lower()
    inputs = layer.get("Inputs") or []
    read = [inputs[0]] if inputs and isinstance(inputs[0], dict) else []
    if (matrix := _matrix(layer)) is not None:
        read.append(matrix)
    return bool(read) and all("int8" in _datatype(tensor) for tensor in read)


def _datatype(tensor: dict[str, Any]) -> str:
    return " ".join(str(tensor.get(key, "")) for key in ("Format/Datatype", "Datatype")).lower()


def _says_eligible(layer: dict[str, Any]) -> bool:
    return any(key in layer for key in _ELIGIBLE)


def _names_tactic(layer: dict[str, Any]) -> bool:
    name = str(layer.get("TacticName", "")).lower()
    return name != "" and not name.startswith(_NO_TACTIC)


def _is_sparse(layer: dict[str, Any]) -> bool:
    tactic = str(layer.get("TacticName", "")).lower()
    return any(word in tactic for word in _SPARSE)
