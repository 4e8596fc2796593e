"""Classes out of logits: softmax, then the best few. Pure arithmetic on the engine loop's thread."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edged.engines.engine import Outputs
from edged.engines.manifest import ClassifyDecoder
from edged.vision.finite import finite
from edged.vision.letterbox import Letterbox


@dataclass(frozen=True, eq=False)
class Classes:
    """The best classes of a frame, best first: class_ids int64 (K,), scores float32 (K,) out of a softmax over all."""

    class_ids: NDArray[np.int64]
    scores: NDArray[np.float32]


class LogitsDecoder:
    """`logits` [N, C] -> the `top` best classes; equal scores in the order of the labels."""

    def __init__(self, spec: ClassifyDecoder, classes: int) -> None:
        self._logits = spec.logits
        self._top = min(spec.top, classes)

    def __call__(self, outputs: Outputs, index: int, letterbox: Letterbox) -> Classes:
        # in double precision no finite float32 can overflow below
        logits = finite(outputs[self._logits][index], self._logits).astype(np.float64)
        weights = np.exp(logits - logits.max())
        best = np.argsort(-logits, kind="stable")[: self._top]
        return Classes(best, (weights[best] / weights.sum()).astype(np.float32))
