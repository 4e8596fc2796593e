"""Raw heads on grids of cells: YOLOX, heads with distributions of distances (NanoDet, PicoDet, YOLOv8), SCRFD, YuNet.

A candidate belongs to a cell of one of several feature maps; its box is decoded here, only where its score is above
the threshold. Pure arithmetic, any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edged.engines.decoder_spec import DflDecoder, ScrfdDecoder, YoloxDecoder, YunetDecoder
from edged.engines.engine import Outputs
from edged.engines.manifest import InputSpec
from edged.vision.decoders.activations import activated
from edged.vision.finite import finite
from edged.vision.letterbox import Letterbox
from edged.vision.nms import Selected, Selection, select
from edged.vision.points import with_keypoints
from edged.vision.results import NOTHING, Detections, Floats, Indices

_LARGEST_LOG = 10.0  # of a size in strides: wider than any picture
_FURTHEST = 1e4  # strides from a cell: outside any picture


class Grid:
    """Where the candidates of all levels lie: `cells` (A, 2) column and row, `strides` (A,)."""

    def __init__(self, image: InputSpec, strides: Sequence[int], anchors: int = 1) -> None:
        cells, sizes = [], []
        for stride in strides:
            rows, columns = -(-image.height // stride), -(-image.width // stride)
            y, x = np.divmod(np.arange(rows * columns).repeat(anchors), columns)
            cells.append(np.stack((x, y), axis=1))
            sizes.append(np.full(len(x), stride))
        self.cells: Floats = np.concatenate(cells).astype(np.float32)
        self.strides: Floats = np.concatenate(sizes).astype(np.float32)[:, None]

    def sides(self, chosen: Indices, reach: Floats, center: float = 0.0) -> Floats:
        """Boxes (n, 4) in input pixels of distances left, top, right, bottom in strides."""
        middle = self.cells[chosen] + center
        reach = reach.clip(-_FURTHEST, _FURTHEST)
        boxes: Floats = np.concatenate((middle - reach[:, :2], middle + reach[:, 2:]), axis=1) * self.strides[chosen]
        return boxes

    def centered(self, chosen: Indices, offsets: Floats) -> Floats:
        """Boxes (n, 4) in input pixels of an offset of the centre and the log of the size, in strides."""
        middle = self.cells[chosen] + offsets[:, :2].clip(-_FURTHEST, _FURTHEST)
        half = np.exp(offsets[:, 2:].clip(-_LARGEST_LOG, _LARGEST_LOG)) / 2
        boxes: Floats = np.concatenate((middle - half, middle + half), axis=1) * self.strides[chosen]
        return boxes


def _levels(outputs: Outputs, names: Sequence[str], index: int, maps: bool = False) -> NDArray[Any]:
    """The rows (A, V) of all levels of one frame."""
    rows = []
    for name in names:
        values = finite(outputs[name][index], name)
        rows.append(values.reshape(len(values), -1).T if maps else values)
    return rows[0] if len(rows) == 1 else np.concatenate(rows)


def _ranked(scores: NDArray[Any], threshold: float) -> Indices:
    """Which are at least the threshold, best first."""
    chosen = np.flatnonzero(scores >= threshold)
    return chosen[np.argsort(-scores[chosen], kind="stable")]


def _selected(
    boxes: Floats, scores: NDArray[Any], class_ids: Indices, spec: Selection, letterbox: Letterbox
) -> Selected:
    return select(boxes.astype(np.float32), scores.astype(np.float32).clip(0, 1), class_ids, spec, letterbox)


class YoloxBoxes:
    """YOLOX: objectness times the best class."""

    def __init__(self, spec: YoloxDecoder, image: InputSpec, classes: int) -> None:
        self._spec, self._grid = spec, Grid(image, spec.strides)

    def __call__(self, outputs: Outputs, index: int, letterbox: Letterbox) -> Detections:
        rows = _levels(outputs, [self._spec.predictions], index)
        scores = rows[:, 5:].max(axis=1).clip(0, 1) * rows[:, 4].clip(0, 1)
        chosen = _ranked(scores, self._spec.score_threshold)
        if not chosen.size:
            return NOTHING
        boxes = self._grid.centered(chosen, rows[chosen, :4].astype(np.float32))
        class_ids = rows[chosen, 5:].argmax(axis=1)
        return _selected(boxes, scores[chosen], class_ids, self._spec, letterbox).detections


class DflBoxes:
    """Distances as distributions: the mean of a softmax over bins, for each side."""

    def __init__(self, spec: DflDecoder, image: InputSpec, classes: int) -> None:
        self._spec, self._classes, self._grid = spec, classes, Grid(image, spec.strides)
        self._steps = np.arange(spec.bins)

    def __call__(self, outputs: Outputs, index: int, letterbox: Letterbox) -> Detections:
        spec, maps, sides = self._spec, self._spec.layout == "maps", 4 * self._spec.bins
        logits = _levels(outputs, spec.scores, index, maps)
        if spec.scores == spec.boxes:
            first, last = slice(None, self._classes), slice(self._classes, None)
            if spec.boxes_first:
                first, last = slice(sides, None), slice(None, sides)
            logits, distances = logits[:, first], logits[:, last]
        else:
            distances = _levels(outputs, spec.boxes, index, maps)
        scores = activated(logits.max(axis=1), spec.activation)
        chosen = _ranked(scores, spec.score_threshold)
        if not chosen.size:
            return NOTHING
        shares = activated(distances[chosen].reshape(-1, 4, spec.bins), "softmax")
        boxes = self._grid.sides(chosen, (shares @ self._steps).astype(np.float32), spec.center)
        class_ids = logits[chosen].argmax(axis=1)
        return _selected(boxes, scores[chosen], class_ids, spec, letterbox).detections


class ScrfdFaces:
    """SCRFD: distances and five points from the corner of a cell."""

    def __init__(self, spec: ScrfdDecoder, image: InputSpec, classes: int) -> None:
        self._spec, self._grid = spec, Grid(image, spec.strides, spec.anchors)

    def __call__(self, outputs: Outputs, index: int, letterbox: Letterbox) -> Detections:
        spec = self._spec
        scores = _levels(outputs, spec.scores, index)[:, 0]
        distances = _levels(outputs, spec.boxes, index)
        chosen = _ranked(scores, spec.score_threshold)
        if not chosen.size:
            return NOTHING
        boxes = self._grid.sides(chosen, distances[chosen].astype(np.float32))
        selected = _selected(boxes, scores[chosen], np.zeros(len(chosen), np.int64), spec, letterbox)
        if not spec.keypoints:
            return selected.detections
        points = _levels(outputs, spec.keypoints, index)
        return _with_points(selected, points, chosen[selected.kept], self._grid, letterbox)


class YunetFaces:
    """YuNet: the geometric mean of two scores, an offset and a log size, five points."""

    def __init__(self, spec: YunetDecoder, image: InputSpec, classes: int) -> None:
        self._spec, self._grid = spec, Grid(image, spec.strides)

    def __call__(self, outputs: Outputs, index: int, letterbox: Letterbox) -> Detections:
        spec = self._spec
        first, second = (_levels(outputs, names, index)[:, 0] for names in (spec.scores, spec.objectness))
        offsets, points = (_levels(outputs, names, index) for names in (spec.boxes, spec.keypoints))
        scores = np.sqrt(first.clip(0, 1) * second.clip(0, 1))
        chosen = _ranked(scores, spec.score_threshold)
        if not chosen.size:
            return NOTHING
        boxes = self._grid.centered(chosen, offsets[chosen].astype(np.float32))
        selected = _selected(boxes, scores[chosen], np.zeros(len(chosen), np.int64), spec, letterbox)
        return _with_points(selected, points, chosen[selected.kept], self._grid, letterbox)


def _with_points(
    selected: Selected, points: NDArray[Any], chosen: Indices, grid: Grid, letterbox: Letterbox
) -> Detections:
    """Offsets (A, 2 K) in strides from the corner of each cell -> key points of the objects."""
    offsets = points[chosen].astype(np.float32).reshape(len(chosen), -1, 2).clip(-_FURTHEST, _FURTHEST)
    places = (grid.cells[chosen][:, None] + offsets) * grid.strides[chosen][:, None]
    return with_keypoints(selected.detections, places, None, letterbox)
