"""What is read out of the engine inspector's answer, in the forms of several versions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edged.engines.manifest import Layers
from edged_calibration.tensorrt.inspect import complaint, read_layers


def inspected(*layers: Any) -> str:
    return json.dumps({"Layers": list(layers), "Bindings": ["image"]})


CONV = {"Name": "conv", "LayerType": "CaskConvolution", "ParameterType": "Convolution"}
INT8 = {"Weights": {"Type": "Int8", "Count": 8}}
SCALE = {"Name": "s", "Dimensions": [1, 96, 1, 1], "Datatype": "Float"}
KERNEL = {"Name": "w", "Dimensions": [96, 96, 3, 3], "Datatype": "Int8"}
CORRELATION = {
    "Name": "conv", "LayerType": "correlation", "TacticName": "__myelin_CASK_STUB",
    "Inputs": [{"Name": "x", "Dimensions": [-1, 96, 24, 40], "Datatype": "Int8"}],
}  # fmt: skip
VECTOR = "Thirty-two wide channel vectorized row major Int8 format"


@pytest.mark.parametrize(
    ("layer", "want"),
    [
        (CONV | {"Weights": {"Type": "Int8", "Count": 864}, "TacticName": "sm80_xmma_int8"}, (1, 1, None, 0)),
        (CONV | {"Weights": {"Type": "Half", "Count": 864}, "HasSparseWeights": 1}, (1, 0, 1, 0)),
        (CONV | INT8 | {"AllowSparse": 1, "TacticName": "x_SPARSE_int8"}, (1, 1, 1, 1)),
        (CONV | {"Inputs": [{"Format/Datatype": VECTOR}]}, (1, 1, None, None)),
        (CONV | {"Inputs": [{"Format": "Linear", "Datatype": "INT8"}]}, (1, 1, None, None)),
        ({"Name": "mm", "LayerType": "gemm", "TacticName": "sm87_sptensor_gemm"}, (1, 0, None, 1)),
        (CORRELATION | {"Constants": [SCALE, KERNEL]}, (1, 1, None, None)),
        (CORRELATION | {"Constants": [KERNEL | {"Datatype": "Half"}]}, (1, 0, None, None)),
        (CORRELATION | {"Constants": [SCALE], "LayerType": "gemm"}, (0, 0, 0, 0)),
        (CORRELATION | {"Constants": [KERNEL], "LayerType": "kgen"}, (0, 0, 0, 0)),
        ({"Name": "r", "LayerType": "Reformat"}, (0, 0, 0, 0)),
        (CONV | {"Weights": {"Type": "Half", "Count": 0}}, (0, 0, 0, 0)),
    ],
)
def test_one_layer(layer: dict[str, Any], want: tuple[int, int, int | None, int | None]) -> None:
    assert read_layers(inspected(layer)) == Layers(*want)


@pytest.mark.parametrize("text", ["", "not json", "[]", "null", "{}", inspected(), inspected("conv1", "conv2")])
def test_what_tells_nothing_is_none(text: str) -> None:
    assert read_layers(text) is None


def test_a_plan_that_is_not_what_it_is_called_is_reported_plainly() -> None:
    assert complaint("int8-sparse", "int8", True, Layers(30, 30, 25, 12)) is None
    assert complaint("fp16", "fp16", False, Layers(30, 0, 0, 0)) is None
    message = complaint("int8-sparse", "int8", True, Layers(30, 0, 25, 0))
    assert message == (
        "int8-sparse is not what it is called on this device: of 30 layers with weights no layer computes in INT8, and "
        "no layer uses a sparse kernel, though 25 have weights that allow it"
    )
    assert complaint("int8", "int8", False, Layers(30, 30, None, None)) is None
    message = complaint("int8-sparse", "int8", True, Layers(30, 30, None, None))
    assert message == (
        "int8-sparse: the inspector does not report which of its layers use sparse kernels; compare its latency"
    )
    assert "though" not in str(complaint("int8-sparse", "int8", True, Layers(30, 30, None, 0)))
    assert "does not report what" in str(complaint("int8", "int8", False, None))
