"""Models from disk: what cannot be worked on is refused in a sentence that names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edged.errors import UsageError
from edged_calibration.graph.index import session
from edged_calibration.graph.model_file import Wanted, check_model, input_size, load_model
from tests.support.calibration import SIDE, classifier


def changed(change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    model = classifier()
    change(model)
    return model


def test_a_good_model_comes_back_whole(tmp_path: Path) -> None:
    onnx.save(classifier(), tmp_path / "model.onnx")
    model = load_model(tmp_path / "model.onnx")
    assert input_size(model) == (SIDE, SIDE)
    planes = np.random.default_rng(0).standard_normal((2, 3, SIDE, SIDE)).astype(np.float32)
    found, wanted = (session(m).run(None, {"pixels": planes})[0] for m in (model, classifier()))
    assert np.allclose(found, wanted, atol=1e-5)


def test_a_fixed_batch_is_freed_where_the_graph_allows() -> None:
    def fix(model: onnx.ModelProto) -> None:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 1

    model = check_model(changed(fix), "m")
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def _weights(value: float) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name == "a.weight")
        values = numpy_helper.to_array(tensor).copy()
        values[0, 0, 0, 0] = value
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    return change


def _side(axis: int, name: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name

    return change


def _custom(model: onnx.ModelProto) -> None:
    model.graph.node[1].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def _unknown(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type = "Reluu"


def _opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 6


def _half(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def _two_inputs(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [1]))


def _loop(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Loop", ["logits"], ["out"], name="maybe"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_weights(float("nan")), "a.weight hold NaN"),
        (_weights(float("inf")), "a.weight hold NaN or infinity"),
        (_side(2, "height"), "the height of its input is open"),
        (_side(3, "w"), "the width of its input is open"),
        (_custom, "Relu of com.example"),
        (_unknown, "Reluu"),
        (_opset, "opset 6"),
        (_half, "float16, expected float"),
        (_two_inputs, "the input other 1 beside the picture"),
        (_loop, "Loop (maybe)"),
    ],
)
def test_what_cannot_be_worked_on_is_named(change: Callable[[onnx.ModelProto], None], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_model(changed(change), "some.onnx")
    assert message in refused.value.message and refused.value.message.startswith("some.onnx")
    assert refused.value.hint and "\n" not in refused.value.message


def test_an_open_size_is_fixed_by_the_recipe_and_another_one_refused() -> None:
    model = changed(_side(2, "h"))
    assert input_size(check_model(model, "m", Wanted(SIDE, 64))) == (SIDE, 64)
    assert input_size(check_model(classifier(), "m", Wanted(48, 48))) == (48, 48)  # the graph allows it


def test_weights_beside_the_model_are_taken_and_missed(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(classifier(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    load_model(path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(UsageError, match=r"'weights\.bin', which is not beside it"):
        load_model(path)


def test_weights_elsewhere_on_the_machine_are_not_read(tmp_path: Path) -> None:
    model = classifier()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UsageError, match="not beside it"):
        load_model(path)


def test_what_is_no_model_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_model(tmp_path / "none.onnx")
    with pytest.raises(UsageError, match="cannot be read"):
        load_model(tmp_path)


@given(content=st.binary(max_size=300))
def test_any_bytes_are_a_model_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzz.onnx"
    file.write_bytes(content)
    with pytest.raises(UsageError):
        load_model(file)


def test_a_model_cut_short_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "cut.onnx"
    file.write_bytes(classifier().SerializeToString()[:-2000])
    with pytest.raises(UsageError):
        load_model(file)


@pytest.mark.parametrize(
    ("uri", "message"),
    [("zoo://resnet-51", "no such model"), ("zoo://mobilenet-v2?side=3", "only size and seed")],
)
def test_a_generated_model_is_asked_for_by_name(uri: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_model(uri)
