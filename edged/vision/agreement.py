"""How far two variants see the same in one frame: 1 is all the same, 0 nothing in common.

In: what two engines decoded from the same input. Out: a number 0..1, or None if neither saw anything, which is evidence
of nothing. Continuous in the scores, so that an object that flickers about the threshold, as healthy variants let it,
costs next to nothing, and one that only one of them sees for certain costs all. Pure arithmetic, on any thread.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edged.engines.manifest import ClassifyDecoder, Manifest
from edged.vision.classify import Classes
from edged.vision.detect import Detections

Seen = Detections | Classes
Compare = Callable[[Seen, Seen], float | None]

SAME_OBJECT_IOU: Final = 0.5
"""Boxes of one class that overlap so much are one object."""


def make_compare(manifest: Manifest) -> Compare:
    """The comparison that fits the manifest's decoder."""
    output = manifest.output
    threshold = None if isinstance(output, ClassifyDecoder) else output.score_threshold
    return functools.partial(_compare, threshold)


def _compare(threshold: float | None, a: Seen, b: Seen) -> float | None:
    if isinstance(a, Detections) and isinstance(b, Detections) and threshold is not None:
        return of_detections(a, b, threshold)
    if isinstance(a, Classes) and isinstance(b, Classes):
        return of_classes(a, b)
    raise TypeError(f"{type(a).__name__} and {type(b).__name__} cannot be compared")


def of_detections(a: Detections, b: Detections, threshold: float) -> float | None:
    """The weighted Jaccard index of two sets of objects: sum of min(weight) over sum of max(weight).

    An object weighs what its score is above the threshold, 0..1; one that the other did not see weighs 0 there. Less
    than one sure object in all counts as one: a lone faint object cannot make a frame a complete disagreement.
    """
    if not len(a.scores) and not len(b.scores):
        return None
    weight_a, weight_b = _weights(a.scores, threshold), _weights(b.scores, threshold)
    apart, union = float(weight_a.sum() + weight_b.sum()), 0.0
    for i, j in _matches(a, b):
        common = min(float(weight_a[i]), float(weight_b[j]))
        apart -= 2 * common
        union -= common
    union += float(weight_a.sum() + weight_b.sum())
    return min(1.0, max(0.0, 1.0 - apart / max(1.0, union)))


def _weights(scores: NDArray[np.float32], threshold: float) -> NDArray[np.float64]:
    above: NDArray[np.float64] = (scores.astype(np.float64) - threshold) / max(1.0 - threshold, 1e-6)
    return above.clip(0.0, 1.0)


def _matches(a: Detections, b: Detections) -> list[tuple[int, int]]:
    """Which object of `a` is which of `b`: the best overlaps first, each object once."""
    overlap = np.where(a.class_ids[:, None] == b.class_ids, _iou(a.boxes, b.boxes), 0.0)
    pairs: list[tuple[int, int]] = []
    while overlap.size:
        i, j = divmod(int(overlap.argmax()), overlap.shape[1])
        if overlap[i, j] < SAME_OBJECT_IOU:
            break
        pairs.append((i, j))
        overlap[i, :] = 0.0
        overlap[:, j] = 0.0
    return pairs


def _iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    first, second = a.astype(np.float64)[:, None], b.astype(np.float64)[None]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    common = sides.clip(0).prod(axis=-1)
    area_a, area_b = ((boxes[..., 2:] - boxes[..., :2]).prod(axis=-1) for boxes in (first, second))
    iou: NDArray[np.float64] = common / np.maximum(area_a + area_b - common, 1e-9)
    return iou


def of_classes(a: Classes, b: Classes) -> float | None:
    """1 if both name the same class first; else 1 less what each prefers its own to the other's by, in the mean: two
    that waver between the same two classes nearly agree. A class that is not among the best few has score 0."""
    if not len(a.class_ids) or not len(b.class_ids):
        return None
    first_a, first_b = int(a.class_ids[0]), int(b.class_ids[0])
    if first_a == first_b:
        return 1.0
    margin_a = float(a.scores[0]) - _score_of(a, first_b)
    margin_b = float(b.scores[0]) - _score_of(b, first_a)
    return min(1.0, max(0.0, 1.0 - (margin_a + margin_b) / 2))


def _score_of(seen: Classes, class_id: int) -> float:
    at = np.flatnonzero(seen.class_ids == class_id)
    return float(seen.scores[at[0]]) if at.size else 0.0
