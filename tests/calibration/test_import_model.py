"""`edged-calibrate import`: a recipe for a model of every family, its guesses marked; what nothing reads is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edged_calibration.cli import main
from edged_calibration.recipe.guess import labels_of
from edged_calibration.recipe.inputs import Inputs
from edged_calibration.recipe.schema import load_recipe

SIDE = 64


def saved(path: Path, outputs: dict[str, Any], metadata: dict[str, str] | None = None, **more: Any) -> Path:
    """A model whose outputs are convolutions of the picture in the given shapes; a value may be (shape, low, high)."""
    rng = np.random.default_rng(0)
    nodes, infos, constants = [], [], []
    for at, (name, given) in enumerate(outputs.items()):
        shape, low, high = given if isinstance(given[0], tuple) else (given, 0.0, 1.0)
        values = rng.uniform(low, high, shape).astype(np.float32)
        constants += [
            numpy_helper.from_array(values, f"v{at}"),
            numpy_helper.from_array(np.float32(1e-4), f"small{at}"),
        ]
        nodes += [
            helper.make_node("ReduceMean", ["x"], [f"m{at}"], axes=[1, 2, 3], keepdims=1, name=f"mean{at}"),
            helper.make_node("Mul", [f"m{at}", f"small{at}"], [f"s{at}"], name=f"mul{at}"),
            helper.make_node("Reshape", [f"s{at}", f"ones{at}"], [f"r{at}"], name=f"reshape{at}"),
            helper.make_node("Add", [f"v{at}", f"r{at}"], [name], name=f"add{at}"),
        ]
        constants.append(numpy_helper.from_array(np.array([-1, *[1] * len(shape[1:])], np.int64), f"ones{at}"))
        infos.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape[1:]]))
    entry = helper.make_tensor_value_info(
        "x", TensorProto.FLOAT, ["N", 3, more.get("side", SIDE), more.get("side", SIDE)]
    )
    model = helper.make_model(
        helper.make_graph(nodes, "g", [entry], infos, constants), opset_imports=[helper.make_opsetid("", 13)]
    )
    model.ir_version = 8
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def imported(path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[dict[str, Any], Path]:
    target = path.with_suffix(".toml")
    assert main(["import", str(path), "--to", str(target), "--json", *more]) == 0
    return json.loads(capsys.readouterr().out), target


CELLS = {8: 64, 16: 16, 32: 4}
ALL = sum(CELLS.values())


def levels(*widths: tuple[str, int], anchors: int = 1) -> dict[str, Any]:
    return {f"{name}_{s}": (1, CELLS[s] * anchors, width) for name, width in widths for s in CELLS}


@pytest.mark.parametrize(
    ("outputs", "task", "wanted"),
    [
        ({"output0": ((1, 7, 120), 2, 60)}, "detect", {"decoder": "yolo", "layout": "columns"}),
        ({"p": ((1, ALL, 8), -2, 2)}, "detect", {"decoder": "yolox"}),
        ({"p": (1, ALL, 3 + 32)}, "detect", {"decoder": "dfl", "scores": ["p"], "bins": 8}),
        (levels(("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)), "pose", {"decoder": "yunet"}),
        (levels(("s", 1), ("b", 4), ("k", 10), anchors=2), "pose", {"decoder": "scrfd"}),
        (levels(("s", 3), ("b", 32)), "detect", {"decoder": "dfl", "strides": [8, 16, 32]}),
        ({"a": (1, 67, 8, 8), "b": (1, 67, 4, 4), "c": (1, 67, 2, 2)}, "detect", {"decoder": "dfl", "layout": "maps"}),
        (
            {"1": (1, 1, 16, 16), "2": (1, 2, 16, 16), "3": (1, 2, 16, 16), "4": (1, 10, 16, 16)},
            "pose",
            {"decoder": "centerface", "heatmap": "1", "scale": "2", "offset": "3"},
        ),
        ({"heat": (1, 3, 8, 8), "far": (1, 4, 8, 8)}, "detect", {"decoder": "center", "stride": 8}),
        (
            {"dets": (1, 30, 4), "labels": ((1, 30, 7), -5, 5)},
            "detect",
            {"decoder": "boxes", "scores": "labels", "activation": "sigmoid", "iou_threshold": 1.0},
        ),
        ({"scores": (1, 4420, 2), "boxes": (1, 4420, 4)}, "detect", {"decoder": "boxes", "activation": "none"}),
        ({"boxes": ((1, 30, 4), 0, 60), "labels": (1, 30), "scores": (1, 30)}, "detect", {"decoder": "detections"}),
        ({"mask": ((1, 5, 32, 32), -3, 3)}, "semantic", {"decoder": "semantic"}),
        ({"features": ((1, 128), -1, 1)}, "embed", {"decoder": "embed"}),
        ({"logits": ((1, 10), -3, 3)}, "classify", {"decoder": "classify", "activation": "softmax"}),
    ],
)
def test_every_family_is_known_by_its_outputs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], outputs: dict[str, Any], task: str, wanted: dict[str, Any]
) -> None:
    reported, target = imported(saved(tmp_path / "m.onnx", outputs), capsys)
    found = reported["output"]
    assert reported["task"] == task and {key: found[key] for key in wanted} == wanted
    assert "guess" in target.read_text()
    assert Inputs(load_recipe(target)).task.output.__struct_config__.tag == wanted["decoder"]  # the recipe holds


NAMES = "{0: 'cat', 1: 'dog', 2: \"man's hat\"}"


@pytest.mark.parametrize(
    ("task", "width", "more", "wanted"),
    [
        ("detect", 7, {}, {"layout": "columns"}),
        ("segment", 7 + 32, {"output1": (1, 32, 16, 16)}, {"prototypes": "output1", "mask_channels": 32}),
        ("pose", 7 + 51, {}, {"keypoints": 17}),
        ("obb", 8, {}, {"oriented": True}),
    ],
)
def test_what_ultralytics_writes_down_is_taken(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    task: str,
    width: int,
    more: dict[str, Any],
    wanted: dict[str, Any],
) -> None:
    props = {"task": task, "names": NAMES, "imgsz": "[96, 64]", "stride": "32", "author": "Ultralytics"}
    path = saved(tmp_path / "Yolo N.onnx", {"output0": ((1, width, 200), 0, 60), **more}, props, side="open")
    reported, target = imported(path, capsys)
    assert {key: reported["output"][key] for key in wanted} == wanted
    recipe = load_recipe(target).recipe
    assert recipe.labels == ["cat", "dog", "man's hat"] and recipe.name == "yolo-n"
    assert (recipe.input.width, recipe.input.height, recipe.input.std[0]) == (64, 96, 255)


def test_labels_are_read_and_never_run() -> None:
    assert labels_of({"names": "['a', 'b']"}) == ["a", "b"]
    assert labels_of({"names": "__import__('os').system('true')"}) == [] == labels_of({}) == labels_of({"names": "["})


def test_pictures_are_taken_into_the_recipe_and_a_recipe_is_not_replaced_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path / "m.onnx", {"logits": (1, 4)})
    _, target = imported(path, capsys, "--frames", "scene://5?count=9", "--validation", str(tmp_path / "val"))
    recipe = load_recipe(target).recipe
    assert (recipe.calibration.frames, recipe.validation.frames) == ("scene://5?count=9", "val")
    assert main(["import", str(path), "--to", str(target)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_outputs_that_no_decoder_reads_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path / "m.onnx", {"a": (1, 2, 3, 4, 5), "b": (1, 9, 9, 9, 9)})
    assert main(["import", str(path)]) == 2
    reported = capsys.readouterr().err
    assert "no decoder reads its outputs a [2, 3, 4, 5], b [9, 9, 9, 9]" in reported and "hint:" in reported
