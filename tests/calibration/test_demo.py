"""The demo model: its data and targets, its graphs on raw pictures, and the shipped bundle against its manifest."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

import edged
from edged.engines.bundle import Bundle, load_bundle, verify_file
from edged.engines.decoder_spec import CenterDecoder
from edged.engines.manifest import EngineFile, InputSpec
from edged.frames.frame import PixelFormat
from edged.synthetic.scene import LABELS, Scene
from edged.vision.letterbox import Letterboxer, fit
from edged.vision.results import Detections
from edged_calibration.demo.data import (
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
from edged_calibration.evaluate.average_precision import Boxes, matches, precision
from edged_calibration.evaluate.metrics import Task, evaluate, on_images
from edged_calibration.graph.index import Graph, session
from edged_calibration.int8.verify import verify_qdq
from edged_calibration.int8.write import Target
from edged_calibration.recipe.frame_check import drift_statistics
from edged_calibration.recipe.frames import open_frames
from edged_calibration.sparsity.apply import is_2_4

INPUT = InputSpec(name="image", width=WIDTH, height=HEIGHT)
TASK = Task(INPUT, CenterDecoder(scores="cls", boxes="box", stride=8), tuple(LABELS))
SHIPPED = Path(edged.__file__).parent / "bundles" / "demo"
RUNTIMES = ["fp16.onnx", "int8-sparse.x86_64.onnx", "int8-sparse.aarch64.onnx", "int8-sparse.tensorrt.onnx"]


# ---- data


def test_a_target_has_its_peak_at_the_centre_and_the_box_around_it() -> None:
    heat, distances, positive = targets(np.array([[80, 40, 120, 64]], np.float32), np.array([3]))
    assert heat.shape == (8, GRID_HEIGHT, GRID_WIDTH) and distances.shape == (4, GRID_HEIGHT, GRID_WIDTH)
    assert np.argwhere(heat == 1).tolist() == [[3, 6, 12]]  # (100, 52) / 8
    assert not heat[[0, 1, 2, 4, 5, 6, 7]].any()
    assert distances[:, 6, 12].tolist() == [2.5, 1.5, 2.5, 1.5]
    assert positive[6, 12] and 1 < positive.sum() <= 9
    assert (distances[:, positive] > 0).all() and not distances[:, ~positive].any()


def test_no_object_no_target() -> None:
    heat, distances, positive = targets(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    assert not heat.any() and not distances.any() and not positive.any()


def test_decoding_the_targets_gives_the_boxes_back() -> None:
    labelled, decode, letterbox = held_out(30), TASK.decoder(measuring=True), fit(WIDTH, HEIGHT, WIDTH, HEIGHT)
    truth = [Boxes(item.boxes, item.classes, np.ones(len(item.classes))) for item in labelled]
    found = []
    for item in labelled:
        heat, distances, _ = targets(item.boxes, item.classes)
        logits = np.where(heat == 1, 9, -9).astype(np.float32)
        seen = decode({"cls": logits[None], "box": distances[None]}, 0, letterbox)
        assert isinstance(seen, Detections)
        found.append(Boxes(seen.boxes, seen.class_ids, seen.scores))
    assert precision(matches(truth, found, len(LABELS)))[5] > 0.99


def test_data_is_deterministic_and_the_sets_differ() -> None:
    first, again = (next(batches(1, 4)) for _ in range(2))
    assert np.array_equal(first.images, again.images) and np.array_equal(first.heat, again.heat)
    assert first.images.shape == (4, HEIGHT, WIDTH, 3) and first.positive.any()
    assert not np.array_equal(first.images, calibration_images(4))
    assert not np.array_equal(held_out(1)[0].image, held_out(1, seed=CALIBRATION_SEED)[0].image)
    assert all(isinstance(item, Labelled) for item in islice(held_out(2), 2))


# ---- the shipped bundle


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(SHIPPED)


def entry(bundle: Bundle, path: str) -> EngineFile:
    return next(file for variant in bundle.manifest.variants for file in variant.files if file.path == path)


@pytest.mark.parametrize("path", RUNTIMES)
def test_a_shipped_file_is_as_accurate_as_its_manifest_says(bundle: Bundle, path: str) -> None:
    file = entry(bundle, path)
    frames = open_frames("scene://900001?count=100&textures=2", Path(), INPUT, 100, "scene", LABELS)
    found = evaluate(on_images(onnx.load_model_from_string(verify_file(bundle, file)), TASK), frames, TASK)
    assert file.images >= 1000
    assert found.figures["map50"] == pytest.approx(file.accuracy["map50"], abs=0.02)


@pytest.mark.parametrize("path", RUNTIMES)
def test_a_shipped_file_takes_pictures_and_any_batch(bundle: Bundle, path: str) -> None:
    model = onnx.load_model_from_string(verify_file(bundle, entry(bundle, path)))
    wanted = 19 if path.endswith("tensorrt.onnx") else 17  # FP16 around INT8 has FP16 scales
    assert {opset.version for opset in model.opset_import} == {wanted}
    (image,) = model.graph.input
    assert image.name == "image" and image.type.tensor_type.elem_type == TensorProto.UINT8
    outputs = session(model).run(["cls", "box"], {"image": np.zeros((3, HEIGHT, WIDTH, 3), np.uint8)})
    assert [(o.shape, o.dtype) for o in outputs] == [((3, 8, 24, 40), np.float32), ((3, 4, 24, 40), np.float32)]


def test_the_shipped_bundle_is_small_whole_and_says_where_it_comes_from(bundle: Bundle) -> None:
    manifest = bundle.manifest
    named = {file.path for variant in manifest.variants for file in variant.files}
    assert {path.name for path in SHIPPED.iterdir()} == {*named, "manifest.json"}
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 3_000_000
    assert manifest.labels == list(LABELS) and manifest.reference == "fp16"
    assert {"recipe", "tools", "calibration_sha256", "gate int8-sparse.x86_64.onnx"} <= set(manifest.provenance)
    found = drift_statistics(calibration_images(128))
    assert manifest.drift is not None
    assert found.brightness_mean == pytest.approx(manifest.drift.brightness_mean, abs=0.5)


@pytest.mark.parametrize("path", RUNTIMES[1:])
def test_shipped_sparse_weights_are_sparse(bundle: Bundle, path: str) -> None:
    graph = Graph(onnx.load_model_from_string(verify_file(bundle, entry(bundle, path))))
    weights = [graph.array(name) for name in graph.constants if name.endswith("/weight_q")]
    assert len(weights) == (30 if path.endswith("tensorrt.onnx") else 28)  # processors give the answers in float
    spatial = [w for w in weights if w.shape[2:] == (3, 3)]
    assert len(spatial) == 11 and all(is_2_4(w, 1) for w in spatial)
    assert sum(w.size for w in spatial) > 0.7 * sum(w.size for w in weights)


def test_shipped_files_keep_the_rules_of_their_targets(bundle: Bundle) -> None:
    """That for x86 saturates on no processor. Pictures come as bytes, which processors dequantise themselves."""
    targets: dict[str, Target] = {"x86_64": "x86", "aarch64": "arm", "tensorrt": "trt"}
    for name, target in targets.items():
        content = verify_file(bundle, entry(bundle, f"int8-sparse.{name}.onnx"))
        problems = verify_qdq(onnx.load_model_from_string(content), target)
        assert {problem.node for problem in problems} <= {"pixels_Dequantize", "image_Dequantize"}


def test_the_file_for_tensorrt_computes_nothing_in_float(bundle: Bundle) -> None:
    """Built strongly typed, each tensor keeps its type; only what comes in and goes out is converted."""
    content = verify_file(bundle, entry(bundle, "int8-sparse.tensorrt.onnx"))
    graph = Graph(onnx.load_model_from_string(content))
    assert verify_qdq(onnx.load_model_from_string(content)) == []
    kinds = {graph.constants[name].data_type for name in graph.constants if name.endswith(("_scale_half", "bias_half"))}
    assert kinds == {TensorProto.FLOAT16}
    left = [name for name in graph.constants if name.endswith(("_scale", "bias"))]
    assert left == ["center_scale"]  # of the bytes that come in


def test_the_sparse_variant_costs_accuracy(bundle: Bundle) -> None:
    dense, sparse = (bundle.variant(name).files[0].accuracy["map50_95"] for name in ("fp16", "int8-sparse"))
    assert 0.7 < sparse < dense


def test_the_shipped_model_sees_the_rendered_belt(bundle: Bundle) -> None:
    shipped = onnxruntime.InferenceSession(
        verify_file(bundle, entry(bundle, "fp16.onnx")), providers=["CPUExecutionProvider"]
    )
    decode, buffer = TASK.decoder(measuring=True), np.empty((1, HEIGHT, WIDTH, 3), np.uint8)
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
            assert isinstance(seen, Detections)
            found.append(Boxes(seen.boxes, seen.class_ids, seen.scores))
    assert precision(matches(truth, found, len(LABELS)))[0] > 0.93


# ---- training, where torch is installed


def test_training_is_deterministic() -> None:
    torch = pytest.importorskip("torch")
    from edged_calibration.demo.model import Detector
    from edged_calibration.demo.train import train

    def weights() -> dict[str, Any]:
        torch.manual_seed(0)
        detector: Any = Detector()  # where torch is installed, mypy does not know that its layers can be indexed
        mask = torch.zeros_like(detector.cls[0][0].weight)
        torch.manual_seed(0)
        return train(Detector(), 3, 1e-3, seed=1, masks={"cls.0.0.weight": mask}).state_dict()

    first, again = weights(), weights()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not first["cls.0.0.weight"].any()
    assert first["box.0.0.weight"].any()
