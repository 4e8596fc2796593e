"""Layers as matrix products: shapes by hand, multiply-accumulates against what is published."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edged.errors import UsageError
from edged_calibration import zoo
from edged_calibration.graph.gemm import gemms, shapes
from edged_calibration.graph.index import copy_of, session
from edged_calibration.int8.calibrate import ranges
from edged_calibration.int8.write import calibrate, quantize


def test_a_convolution_is_pixels_by_kernel(network: onnx.ModelProto) -> None:
    first, second, down, last = gemms(network)
    assert (first.m, first.n, first.k) == (12 * 16, 16, 8 * 9)
    assert (down.m, down.n, down.k, down.kernel) == (6 * 8, 32, 16 * 9, (3, 3))
    assert second.macs == 12 * 16 * 16 * 16 and second.parameters == 256 and not second.depthwise
    assert (last.inputs, last.outputs) == (48, 12)


def test_matrix_products_count_rows(perceptron: onnx.ModelProto) -> None:
    gemm, matmul = gemms(perceptron)
    assert (gemm.m, gemm.n, gemm.k, gemm.kernel) == (1, 32, 24, ())
    assert (matmul.m, matmul.n, matmul.k) == (1, 5, 32)


def test_a_quantised_graph_counts_the_same(network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> None:
    quantised = quantize(network, ranges(calibrate(network, feeds)), "trt")
    assert [(g.m, g.n, g.k) for g in gemms(quantised)] == [(g.m, g.n, g.k) for g in gemms(network)]


def test_published_architectures_have_their_published_cost() -> None:
    total = sum(gemm.macs for gemm in gemms(zoo.build("mobilenet-v2", 224)))
    assert total / 1e6 == pytest.approx(301, rel=0.01)


def test_an_unknown_picture_size_is_reported(network: onnx.ModelProto) -> None:
    model = copy_of(network)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    with pytest.raises(UsageError, match="is unknown"):
        gemms(model)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 2),
    st.integers(0, 2),
    st.integers(5, 9),
    st.sampled_from([1, 2]),
)
def test_gemm_shapes_agree_with_what_runs(
    kernel: int, outputs: int, stride: int, pad: int, size: int, groups: int
) -> None:
    weights = numpy_helper.from_array(np.ones((outputs * groups, 3, kernel, kernel), np.float32), "w")
    window: dict[str, Any] = {"strides": [stride] * 2, "pads": [pad] * 4, "group": groups}
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3 * groups, size, size]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], **window)], "g", ends[:1], ends[1:], [weights]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    result = session(model).run(None, {"x": np.ones((1, 3 * groups, size, size), np.float32)})[0]
    (gemm,) = gemms(model)
    assert gemm.m * gemm.n * gemm.groups == result.size == gemm.output_size
    assert gemm.parameters == outputs * groups * 3 * kernel**2
    assert shapes(model)["y"] == result.shape
    if pad == 0:  # then every product is of ones, and the sum of the output counts them
        assert result.sum() == gemm.macs
