"""Normalisation inside the graph, and models that read BGR."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edged_calibration.graph.index import Graph, session
from edged_calibration.int8.calibrate import Range, ranges
from edged_calibration.int8.write import calibrate, quantize
from edged_calibration.recipe.input_normalisation import Form, Normalisation, on_pictures, to_bgr
from tests.support.calibration import SIDE, classifier

BYTES = Normalisation((128.0,) * 3, (128.0,) * 3)
IMAGENET = Normalisation((103.53, 116.28, 123.675), (57.375, 57.12, 58.395))


@pytest.fixture(scope="module")
def patches() -> onnx.ModelProto:
    """One convolution over 8x8 patches: `pixels` [N, 3, 32, 32] -> `cls` [N, 16, 4, 4]."""
    weights = np.random.default_rng(0).standard_normal((16, 3, 8, 8)).astype(np.float32) / 14
    graph = helper.make_graph(
        [helper.make_node("Conv", ["pixels", "weight"], ["cls"], name="conv", strides=[8, 8])],
        "patches",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("cls", TensorProto.FLOAT, ["N", 16, 4, 4])],
        [numpy_helper.from_array(weights, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)


@pytest.mark.parametrize("normalisation", [BYTES, IMAGENET], ids=["bytes", "imagenet"])
@pytest.mark.parametrize("form", ["cast", "dequantize"])
def test_normalisation_is_inside_the_graph(
    patches: onnx.ModelProto, images: np.ndarray, form: Form, normalisation: Normalisation
) -> None:
    wanted = session(patches).run(None, {"pixels": normalisation.planes(images)})[0]
    found = session(on_pictures(patches, normalisation, form)).run(None, {"image": images})[0]
    assert np.allclose(found, wanted, atol=1e-4)


def test_the_range_is_that_of_all_bytes() -> None:
    assert BYTES.range == Range(-1.0, 127 / 128)
    assert BYTES.grid == (1 / 128, 128) and IMAGENET.grid is None
    assert Normalisation((0.0,) * 3, (255.0,) * 3).grid == (1 / 255, 0)
    assert IMAGENET.range.high == pytest.approx((255 - 103.53) / 57.375)


def test_bytes_go_straight_into_the_first_quantised_layer(patches: onnx.ModelProto, images: np.ndarray) -> None:
    deeper = onnx.ModelProto.FromString(patches.SerializeToString())  # the last convolution stays float
    deeper.graph.node.append(helper.make_node("Conv", ["cls", "head"], ["out"], name="last"))
    deeper.graph.initializer.append(numpy_helper.from_array(np.ones((8, 16, 1, 1), np.float32), "head"))
    deeper.graph.output[0].CopyFrom(helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 8, 4, 4]))
    measured = ranges(calibrate(deeper, [{"pixels": BYTES.planes(images)}])) | {"pixels": BYTES.range}
    graphs = {
        target: Graph(on_pictures(quantize(deeper, measured, target), BYTES, "dequantize")) for target in ("x86", "arm")
    }
    assert [node.op_type for node in graphs["x86"].nodes].count("QuantizeLinear") == 1  # what the last layer reads
    assert [node.op_type for node in graphs["arm"].nodes].count("QuantizeLinear") == 2  # from uint8 to int8


def test_a_model_on_rgb_reads_bgr_at_no_cost() -> None:
    model = classifier()
    turned = to_bgr(model)
    assert [node.op_type for node in turned.graph.node] == [node.op_type for node in model.graph.node]
    planes = np.random.default_rng(2).standard_normal((2, 3, SIDE, SIDE)).astype(np.float32)
    wanted = session(model).run(None, {"pixels": planes})[0]
    assert np.allclose(session(turned).run(None, {"pixels": planes[:, ::-1].copy()})[0], wanted, atol=1e-5)


def test_a_model_whose_input_is_read_twice_gets_a_gather() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Sub", ["a", "x"], ["out"])]
    x, out = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, 4, 4])] for name in ("x", "out"))
    model = helper.make_model(
        helper.make_graph(nodes, "g", x, out), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    turned = to_bgr(model)
    onnx.checker.check_model(turned, full_check=True)
    planes = np.random.default_rng(3).standard_normal((1, 3, 4, 4)).astype(np.float32)
    wanted = session(model).run(None, {"x": planes})[0]
    assert np.array_equal(session(turned).run(None, {"x": planes[:, ::-1].copy()})[0], wanted)
