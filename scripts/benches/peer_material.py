"""What all systems of `peers` share: a clip with numbered pictures, and a detector shaped like YOLOv8n, for ONNX
Runtime and as a bundle. Generated into a directory.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from edged.synthetic.scene import Scene
from edged_calibration.recipe.input_normalisation import Normalisation, on_pictures, to_bgr
from edged_calibration.zoo import build
from tests.support.clips import coded

SIZE = 256
FPS = 15
FRAMES = 300
PASSING = 60
"""anchors of a picture over the threshold, so that some tens of boxes are left: what a street gives"""


@dataclass(frozen=True)
class Material:
    clip: Path
    model: Path
    bundle: Path
    threshold: float


def make(directory: Path, frames: int = FRAMES) -> Material:
    pictures = [
        _picture(scene, n) for scene in [Scene(seed=11, width=1280, height=720, fps=FPS)] for n in range(frames)
    ]
    clip = directory / "clip.units"
    clip.write_bytes(pickle.dumps(coded(pictures, FPS, FPS)))
    network = build("yolo-nano", SIZE)
    model = directory / "model.onnx"
    onnx.save(network, model)
    threshold = _threshold(model, pictures[:: max(1, frames // 8)])
    return Material(clip, model, _bundle(directory / "bundle", network, threshold), threshold)


def _picture(scene: Scene, number: int) -> NDArray[np.uint8]:
    picture = np.empty((720, 1280, 3), np.uint8)
    scene.render(number, picture)
    for bit in range(12):
        picture[:32, bit * 32 : (bit + 1) * 32] = 235 if number >> (11 - bit) & 1 else 16
    return picture


def _threshold(model: Path, pictures: list[NDArray[np.uint8]]) -> float:
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    batch = np.full((len(pictures), SIZE, SIZE, 3), 114, np.uint8)
    high = SIZE * 9 // 16
    for place, picture in zip(batch, pictures, strict=True):
        place[(SIZE - high) // 2 : (SIZE + high) // 2] = cv2.resize(picture, (SIZE, high))
    blob = batch[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) / 255
    best = np.sort(np.asarray(session.run(None, {session.get_inputs()[0].name: blob})[0])[:, 4:].max(1).ravel())
    return float(best[-PASSING * len(pictures)])


def _bundle(directory: Path, network: onnx.ModelProto, threshold: float) -> Path:
    """The same graph from the picture's bytes, as `edged-calibrate import` makes it."""
    directory.mkdir()
    network = on_pictures(to_bgr(network), Normalisation((0, 0, 0), (255, 255, 255)), "dequantize")
    content = network.SerializeToString()
    (directory / "n.onnx").write_bytes(content)
    file = {
        "runtime": "onnxruntime", "path": "n.onnx", "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content), "accuracy": {"map50_95": 0.5}, "images": 100, "arch": "any",
    }  # fmt: skip
    manifest = {
        "version": 1, "name": "peers", "task": "detect", "labels": [f"class{n}" for n in range(80)],
        "input": {
            "name": "image", "width": SIZE, "height": SIZE, "pad": 114, "dtype": "uint8", "layout": "NHWC",
            "color": "BGR",
        },
        "output": {
            "decoder": "yolo", "predictions": network.graph.output[0].name, "score_threshold": threshold,
            "iou_threshold": 0.7, "max_detections": 100,
        },
        "metric": "map50_95", "reference": "n", "max_batch": 8,
        "variants": [{"name": "n", "precision": "fp32", "sparse": False, "files": [file]}],
    }  # fmt: skip
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory
