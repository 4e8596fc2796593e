"""Every file for TensorRT is parsed and built by a real TensorRT core, and computes in INT8 what was placed in INT8.

The core is TensorRT for RTX: it builds for compute capability 8.6 on any x86-64 machine, in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edged
from edged.engines.manifest import Layers
from edged_calibration import zoo
from edged_calibration.fp16 import halve
from edged_calibration.graph.index import WEIGHTED, Graph
from edged_calibration.int8.calibrate import Range, ranges
from edged_calibration.int8.verify import verify_qdq
from edged_calibration.int8.write import calibrate, quantize
from edged_calibration.recipe.input_normalisation import Normalisation, on_pictures
from edged_calibration.tensorrt.inspect import read_layers
from tests.support import tensorrt_rtx
from tests.support.tensorrt_bindings import NotHadError

ROOT: Final = Path(__file__).parents[2]
DEMO: Final = Path(edged.__file__).parent / "bundles" / "demo"
SIDE: Final = 64
NORMALISATION: Final = Normalisation((120.0,) * 3, (60.0,) * 3)
PLACED: Final = {"mobilenet-v2": 53, "resnet-50": 54, "yolo-nano": 63, "vit-tiny": 50}
"""Layers in INT8. Of YOLO's, the mean over the bins in its box head stays float; of the ViT's, attention itself."""

Built = dict[str, Any]


@pytest.fixture(scope="module")
def core() -> Path:
    try:
        return tensorrt_rtx.install()
    except NotHadError as error:
        pytest.skip(str(error))


def build(core: Path, jobs: dict[Path, tuple[int, int]]) -> dict[Path, Built]:
    """What became of each file, of pictures (width, height)."""
    asked = json.dumps({str(path): side for path, side in jobs.items()})
    command = [sys.executable, "-m", "tests.support.tensorrt_rtx", str(core), asked]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-3000:]
    return {Path(name): found for name, found in json.loads(done.stdout.splitlines()[-1]).items()}


def placed(model: onnx.ModelProto) -> set[str]:
    """The layers whose two inputs go through Q/DQ."""
    graph = Graph(model)
    made = {name for node in graph.nodes if node.op_type == "DequantizeLinear" for name in node.output}
    return {node.name for node in graph.nodes if node.op_type in WEIGHTED and {*node.input[:2]} <= made}


def in_int8(model: onnx.ModelProto, built: Built) -> set[str]:
    """The layers that the engine computes in INT8."""
    assert built["refused"] is None
    weighted = {node.name for node in model.graph.node if node.op_type in WEIGHTED}
    kernels = [layer for layer in built["layers"] if layer["Kernel types"] == ["Int8", "Int8"]]
    return {name for kernel in kernels for name in kernel["Nodes"] if name in weighted}


def quantised(name: str) -> onnx.ModelProto:
    """A generated model as its recipe's file for TensorRT, small."""
    model = zoo.build(name, SIDE)
    pixels = np.random.default_rng(0).standard_normal((2, 3, SIDE, SIDE)).astype(np.float32)
    entry = model.graph.input[0].name
    table = ranges(calibrate(model, [{entry: pixels}])) | {entry: NORMALISATION.range}
    return on_pictures(halve(quantize(model, table, "trt")), NORMALISATION, "cast")


