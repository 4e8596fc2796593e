"""Results for the picture as a whole: its classes, a class for each cell, or a vector. Pure arithmetic, any thread."""

from __future__ import annotations

import numpy as np

from edged.engines.decoder_spec import ClassifyDecoder, EmbedDecoder, SemanticDecoder
from edged.engines.engine import Outputs
from edged.engines.manifest import InputSpec
from edged.vision.decoders.activations import activated
from edged.vision.finite import finite
from edged.vision.letterbox import Letterbox
from edged.vision.results import Classes, ClassMap, Embedding


class BestClasses:
    """`logits` [N, C] -> the `top` best classes; equal scores in the order of the labels."""

    def __init__(self, spec: ClassifyDecoder, image: InputSpec, classes: int) -> None:
        self._logits = spec.logits
        self._activation = spec.activation or "softmax"
        self._top = min(spec.top, classes)

    def __call__(self, outputs: Outputs, index: int, letterbox: Letterbox) -> Classes:
        logits = finite(outputs[self._logits][index], self._logits)
        scores = activated(logits, self._activation)
        best = np.argsort(-logits.astype(np.float64), kind="stable")[: self._top]  # scores may round to equal ones
        return Classes(best, scores[best].astype(np.float32))


class CellClasses:
    """A class for each cell of the output, cut to the part that shows the picture."""

    def __init__(self, spec: SemanticDecoder, image: InputSpec, classes: int) -> None:
        self._spec, self._image, self._classes = spec, image, classes

    def __call__(self, outputs: Outputs, index: int, letterbox: Letterbox) -> ClassMap:
        values = finite(outputs[self._spec.scores][index], self._spec.scores)
        rows, columns = values.shape[-2:]
        across, down = columns / self._image.width, rows / self._image.height
        left, right = _span(letterbox.left * across, letterbox.scaled_width * across, columns)
        top, bottom = _span(letterbox.top * down, letterbox.scaled_height * down, rows)
        shown = values[..., top:bottom, left:right]
        found = np.rint(shown).astype(np.int64) if self._spec.class_map else shown.argmax(axis=0)
        return ClassMap(found.clip(0, self._classes - 1))


class Vectors:
    """`vector` [N, D], divided by its length where that is declared."""

    def __init__(self, spec: EmbedDecoder, image: InputSpec, classes: int) -> None:
        self._spec = spec

    def __call__(self, outputs: Outputs, index: int, letterbox: Letterbox) -> Embedding:
        vector = finite(outputs[self._spec.vector][index], self._spec.vector).astype(np.float64)
        length = float(np.linalg.norm(vector))
        return Embedding((vector / length if self._spec.normalize and length > 0 else vector).astype(np.float32))


def _span(start: float, length: float, limit: int) -> tuple[int, int]:
    """From which cell to before which, at least one."""
    first = min(round(start), limit - 1)
    return first, min(max(round(start + length), first + 1), limit)
