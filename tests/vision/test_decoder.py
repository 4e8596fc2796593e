from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edged.config import EngineConfig
from edged.engines.bundle import load_bundle
from edged.engines.pool import Pool
from edged.frames.frame import PixelFormat
from edged.vision.decoder import make_decoder
from edged.vision.decoders.center import CenterPeaks
from edged.vision.decoders.whole import BestClasses
from edged.vision.decoders.yolo import YoloBoxes
from edged.vision.letterbox import Letterboxer
from edged.vision.results import Classes, Detections, Predictions
from tests.support.models import HEIGHT, WIDTH, center_model, classify_model, file_entry, manifest_for, write_bundle


@pytest.mark.parametrize(
    ("task", "output", "kind"),
    [
        ("detect", {"decoder": "center", "scores": "s", "boxes": "b", "stride": 8}, CenterPeaks),
        ("detect", {"decoder": "yolo", "predictions": "p"}, YoloBoxes),
        ("classify", {"decoder": "classify", "logits": "l"}, BestClasses),
    ],
)
def test_the_manifest_chooses_the_decoder(tmp_path: Path, task: str, output: dict[str, Any], kind: type) -> None:
    models = {"only": b"x"}
    bundle = load_bundle(write_bundle(tmp_path, models, manifest_for(models, task=task, output=output)))
    assert type(make_decoder(bundle.manifest)) is kind


def run(directory: Path, pixels: Any) -> Predictions:
    """A picture through the whole room: letterbox, a real engine, decoder."""
    bundle = load_bundle(directory)
    with Pool.open(bundle, EngineConfig(device="cpu")) as pool:
        boxer = Letterboxer(bundle.manifest.input, [pool.input_buffer(0)])
        box = boxer.geometry(pixels.shape[1], pixels.shape[0])
        boxer.fill(box, pixels, PixelFormat.BGR24, 0, 0)
        pool.submit(0, 1)
        return make_decoder(bundle.manifest)(pool.collect(0), 0, box)


def test_a_bright_patch_is_found_where_it_is(tmp_path: Path) -> None:
    pixels = np.zeros((HEIGHT * 4, WIDTH * 4, 3), np.uint8)
    pixels[32:64, 96:128, 1] = 255  # a cell of 32 source pixels, green: class 1
    got = run(write_bundle(tmp_path, {"only": center_model(-200.0)}), pixels)
    assert isinstance(got, Detections)
    assert got.class_ids.tolist() == [1]
    np.testing.assert_allclose(got.boxes, [[80, 16, 144, 80]], atol=0.01)  # one cell to each side of its centre


def test_a_red_picture_is_classified_as_red(tmp_path: Path) -> None:
    models = {"only": classify_model()}
    manifest = manifest_for(models, task="classify", output={"decoder": "classify", "logits": "logits", "top": 2})
    manifest["variants"][0]["files"] = [file_entry("only.onnx", models["only"])]
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[..., 2] = 50
    got = run(write_bundle(tmp_path, models, manifest), pixels)
    assert isinstance(got, Classes)
    assert got.class_ids.tolist() == [2, 0] and got.scores[0] == pytest.approx(1.0)
