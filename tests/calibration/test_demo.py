"""The demo model: its data and targets, its graphs on raw pictures, and the shipped bundle against its manifest."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import edged
from calibration.calibrators import ranges
from calibration.demo.data import (
    CALIBRATION_SEED,
    GRID_HEIGHT,
    GRID_WIDTH,
    HEIGHT,
    WIDTH,
    Labelled,
    batches,
    calibration_images,
    held_out,
    targets,
)
from calibration.demo.detect import INPUT, measure, measuring_decoder
from calibration.demo.export import PIXEL_RANGE, PIXELS, on_pictures
from calibration.evaluate import Boxes, mean_average_precision
from calibration.graph import Graph, session
from calibration.package import drift_statistics
from calibration.quantize import calibrate, quantize
from calibration.sparsify import is_2_4
from edged.engines.bundle import Bundle, load_bundle, verify_file
from edged.engines.manifest import EngineFile
from edged.frames.frame import PixelFormat
from edged.frames.scene import LABELS, Scene
from edged.vision.letterbox import Letterboxer, fit

SHIPPED = Path(edged.__file__).parent / "bundles" / "demo"
RUNTIMES = ["fp16.onnx", "int8-sparse.x86_64.onnx", "int8-sparse.aarch64.onnx", "int8-sparse.tensorrt.onnx"]


# ---- data


def test_a_target_has_its_peak_at_the_centre_and_the_box_around_it():
    heat, distances, positive = targets(np.array([[80, 40, 120, 64]], np.float32), np.array([3]))
    assert heat.shape == (8, GRID_HEIGHT, GRID_WIDTH) and distances.shape == (4, GRID_HEIGHT, GRID_WIDTH)
    assert np.argwhere(heat == 1).tolist() == [[3, 6, 12]]  # (100, 52) / 8
    assert not heat[[0, 1, 2, 4, 5, 6, 7]].any()
    assert distances[:, 6, 12].tolist() == [2.5, 1.5, 2.5, 1.5]
    assert positive[6, 12] and 1 < positive.sum() <= 9
    assert (distances[:, positive] > 0).all() and not distances[:, ~positive].any()


def test_no_object_no_target():
    heat, distances, positive = targets(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    assert not heat.any() and not distances.any() and not positive.any()


def test_decoding_the_targets_gives_the_boxes_back():
    labelled, decode, letterbox = held_out(30), measuring_decoder(), fit(WIDTH, HEIGHT, WIDTH, HEIGHT)
    truth = [Boxes(item.boxes, item.classes, np.ones(len(item.classes))) for item in labelled]
    found = []
    for item in labelled:
        heat, distances, _ = targets(item.boxes, item.classes)
        logits = np.where(heat == 1, 9, -9).astype(np.float32)
        seen = decode({"cls": logits[None], "box": distances[None]}, 0, letterbox)
        found.append(Boxes(seen.boxes, seen.class_ids, seen.scores))
    assert mean_average_precision(truth, found, len(LABELS)).map75 > 0.99


def test_data_is_deterministic_and_the_sets_differ():
    first, again = (next(batches(1, 4)) for _ in range(2))
    assert np.array_equal(first.images, again.images) and np.array_equal(first.heat, again.heat)
    assert first.images.shape == (4, HEIGHT, WIDTH, 3) and first.positive.any()
    assert not np.array_equal(first.images, calibration_images(4))
    assert not np.array_equal(held_out(1)[0].image, held_out(1, seed=CALIBRATION_SEED)[0].image)
    assert all(isinstance(item, Labelled) for item in islice(held_out(2), 2))


# ---- graphs on raw pictures


@pytest.fixture(scope="module")
def patches() -> onnx.ModelProto:
    """One convolution over 8x8 patches: `pixels` [N, 3, 192, 320] -> `cls` [N, 16, 24, 40]."""
    weights = np.random.default_rng(0).standard_normal((16, 3, 8, 8)).astype(np.float32) / 14
    graph = helper.make_graph(
        [helper.make_node("Conv", [PIXELS, "weight"], ["cls"], name="conv", strides=[8, 8])],
        "patches",
        [helper.make_tensor_value_info(PIXELS, TensorProto.FLOAT, ["N", 3, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("cls", TensorProto.FLOAT, ["N", 16, GRID_HEIGHT, GRID_WIDTH])],
        [numpy_helper.from_array(weights, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("form", ["cast", "dequantize"])
def test_normalisation_is_inside_the_graph(patches: onnx.ModelProto, form):
    images = calibration_images(2)
    pixels = ((images.astype(np.float32) - 128) / 128).transpose(0, 3, 1, 2)
    wanted = session(patches).run(None, {PIXELS: pixels})[0]
    found = session(on_pictures(patches, form)).run(None, {"image": images})[0]
    assert np.allclose(found, wanted, atol=1e-5)


def test_bytes_go_straight_into_the_first_quantised_layer(patches: onnx.ModelProto):
    images = calibration_images(2)
    pixels = ((images.astype(np.float32) - 128) / 128).transpose(0, 3, 1, 2)
    measured = ranges(calibrate(patches, [{PIXELS: pixels}])) | {PIXELS: PIXEL_RANGE}
    graphs = {
        target: Graph(on_pictures(quantize(patches, measured, target), "dequantize")) for target in ("x86", "arm")
    }
    assert [node.op_type for node in graphs["x86"].nodes].count("QuantizeLinear") == 1  # that of the output
    assert [node.op_type for node in graphs["arm"].nodes].count("QuantizeLinear") == 2  # from uint8 to int8


# ---- the shipped bundle


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(SHIPPED)


@pytest.fixture(scope="module")
def hundred() -> list[Labelled]:
    return held_out(100)


def entry(bundle: Bundle, path: str) -> EngineFile:
    return next(file for variant in bundle.manifest.variants for file in variant.files if file.path == path)


@pytest.mark.parametrize("path", RUNTIMES)
def test_a_shipped_file_is_as_accurate_as_its_manifest_says(bundle: Bundle, hundred: list[Labelled], path: str):
    file = entry(bundle, path)
    accuracy = measure(session(onnx.load_model_from_string(verify_file(bundle, file))), hundred)
    assert file.images >= 1000
    assert accuracy.map50 == pytest.approx(file.accuracy["map50"], abs=0.02)


@pytest.mark.parametrize("path", RUNTIMES)
def test_a_shipped_file_takes_pictures_and_any_batch(bundle: Bundle, path: str):
    model = onnx.load_model_from_string(verify_file(bundle, entry(bundle, path)))
    assert {opset.version for opset in model.opset_import} == {17}
    (image,) = model.graph.input
    assert image.name == "image" and image.type.tensor_type.elem_type == TensorProto.UINT8
    outputs = session(model).run(["cls", "box"], {"image": np.zeros((3, HEIGHT, WIDTH, 3), np.uint8)})
    assert [(o.shape, o.dtype) for o in outputs] == [((3, 8, 24, 40), np.float32), ((3, 4, 24, 40), np.float32)]


def test_the_shipped_bundle_is_small_whole_and_says_where_it_comes_from(bundle: Bundle):
    manifest = bundle.manifest
    named = {file.path for variant in manifest.variants for file in variant.files}
    assert {path.name for path in SHIPPED.iterdir()} == {*named, "manifest.json"}
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 3_000_000
    assert manifest.labels == list(LABELS) and manifest.reference == "fp16"
    assert {"recipe", "seeds", "tools", "calibration_sha256"} <= set(manifest.provenance)
    assert "/" not in "".join(manifest.provenance.values())
    found = drift_statistics(calibration_images(int(manifest.provenance["calibration_images"])))
    assert manifest.drift is not None
    assert found.brightness_mean == pytest.approx(manifest.drift.brightness_mean, abs=0.5)


@pytest.mark.parametrize("path", RUNTIMES[1:])
def test_shipped_sparse_weights_are_sparse(bundle: Bundle, path: str):
    graph = Graph(onnx.load_model_from_string(verify_file(bundle, entry(bundle, path))))
    weights = [graph.array(name) for name in graph.constants if name.endswith("/weight_q")]
    assert len(weights) == 30
    spatial = [w for w in weights if w.shape[2:] == (3, 3)]
    assert len(spatial) == 11 and all(is_2_4(w, 1) for w in spatial)


def test_the_sparse_variant_costs_accuracy(bundle: Bundle):
    dense, sparse = (bundle.variant(name).files[0].accuracy["map50_95"] for name in ("fp16", "int8-sparse"))
    assert 0.7 < sparse < dense


def test_the_shipped_model_sees_the_rendered_belt(bundle: Bundle):
    shipped = onnxruntime.InferenceSession(
        verify_file(bundle, entry(bundle, "fp16.onnx")), providers=["CPUExecutionProvider"]
    )
    decode, buffer = measuring_decoder(), np.empty((1, HEIGHT, WIDTH, 3), np.uint8)
    letterboxer = Letterboxer(INPUT, [buffer])
    letterbox = letterboxer.geometry(1280, 720)
    truth, found = [], []
    for seed in range(4):
        scene, picture = Scene(seed), np.empty((720, 1280, 3), np.uint8)
        for index in range(0, 3000, 211):
            scene.render(index, picture)
            objects = scene.truth(index)
            corners, classes = [item.box for item in objects], [item.class_id for item in objects]
            truth.append(Boxes(np.array(corners).reshape(-1, 4), np.array(classes, int), np.ones(len(objects))))
            letterboxer.fill(letterbox, picture, PixelFormat.BGR24, 0, 0)
            outputs = dict(zip(("cls", "box"), shipped.run(["cls", "box"], {"image": buffer}), strict=True))
            seen = decode(outputs, 0, letterbox)
            found.append(Boxes(seen.boxes, seen.class_ids, seen.scores))
    assert mean_average_precision(truth, found, len(LABELS)).map50 > 0.93


# ---- training, where torch is installed


def test_training_is_deterministic():
    torch = pytest.importorskip("torch")
    from calibration.demo.model import Detector
    from calibration.demo.train import train

    def weights() -> dict:
        torch.manual_seed(0)
        mask = torch.zeros_like(Detector().cls[0][0].weight)
        torch.manual_seed(0)
        return train(Detector(), 3, 1e-3, seed=1, masks={"cls.0.0.weight": mask}).state_dict()

    first, again = weights(), weights()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not first["cls.0.0.weight"].any()
    assert first["box.0.0.weight"].any()
