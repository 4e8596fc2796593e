"""Key points of objects, from input pixels to the source frame. Pure arithmetic, any thread."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edged.vision.letterbox import Letterbox
from edged.vision.results import Detections, Floats


def with_keypoints(found: Detections, points: Floats, confidence: Floats | None, letterbox: Letterbox) -> Detections:
    """The detections with their key points: `points` (N, K, 2) in input pixels, `confidence` (N, K) 0..1, None where
    the model does not give it."""
    keypoints = np.ones((*points.shape[:2], 3), np.float32)
    keypoints[..., :2] = letterbox.unmap_points(points)
    if confidence is not None:
        keypoints[..., 2] = confidence.clip(0, 1)
    return replace(found, keypoints=keypoints)
