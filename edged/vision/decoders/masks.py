"""Instance masks: prototypes weighted by each object's coefficients, cut to its box. Pure arithmetic, any thread."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edged.engines.manifest import InputSpec
from edged.vision.letterbox import Letterbox
from edged.vision.results import Floats, Mask


def cut_masks(
    prototypes: NDArray[Any], coefficients: Floats, boxes: Floats, image: InputSpec, letterbox: Letterbox
) -> tuple[Mask, ...]:
    """`prototypes` (M, h, w) over the whole input, `coefficients` (n, M), `boxes` (n, 4) in input pixels -> a mask for
    each object on the prototypes' grid. A cell belongs to it where the weighted sum is above 0, which is a probability
    of 0.5, and where its centre lies in the box and in the picture."""
    _, rows, columns = prototypes.shape
    cell_width, cell_height = image.width / columns, image.height / rows
    width, height = cell_width / letterbox.scale_x, cell_height / letterbox.scale_y
    masks = []
    for (x0, y0, x1, y1), weights in zip(boxes.tolist(), coefficients, strict=True):
        left, right = max(x0, letterbox.left), min(x1, letterbox.left + letterbox.scaled_width)
        top, bottom = max(y0, letterbox.top), min(y1, letterbox.top + letterbox.scaled_height)
        first, last = _cells(left, right, cell_width, columns)
        upper, lower = _cells(top, bottom, cell_height, rows)
        part = prototypes[:, upper:lower, first:last].astype(np.float32)
        cells = np.tensordot(weights, part, axes=1) > 0
        x = (first * cell_width - letterbox.left) / letterbox.scale_x
        y = (upper * cell_height - letterbox.top) / letterbox.scale_y
        masks.append(Mask(cells, x, y, width, height))
    return tuple(masks)


def _cells(low: float, high: float, size: float, count: int) -> tuple[int, int]:
    """From which cell to before which: those whose centre lies from `low` to `high`, at least one."""
    first = min(max(int(np.ceil(low / size - 0.5)), 0), count - 1)
    return first, min(max(int(np.floor(high / size - 0.5)) + 1, first + 1), count)