def save(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path


def test_the_demo_s_files_build_and_all_int8_layers_are_int8(core: Path, tmp_path: Path) -> None:
    jobs = {}
    for name in ("fp16.onnx", "int8-sparse.tensorrt.onnx"):
        jobs[save(onnx.load(DEMO / name), tmp_path / name)] = (320, 192)
    for path, built in build(core, jobs).items():
        model = onnx.load(path)
        assert in_int8(model, built) == placed(model)
        assert len(placed(model)) == (30 if path.name.startswith("int8") else 0)
        # What the inspector would report of such a plan is in the log, by the same names.
        layers = read_layers(json.dumps({"Layers": built["layers"]}))
        assert layers == Layers(30, len(placed(model)), None, None)


@pytest.mark.parametrize("name", zoo.NAMES)
def test_generated_models_build_and_all_int8_layers_are_int8(core: Path, tmp_path: Path, name: str) -> None:
    model = quantised(name)
    assert verify_qdq(model) == []
    path = save(model, tmp_path / f"{name}.onnx")
    built = build(core, {path: (SIDE, SIDE)})[path]
    assert in_int8(model, built) == placed(model)
    assert len(placed(model)) == PLACED[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.NAMES)
def test_generated_models_build_in_fp16(core: Path, tmp_path: Path, name: str) -> None:
    path = save(on_pictures(halve(zoo.build(name, SIDE)), NORMALISATION, "cast"), tmp_path / f"{name}.onnx")
    built = build(core, {path: (SIDE, SIDE)})[path]
    assert built["refused"] is None and not in_int8(onnx.load(path), built)


# ---- what the core refuses, the verifier finds ---------------------------------------------------------------------


def small() -> onnx.ModelProto:
    """Two convolutions and a residual addition, in FP32 around INT8, on pictures."""
    rng = np.random.default_rng(1)
    weights = {name: rng.standard_normal((16, 3 if name == "w0" else 16, 3, 3)) for name in ("w0", "w1", "w2")}
    nodes = [
        helper.make_node("Conv", ["pixels", "w0"], ["a"], name="c0", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"], name="r0"),
        helper.make_node("Conv", ["b", "w1", "bias"], ["c"], name="c1", pads=[1] * 4),
        helper.make_node("Add", ["c", "b"], ["d"], name="add"),
        helper.make_node("Relu", ["d"], ["e"], name="r1"),
        helper.make_node("Conv", ["e", "w2"], ["out"], name="c2", pads=[1] * 4),
    ]
    entry, end = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", channels, 16, 16])
        for name, channels in (("pixels", 3), ("out", 16))
    )
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    constants.append(numpy_helper.from_array(np.ones(16, np.float32), "bias"))
    graph = helper.make_graph(nodes, "small", [entry], [end], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    table = {name: Range(-4.0, 4.0) for name in ("pixels", "a", "b", "c", "d", "e", "out")}
    return on_pictures(quantize(model, table, "trt"), NORMALISATION, "cast")


def put(model: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    """Set, or add, a constant."""
    tensors = [tensor for tensor in model.graph.initializer if tensor.name == name]
    (tensors[0] if tensors else model.graph.initializer.add()).CopyFrom(numpy_helper.from_array(value, name))


def zero_point(model: onnx.ModelProto) -> None:
    put(model, "b_zero", np.array(3, np.int8))


def zero_scale(model: onnx.ModelProto) -> None:
    put(model, "b_scale", np.array(0, np.float32))


def int32_bias(model: onnx.ModelProto) -> None:
    put(model, "bias_q", np.ones(16, np.int32))
    put(model, "bias_scale", np.full(16, 0.1, np.float32))
    put(model, "bias_zero", np.zeros(16, np.int32))
    names = ["bias_q", "bias_scale", "bias_zero"]
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", names, ["bias_dq"], name="bias_DQ", axis=0))
    next(node for node in model.graph.node if node.name == "c1").input[2] = "bias_dq"


@pytest.mark.parametrize(
    ("spoil", "rule"), [(zero_point, "symmetric"), (zero_scale, "valid scale"), (int32_bias, "float bias")]
)
def test_what_the_core_refuses_the_verifier_finds(
    core: Path, tmp_path: Path, spoil: Callable[[onnx.ModelProto], None], rule: str
) -> None:
    good, bad = small(), small()
    spoil(bad)
    paths = save(good, tmp_path / "good.onnx"), save(bad, tmp_path / "bad.onnx")
    built = build(core, dict.fromkeys(paths, (16, 16)))
    assert built[paths[0]]["refused"] is None and verify_qdq(good) == []
    assert "TensorRT cannot" in built[paths[1]]["refused"]
    assert rule in {problem.rule for problem in verify_qdq(bad)}


def test_the_processors_files_are_refused_by_both(core: Path, tmp_path: Path) -> None:
    path = save(onnx.load(DEMO / "int8-sparse.x86_64.onnx"), tmp_path / "x86.onnx")
    built = build(core, {path: (320, 192)})[path]
    assert "TensorRT cannot" in built["refused"] and verify_qdq(onnx.load(path))


def test_warnings_that_repeat_are_counted_and_do_not_push_out_an_error(core: Path, tmp_path: Path) -> None:
    path = save(onnx.load(DEMO / "int8-sparse.tensorrt.onnx"), tmp_path / "int8.onnx")
    report = build(core, {path: (320, 192)})[path]["report"]
    assert report.count("Converting conv weight scales to fp32") == 1 and "(30 times)" in report
