from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edged.engines.onnx_file import LEAST_OUTSIDE_BYTES, check_self_contained, without_weights
from edged.errors import EdgedError
from tests.support.models import Tensors, center_model, lying_model, model_with_external_weights

ROOT = Path(__file__).parents[2]
OUTSIDE = "weights lie in another file"


def external_tensor() -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def test_complete_models_pass() -> None:
    for content in (center_model(), lying_model(), center_model(spoil="gather")):
        check_self_contained(content, "m.onnx")


def test_a_tensor_named_location_is_nothing_special() -> None:
    check_self_contained(center_model(tensors=Tensors(scores_name="location")), "m.onnx")


def test_initializers_outside_are_found() -> None:
    with pytest.raises(EdgedError, match=OUTSIDE):
        check_self_contained(model_with_external_weights("w.bin"), "m.onnx")


def test_tensors_outside_are_found_in_every_place_that_may_hold_one() -> None:
    for place in ("attribute", "subgraph", "function", "sparse"):
        model = onnx.load_from_string(center_model())
        node = helper.make_node("Constant", [], ["c"], value=external_tensor())
        if place == "attribute":
            model.graph.node.append(node)
        elif place == "subgraph":
            inner = helper.make_graph([node], "inner", [], [])
            model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner))
        elif place == "function":
            model.functions.add(name="f").node.append(node)
        else:
            model.graph.sparse_initializer.add().values.CopyFrom(external_tensor())
        with pytest.raises(EdgedError, match=OUTSIDE):
            check_self_contained(model.SerializeToString(), "m.onnx")


def test_a_location_without_entries_counts_too() -> None:
    model = onnx.load_from_string(center_model())
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    with pytest.raises(EdgedError, match=OUTSIDE):
        check_self_contained(model.SerializeToString(), "m.onnx")


def test_other_formats_and_cut_files_are_refused() -> None:
    with pytest.raises(EdgedError, match="ONNX Runtime's own format"):
        check_self_contained(b"\x00\x00\x00\x00ORTM" + bytes(40), "m.onnx")
    with pytest.raises(EdgedError, match="cut short"):
        check_self_contained(center_model()[:-100], "m.onnx")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_bytes_end_in_a_pass_or_in_an_edged_error(data: st.DataObject) -> None:
    content = bytearray(center_model())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    for candidate in (bytes(content), data.draw(st.binary(max_size=64))):
        try:
            check_self_contained(candidate, "m.onnx")
        except EdgedError as error:
            assert error.hint


@pytest.mark.parametrize("path", sorted((ROOT / "edged/bundles/demo").glob("*.onnx")), ids=lambda path: path.name)
def test_without_its_weights_a_model_is_the_same_with_them_in_place(path: Path) -> None:
    content = path.read_bytes()
    light = without_weights(content, "here")
    assert len(light) < len(content) / 5
    model, whole = onnx.load_from_string(light), onnx.load_from_string(content)
    moved = 0
    for tensor in model.graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        if not place:
            continue
        moved += 1
        assert place.pop("location") == "here" and tensor.data_location == TensorProto.EXTERNAL
        offset, length = int(place["offset"]), int(place["length"])
        assert length >= LEAST_OUTSIDE_BYTES
        tensor.raw_data = content[offset : offset + length]
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    assert moved and model == whole
