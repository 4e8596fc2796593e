"""How far two variants see the same in one frame: 1 is all the same, 0 nothing in common.

In: what two engines decoded from the same input. Out: a number 0..1, or None if neither saw anything, which is evidence
of nothing. Continuous in the scores: an object that flickers about the threshold, as healthy variants let it, costs
next to nothing, and one that only one of them is sure of costs all. Pure arithmetic, on any thread.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edged.engines.decoder_spec import ClassifyDecoder, EmbedDecoder, SemanticDecoder
from edged.engines.manifest import Manifest
from edged.vision.results import Classes, ClassMap, Detections, Embedding, Predictions
from edged.vision.similarity import similarity

Compare = Callable[[Predictions, Predictions], float | None]

SAME_OBJECT_IOU: Final = 0.5
"""Objects of one class that are so similar are one object."""


def make_compare(manifest: Manifest) -> Compare:
    """The comparison that fits the manifest's decoder."""
    output = manifest.output
    scored = not isinstance(output, ClassifyDecoder | SemanticDecoder | EmbedDecoder)
    return functools.partial(_compare, output.score_threshold if scored else None)  # type: ignore[union-attr]


def _compare(threshold: float | None, a: Predictions, b: Predictions) -> float | None:
    match a, b:
        case Detections(), Detections() if threshold is not None:
            return of_detections(a, b, threshold)
        case Classes(), Classes():
            return of_classes(a, b)
        case ClassMap(), ClassMap():
            return float((a.class_ids == b.class_ids).mean())
        case Embedding(), Embedding():
            return of_embeddings(a, b)
        case _:
            raise TypeError(f"{type(a).__name__} and {type(b).__name__} cannot be compared")


def of_detections(a: Detections, b: Detections, threshold: float) -> float | None:
    """The weighted Jaccard index of two sets of objects: sum of min(weight) over sum of max(weight).

    The weight of an object is its score above the threshold, 0..1; one that the other did not see has weight 0 there.
    Less than one sure object in all counts as one: a lone faint object cannot make a frame a complete disagreement.
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
    """Which object of `a` is which of `b`: the most similar first, each object once."""
    overlap = np.where(a.class_ids[:, None] == b.class_ids, similarity(a, b), 0.0)
    pairs: list[tuple[int, int]] = []
    while overlap.size:
        i, j = divmod(int(overlap.argmax()), overlap.shape[1])
        if overlap[i, j] < SAME_OBJECT_IOU:
            break
        pairs.append((i, j))
        overlap[i, :] = 0.0
        overlap[:, j] = 0.0
    return pairs


def of_classes(a: Classes, b: Classes) -> float | None:
    """1 if both name the same class first; else 1 less the mean margin by which each prefers its own to the other's:
    two that waver between the same two classes nearly agree. A class that is not among the best few has score 0."""
    if not len(a.class_ids) or not len(b.class_ids):
        return None
    first_a, first_b = int(a.class_ids[0]), int(b.class_ids[0])
    if first_a == first_b:
        return 1.0
    margin_a = float(a.scores[0]) - _score_of(a, first_b)
    margin_b = float(b.scores[0]) - _score_of(b, first_a)
    return min(1.0, max(0.0, 1.0 - (margin_a + margin_b) / 2))


def _score_of(classes: Classes, class_id: int) -> float:
    at = np.flatnonzero(classes.class_ids == class_id)
    return float(classes.scores[at[0]]) if at.size else 0.0


def of_embeddings(a: Embedding, b: Embedding) -> float:
    """The cosine of the angle between the vectors, at least 0; 0 if one of them is zero."""
    first, second = a.vector.astype(np.float64), b.vector.astype(np.float64)
    length = float(np.linalg.norm(first) * np.linalg.norm(second))
    return min(1.0, max(0.0, float(first @ second) / length)) if length else 0.0
