"""The demo model's ONNX files, run and scored: pictures in, accuracy out, with the decoder that the daemon uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import onnxruntime

from calibration.demo.data import CLASSES, HEIGHT, STRIDE, WIDTH, Labelled
from calibration.evaluate import Accuracy, Boxes, mean_average_precision
from edged.engines.manifest import CenterDecoder, InputSpec
from edged.vision.detect import CenterPeaks
from edged.vision.letterbox import fit

INPUT = InputSpec(name="image", width=WIDTH, height=HEIGHT)
DECODER = CenterDecoder(scores="cls", boxes="box", stride=STRIDE)

_BATCH = 4


def measuring_decoder() -> CenterPeaks:
    """The bundle's decoder, but with a low threshold and many detections: average precision wants the tail too."""
    spec = msgspec.structs.replace(DECODER, score_threshold=0.05, max_detections=100)
    return CenterPeaks(spec, INPUT, CLASSES)


def measure(
    session: onnxruntime.InferenceSession,
    labelled: Sequence[Labelled],
    progress: Callable[[int], None] = lambda done: None,
) -> Accuracy:
    """Accuracy of a session on `image` over labelled pictures of the input's size."""
    decode, letterbox = measuring_decoder(), fit(WIDTH, HEIGHT, WIDTH, HEIGHT)
    truth = [Boxes(item.boxes, item.classes, np.ones(len(item.classes))) for item in labelled]
    found: list[Boxes] = []
    for start in range(0, len(labelled), _BATCH):
        images = np.stack([item.image for item in labelled[start : start + _BATCH]])
        names = [DECODER.scores, DECODER.boxes]
        outputs = dict(zip(names, session.run(names, {INPUT.name: images}), strict=True))
        for index in range(len(images)):
            seen = decode(outputs, index, letterbox)
            found.append(Boxes(seen.boxes, seen.class_ids, seen.scores))
        progress(len(found))
    return mean_average_precision(truth, found, CLASSES)
