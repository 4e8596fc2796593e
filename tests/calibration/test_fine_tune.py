"""Fine-tuning: the torch module computes what the graph does, and what is learned keeps every zero. Needs PyTorch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edged.errors import UsageError
from edged_calibration import zoo
from edged_calibration.graph.index import Graph, copy_of, session
from edged_calibration.options import SparsifyOptions
from edged_calibration.sparsity.apply import prune, sparse_layers, sparsify
from edged_calibration.zoo.writer import IMAGENET, INPUT, UNIT, probe

torch = pytest.importorskip("torch")

from edged_calibration.sparsity.fine_tune import finetune  # noqa: E402
from edged_calibration.sparsity.torch_module import OnnxModule  # noqa: E402


@pytest.mark.parametrize(("name", "size"), [("mobilenet-v2", 32), ("yolo-nano", 64), ("vit-tiny", 32)])
def test_the_module_computes_what_the_graph_does(name: str, size: int) -> None:
    model = zoo.build(name, size)
    pictures = probe(size, UNIT if name == "yolo-nano" else IMAGENET)[:2]
    wanted = session(model).run(None, {INPUT: pictures})[0]
    with torch.no_grad():
        (found,) = OnnxModule(model)({INPUT: torch.from_numpy(pictures)}).values()
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())


def test_the_small_network_too(network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> None:
    with torch.no_grad():
        found = OnnxModule(network)({"pixels": torch.from_numpy(feeds[0]["pixels"])})["out"]
    np.testing.assert_allclose(found.numpy(), session(network).run(None, feeds[0])[0], atol=1e-4)


def test_shape_arithmetic_of_exporters_is_known() -> None:
    """A grid from a float Range, tiled over the batch, as detectors make their anchors."""
    constants: dict[str, np.ndarray] = {
        "zero": np.array(0, np.int64), "one": np.array(1, np.int64), "front": np.array([0, 1], np.int64),
        "start": np.array(0, np.float32), "step": np.array(1, np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["wide"]),
        helper.make_node("Cast", ["wide"], ["wide_f"], to=TensorProto.FLOAT),
        helper.make_node("Range", ["start", "wide_f", "step"], ["grid"]),
        helper.make_node("Unsqueeze", ["grid", "front"], ["raised"]),
        helper.make_node("ConstantOfShape", ["shape"], ["ones"], value=numpy_helper.from_array(np.ones(1, np.float32))),
        helper.make_node("Add", ["x", "ones"], ["more"]),
        helper.make_node("Mul", ["more", "raised"], ["y"]),
    ]
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 5])
    end = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, "N", 5])
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "grid", [entry], [end], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = np.arange(15, dtype=np.float32).reshape(3, 5)
    with torch.no_grad():
        found = OnnxModule(model)({"x": torch.from_numpy(x)})["y"]
    np.testing.assert_array_equal(found.numpy(), session(model).run(None, {"x": x})[0])


def test_fine_tuning_helps_and_keeps_every_zero(network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> None:
    pruned = prune(network, feeds, ("first", "down"), rows=1024, method="magnitude")
    seen: list[tuple[int, int]] = []
    tuned, report = finetune(network, pruned, feeds, steps=60, rate=2e-3, progress=lambda *step: seen.append(step))
    assert report.after < 0.6 * report.before and seen[-1] == (60, 60)
    assert {n for n, s in sparse_layers(tuned).items() if s} == {"first.weight", "down.weight"}
    for name in ("first.weight", "down.weight"):
        before, after = Graph(pruned).array(name), Graph(tuned).array(name)
        assert not after[before == 0].any() and np.abs(after - before).max() > 0
    onnx.checker.check_model(tuned, full_check=True)


def test_sparsify_does_it_when_asked(network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> None:
    options = SparsifyOptions(layers="all", method="magnitude", rows=512, fine_tune_steps=20)
    tuned, report = sparsify(network, feeds, options)
    assert report.tuned is not None and report.tuned[1] <= report.tuned[0]
    assert all(sparse_layers(tuned).values())


def test_what_does_not_get_better_is_left_alone(network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> None:
    pruned = prune(network, feeds, ("down",), rows=1024)
    tuned, report = finetune(network, pruned, feeds, steps=3, rate=10.0)
    assert report.after == report.before
    assert tuned.SerializeToString() == copy_of(pruned).SerializeToString()


def test_unknown_operators_and_too_few_frames_are_reported(
    network: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]
) -> None:
    model = copy_of(network)
    model.graph.node[1].op_type = "Softplus"
    with pytest.raises(UsageError, match="operator Softplus"):
        OnnxModule(model)
    with pytest.raises(UsageError, match="2 batches"):
        finetune(network, network, feeds[:1])
