"""Models as exporters write them: each becomes the same function in the form that the passes work on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edged.errors import UsageError
from edged_calibration.fp16 import halve_checked
from edged_calibration.graph.index import session
from edged_calibration.graph.model_file import Wanted, check_model, fixed_batch, load_model, output_shapes
from edged_calibration.graph.opset import opset
from edged_calibration.recipe.input_normalisation import IMAGE, Normalisation, on_pictures, to_bgr
from tests.support.calibration import SIDE, classifier

PLANES = np.random.default_rng(0).uniform(0, 1, (2, 3, SIDE, SIDE)).astype(np.float32)


def answers(model: onnx.ModelProto, planes: NDArray[Any] = PLANES) -> NDArray[Any]:
    """Of a checked model, picture by picture."""
    running, entry = session(model), model.graph.input[0].name
    return np.concatenate([running.run(None, {entry: one[None]})[0] for one in planes])


def raw(model: onnx.ModelProto, feed: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """The first output of a model as it was exported."""
    import onnxruntime

    return np.asarray(onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)[0])


def shaped(model: onnx.ModelProto, *sides: int | str) -> onnx.ModelProto:
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("pixels", TensorProto.FLOAT, list(sides)))
    return model


def made(nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: dict[str, Any], opset: int = 17) -> Any:
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("version", [7, 9, 10, 11, 12, 13, 17, 20, 21, 22])
def test_every_opset_gives_the_same_answers(version: int) -> None:
    wanted = answers(check_model(classifier(), "m"))
    exported = classifier()
    exported.opset_import[0].version = version  # its operators mean the same in all of them
    found = check_model(exported, "m")
    assert 13 <= opset(found) <= 20
    assert np.allclose(answers(found), wanted, atol=1e-5)


def test_a_batch_that_is_fixed_inside_stays_one() -> None:
    model = classifier()
    flatten = next(node for node in model.graph.node if node.op_type == "Flatten")
    flatten.CopyFrom(helper.make_node("Reshape", ["z", "static"], ["f"], name="flatten"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 16], np.int64), "static"))
    assert fixed_batch(check_model(model, "m")) == 1
    assert fixed_batch(check_model(classifier(), "m")) is None


def test_a_batch_that_mixes_its_pictures_stays_one() -> None:
    """Two pictures go through it, but each answer depends on both."""
    model = classifier()
    model.graph.node.append(helper.make_node("ReduceMean", ["logits"], ["mean"], axes=[0], keepdims=1))
    model.graph.node.append(helper.make_node("Sub", ["logits", "mean"], ["centred"]))
    model.graph.output[0].name = "centred"
    assert fixed_batch(check_model(model, "m")) == 1


@pytest.mark.parametrize("kind", ["float", "uint8"])
@pytest.mark.parametrize("cast_first", [False, True])
def test_channels_last_and_bytes(kind: str, cast_first: bool) -> None:
    """As TensorFlow and in-graph preprocessing have it: N x H x W x 3, cast, scaled and transposed inside."""
    model = classifier()
    dtype = TensorProto.UINT8 if kind == "uint8" else TensorProto.FLOAT
    turn = helper.make_node("Transpose", ["a0"], ["pixels"], perm=[0, 3, 1, 2])
    front = [helper.make_node("Cast", ["bytes"], ["a0"], to=TensorProto.FLOAT), turn]
    if not cast_first:
        front = [
            helper.make_node("Transpose", ["bytes"], ["a0"], perm=[0, 3, 1, 2]),
            helper.make_node("Cast", ["a0"], ["pixels"], to=TensorProto.FLOAT),
        ]
    nodes = [*front, *(onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("bytes", dtype, ["N", SIDE, SIDE, 3]))
    pictures = np.random.default_rng(1).integers(0, 256, (2, SIDE, SIDE, 3)).astype(np.uint8)
    wanted = raw(model, {"bytes": pictures.astype(np.float32 if kind == "float" else np.uint8)})
    found = check_model(model, "m")
    planes = pictures.transpose(0, 3, 1, 2).astype(np.float32)
    assert np.allclose(answers(found, planes), wanted, atol=1e-3)
    kinds = [node.op_type for node in found.graph.node]
    assert "Cast" not in kinds or kind == "float"
    assert "Transpose" not in kinds or not cast_first or kind == "uint8"


def two_inputs(name: str, dtype: int, values: int) -> onnx.ModelProto:
    """Boxes scaled by what comes beside the picture."""
    model = classifier()
    model.graph.input.append(helper.make_tensor_value_info(name, dtype, [1, values]))
    model.graph.node.append(helper.make_node("Cast", [name], ["other"], to=TensorProto.FLOAT))
    model.graph.node.append(helper.make_node("ReduceSum", ["other"], ["sum"], keepdims=0))
    model.graph.node.append(helper.make_node("Mul", ["logits", "sum"], ["scaled"]))
    model.graph.output[0].name = "scaled"
    return model


@pytest.mark.parametrize(
    ("name", "dtype", "factor"),
    [
        ("im_shape", TensorProto.FLOAT, 2 * SIDE),
        ("scale_factor", TensorProto.FLOAT, 2),
        ("orig_target_sizes", TensorProto.INT64, 2 * SIDE),
    ],
)
def test_inputs_beside_the_picture_become_constants(name: str, dtype: int, factor: float) -> None:
    found = check_model(two_inputs(name, dtype, 2), "m")
    assert len(found.graph.input) == 1
    assert np.allclose(answers(found), answers(check_model(classifier(), "m")) * factor, rtol=1e-4)


def test_an_input_that_nobody_knows_is_given_by_the_recipe_or_refused_by_name() -> None:
    with pytest.raises(UsageError, match="the input gain 1 x 2 beside the picture") as refused:
        check_model(two_inputs("gain", TensorProto.FLOAT, 2), "m")
    assert "[input.constants] gain = [...], 2 numbers" in (refused.value.hint or "")
    found = check_model(two_inputs("gain", TensorProto.FLOAT, 2), "m", Wanted(constants={"gain": [1, 2]}))
    assert np.allclose(answers(found), answers(check_model(classifier(), "m")) * 3, rtol=1e-4)
    with pytest.raises(UsageError, match="no input 'gian'"):
        check_model(classifier(), "m", Wanted(constants={"gian": [1]}))


def test_a_model_that_uses_edgeds_names_goes_through() -> None:
    model = classifier()
    for node in model.graph.node:
        node.input[:] = ["image" if name == "pixels" else name for name in node.input]
        node.output[:] = ["image_float" if name == "s" else name for name in node.output]
        node.input[:] = ["image_float" if name == "s" else name for name in node.input]
    model.graph.input[0].name = "image"
    normalisation = Normalisation((1.0, 2.0, 3.0), (50.0, 60.0, 70.0))
    for checked in (check_model(model, "m"), to_bgr(check_model(model, "m"))):
        file = on_pictures(checked, normalisation, "cast")
        assert [value.name for value in file.graph.input] == [IMAGE]
        assert len(session(file).run(None, {IMAGE: np.zeros((2, SIDE, SIDE, 3), np.uint8)})[0]) == 2


def grid_model(range_name: str = "steps") -> onnx.ModelProto:
    """A grid as an export with open sides computes it: Shape, Gather, Cast, Range, and a branch by the shape."""
    info = helper.make_tensor_value_info
    branch = [
        helper.make_graph([helper.make_node(kind, ["line"], ["out"], name=kind)], kind, [], [info("out", 1, None)])
        for kind in ("Neg", "Abs")
    ]
    nodes = [
        helper.make_node("Conv", ["pixels", "w"], ["c"], name="conv", strides=[4, 4]),
        helper.make_node("Shape", ["c"], ["sides"], name="shape"),
        helper.make_node("Gather", ["sides", "three"], ["across"], name="gather"),
        helper.make_node("Cast", ["across"], ["limit"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Range", ["zero", "limit", "one"], ["line"], name=range_name),
        helper.make_node("Equal", ["across", "eight"], ["is_eight"], name="equal"),
        helper.make_node("If", ["is_eight"], ["grid"], name="if", then_branch=branch[0], else_branch=branch[1]),
        helper.make_node("Add", ["c", "grid"], ["out"], name="add"),
    ]
    rng = np.random.default_rng(2)
    constants = {"w": rng.normal(0, 1, (4, 3, 4, 4)).astype(np.float32), "three": np.array(3), "eight": np.array(8),
                 "zero": np.array(0, np.float32), "one": np.array(1, np.float32)}  # fmt: skip
    return made(nodes, [info("pixels", 1, ["N", 3, "h", "w"])], [info("out", 1, ["N", 4, "a", "b"])], constants)


def test_shape_arithmetic_is_folded_once_the_size_is_fixed() -> None:
    found = check_model(grid_model(), "m", Wanted(SIDE, SIDE))
    assert [node.op_type for node in found.graph.node] == ["Conv", "Add"]
    assert np.allclose(answers(found), raw(grid_model(), {"pixels": PLANES}), atol=1e-5)
    assert output_shapes(found) == {"out": (4, 8, 8)}


def test_what_a_recipe_keeps_in_float_is_there_to_be_kept_and_is_float() -> None:
    kept = check_model(grid_model("my_range"), "m", Wanted(SIDE, SIDE, keep=["my_*"]))
    assert "my_range" in [node.name for node in kept.graph.node]
    halved, report = halve_checked(kept, [{"pixels": PLANES}], ["my_range"])
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(halved).graph.value_info
    }
    assert types["line"] == TensorProto.FLOAT and TensorProto.FLOAT16 in types.values()
    assert report.sqnr_db["out"] > 50
    halve_checked(kept, [{"pixels": PLANES}])  # a Range has no FP16 form: it stays float without being named


def test_a_graph_with_its_own_nms_gives_a_fixed_number_of_rows() -> None:
    """NonMaxSuppression finds as many as there are; the decoder reads 300 rows, padded with -1."""
    info = helper.make_tensor_value_info
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1, 2, 3], keepdims=0, name="mean"),
        helper.make_node("Reshape", ["mean", "s111"], ["m"], name="reshape"),
        helper.make_node("Add", ["scores0", "m"], ["scores"], name="add"),
        helper.make_node("NonMaxSuppression", ["boxes0", "scores", "most", "iou", "least"], ["chosen"], name="nms"),
        helper.make_node("Slice", ["chosen", "two", "end", "axis"], ["index"], name="slice"),
        helper.make_node("Squeeze", ["index", "axis"], ["flat"], name="squeeze"),
        helper.make_node("Gather", ["boxes0", "flat"], ["boxes"], axis=1, name="gather"),
        helper.make_node("Gather", ["scores_flat", "flat"], ["labels"], axis=0, name="labels"),
    ]
    boxes = np.array([[[0, 0, 9, 9], [20, 20, 29, 29], [21, 20, 29, 29]]], np.float32)
    constants = {"boxes0": boxes, "scores0": np.array([[[0.1, 0.2, 0.9]]], np.float32), "s111": np.array([1, 1, 1]),
                 "most": np.array([10]), "iou": np.array([0.5], np.float32), "least": np.array([0.7], np.float32),
                 "two": np.array([2]), "end": np.array([3]), "axis": np.array([1]),
                 "scores_flat": np.array([7, 8, 9])}  # fmt: skip
    model = made(
        nodes,
        [info("pixels", 1, [1, 3, SIDE, SIDE])],
        [info("boxes", 1, [1, "k", 4]), info("labels", 7, ["k"])],
        constants,
    )
    found = check_model(model, "m")
    assert fixed_batch(found) == 1
    for level, count in ((0.0, 1), (0.65, 2)):
        got, labels = session(found).run(None, {"pixels": np.full((1, 3, SIDE, SIDE), level, np.float32)})
        assert got.shape == (1, 300, 4) and labels.shape == (1, 300) and labels.dtype == np.float32
        assert (labels[0] >= 0).sum() == count and (got[0, count:] == -1).all()


def test_local_functions_are_inlined() -> None:
    inside = helper.make_function(
        "mine", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    model = classifier()
    model.graph.node.append(helper.make_node("Twice", ["logits"], ["double"], domain="mine"))
    model.graph.output[0].name = "double"
    model.functions.append(inside)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    assert np.allclose(answers(check_model(model, "m")), 2 * answers(check_model(classifier(), "m")), atol=1e-5)


def test_nodes_in_any_order_but_not_in_a_circle() -> None:
    model = classifier()
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(model.graph.node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert np.allclose(answers(check_model(model, "m")), answers(check_model(classifier(), "m")), atol=1e-6)
    next(node for node in model.graph.node if node.name == "a").input[0] = "y"
    with pytest.raises(UsageError, match=r"m: its graph has a cycle through \w+"):
        check_model(model, "m")


def test_an_fp16_model_is_refused_with_the_cure() -> None:
    model = classifier()
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    with pytest.raises(UsageError, match="m is an FP16 model") as refused:
        check_model(model, "m")
    assert "half=False" in (refused.value.hint or "")


def test_weights_that_do_not_fill_their_shape_are_refused(tmp_path: Path) -> None:
    model = classifier()
    model.graph.initializer[0].dims[0] = 1 << 40
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UsageError, match=r"the weights stem\.weight do not fit their shape"):
        load_model(tmp_path / "m.onnx")
    onnx.save(classifier(), tmp_path / "e.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "w.bin").write_bytes(b"short")
    with pytest.raises(UsageError, match=r"e\.onnx"):
        load_model(tmp_path / "e.onnx")


@pytest.mark.parametrize("side", [1, 7, 9000, 1 << 40])
def test_a_size_that_no_picture_has_is_refused_before_anything_is_allocated(side: int) -> None:
    with pytest.raises(UsageError, match=f"the height of its input is {side}, expected 8 to 8192"):
        check_model(shaped(classifier(), "N", 3, side, SIDE), "m")
