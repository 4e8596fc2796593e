"""What TensorRT's engine inspector says of a plan: which layers really compute in INT8 and on sparse kernels.

In: the inspector's JSON (detailed). Out: counts for the manifest, and a warning where a plan is not what it is called.
A layer that may be sparse is not one that is: TensorRT times both kernels and keeps the faster. The JSON is not
documented as stable; from version 8 to 11 it kept what is read here, under either of the names known.
"""

from __future__ import annotations

import json
from typing import Any

from edged.engines.manifest import Layers

_WEIGHTED = ("convolution", "deconvolution", "matrix", "gemm", "fully")
_ELIGIBLE = ("HasSparseWeights", "AllowSparse")
_SPARSE = ("sparse", "sptensor")


def read_layers(inspected: str) -> Layers | None:
    """None where the inspector tells names only, or nothing that can be read."""
    try:
        listed = json.loads(inspected).get("Layers", [])
    except (ValueError, AttributeError):
        return None
    layers = [layer for layer in listed if isinstance(layer, dict)]
    if not layers:
        return None
    weighted = [layer for layer in layers if _is_weighted(layer)]
    return Layers(
        weighted=len(weighted),
        int8=sum(_is_int8(layer) for layer in weighted),
        sparse_eligible=sum(any(layer.get(key) for key in _ELIGIBLE) for layer in weighted),
        sparse_used=sum(_is_sparse(layer) for layer in weighted),
    )


def complaint(variant: str, precision: str, sparse: bool, layers: Layers | None) -> str | None:
    """One sentence where the plan is not what the variant is called, or None."""
    if layers is None:
        return f"{variant}: the inspector does not say what its layers compute in"
    missing = []
    if precision == "int8" and layers.int8 == 0:
        missing.append("no layer computes in INT8")
    if sparse and layers.sparse_used == 0:
        missing.append(
            f"no layer uses a sparse kernel, though {layers.sparse_eligible} have weights that would allow it"
        )
    if not missing:
        return None
    return (
        f"{variant} is not what it is called on this device: of {layers.weighted} layers with weights "
        + ", and ".join(missing)
    )


def _is_weighted(layer: dict[str, Any]) -> bool:
    weights = layer.get("Weights")
    if isinstance(weights, dict):
        return bool(weights.get("Count"))
    kind = f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}".lower()
    return any(word in kind for word in _WEIGHTED)


def _is_int8(layer: dict[str, Any]) -> bool:
    weights = layer.get("Weights")
    if isinstance(weights, dict) and weights.get("Type"):
        return "int8" in str(weights["Type"]).lower()
    inputs = layer.get("Inputs") or []
    first = inputs[0] if inputs and isinstance(inputs[0], dict) else {}
    kind = " ".join(str(first.get(key, "")) for key in ("Format/Datatype", "Datatype"))
    return "int8" in kind.lower()


def _is_sparse(layer: dict[str, Any]) -> bool:
    tactic = str(layer.get("TacticName", "")).lower()
    return any(word in tactic for word in _SPARSE)
