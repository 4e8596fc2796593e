"""Which tensors a decoder reads and what their shapes must be. Pure arithmetic, used at the start and offline.

Shapes are those of one frame, without the batch axis; -1 is a side that the model may choose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edged.engines import decoder_spec as spec
from edged.engines.decoder_spec import Decoder

Shape = tuple[int, ...]
GridDecoder = spec.YoloxDecoder | spec.DflDecoder | spec.ScrfdDecoder | spec.YunetDecoder | spec.CenterFaceDecoder
KEYPOINTS_OF_A_FACE = 5
_ROLES = (
    "predictions", "prototypes", "scores", "boxes", "class_ids", "objectness", "keypoints", "heatmap", "scale",
    "offset", "logits", "vector",
)  # fmt: skip


_OPTIONAL = ("prototypes", "class_ids")


def tensor_shapes(output: Decoder, width: int, height: int, classes: int) -> dict[str, Shape]:
    """The shape of every tensor that the decoder reads, for an input of width x height and so many labels."""
    match output:
        case spec.CenterDecoder():
            cells = (height // output.stride, width // output.stride)
            return {output.scores: (classes, *cells), output.boxes: (4, *cells)}
        case spec.YoloDecoder():
            return _yolo(output, classes)
        case spec.BoxesDecoder():
            count = classes + (output.background in ("first", "last"))
            rows = sum(_cells(width, height, level.stride) * len(level.sizes) for level in output.anchors) or -1
            if output.columns:
                return {output.scores: (count, rows), output.boxes: (4, rows)}
            return {output.scores: (rows, count), output.boxes: (rows, 4)}
        case spec.DetectionsDecoder():
            shapes: dict[str, Shape] = {output.boxes: (-1, 4), output.scores: (-1,)}
            return {**shapes, output.class_ids: (-1,)} if output.class_ids else shapes
        case spec.ClassifyDecoder():
            return {output.logits: (classes,)}
        case spec.SemanticDecoder():
            return {output.scores: (-1, -1) if output.class_map else (classes, -1, -1)}
        case spec.EmbedDecoder():
            return {output.vector: (-1,)}
        case _:
            return _grid(output, width, height, classes)


def tensor_names(output: Decoder) -> list[str]:
    """Names of the tensors that a decoder reads, one for each role: no two may be the same."""
    if isinstance(output, spec.DflDecoder) and output.scores == output.boxes:
        return output.scores
    names: list[str] = []
    for role in _ROLES:
        value = getattr(output, role, None)
        names += (
            value
            if isinstance(value, list)
            else [value]
            if isinstance(value, str) and (value or role not in _OPTIONAL)
            else []
        )
    return names


def class_count(output: Decoder, shapes: Mapping[str, Shape]) -> int | None:
    """How many classes a model with these real shapes tells apart; None where they do not say."""
    match output:
        case spec.ScrfdDecoder() | spec.YunetDecoder() | spec.CenterFaceDecoder():
            return 1
        case spec.CenterDecoder():
            return shapes[output.scores][0]
        case spec.YoloDecoder() if output.layout != "end_to_end":
            values = shapes[output.predictions][1 if output.layout == "rows" else 0]
            return values - 4 - bool(output.objectness) - output.extra
        case spec.BoxesDecoder():
            count = shapes[output.scores][0 if output.columns else -1]
            return count - (output.background in ("first", "last"))
        case spec.YoloxDecoder():
            return shapes[output.predictions][-1] - 5
        case spec.DflDecoder():
            values = shapes[output.scores[0]][-1 if output.layout == "rows" else 0]
            return values - (4 * output.bins if output.scores == output.boxes else 0)
        case spec.ClassifyDecoder():
            return shapes[output.logits][-1]
        case spec.SemanticDecoder() if not output.class_map:
            return shapes[output.scores][0]
        case _:
            return None


def fits(shape: Shape, expected: Shape) -> bool:
    """Whether a real shape is the expected one; -1 is any side."""
    return len(shape) == len(expected) and all(e in (-1, s) for s, e in zip(shape, expected, strict=True))


def _yolo(output: spec.YoloDecoder, classes: int) -> dict[str, Shape]:
    ranked = 7 if output.order == "batch_box_class_score" else 6
    values = (ranked if output.layout == "end_to_end" else 4 + bool(output.objectness) + classes) + output.extra
    rows = output.layout in ("rows", "end_to_end")
    shapes: dict[str, Shape] = {output.predictions: (-1, values) if rows else (values, -1)}
    if output.prototypes:
        shapes[output.prototypes] = (output.mask_channels, -1, -1)
    return shapes


def _grid(output: GridDecoder, width: int, height: int, classes: int) -> dict[str, Shape]:
    match output:
        case spec.YoloxDecoder():
            rows = sum(_cells(width, height, stride) for stride in output.strides)
            return {output.predictions: (rows, 5 + classes)}
        case spec.DflDecoder():
            return _dfl(output, width, height, classes)
        case spec.ScrfdDecoder():
            widths = {1: output.scores, 4: output.boxes, 2 * KEYPOINTS_OF_A_FACE: output.keypoints}
            return _levels(widths, output.strides, width, height, output.anchors)
        case spec.YunetDecoder():
            face = {4: output.boxes, 2 * KEYPOINTS_OF_A_FACE: output.keypoints}
            return _levels({1: [*output.scores, *output.objectness], **face}, output.strides, width, height, 1)
        case spec.CenterFaceDecoder():
            maps = (height // output.stride, width // output.stride)
            points = 2 * KEYPOINTS_OF_A_FACE
            names = {output.heatmap: 1, output.scale: 2, output.offset: 2, output.keypoints: points}
            return {name: (values, *maps) for name, values in names.items()}


def _dfl(output: spec.DflDecoder, width: int, height: int, classes: int) -> dict[str, Shape]:
    sides = 4 * output.bins
    if output.scores == output.boxes:
        values = [(output.scores, classes + sides)]
    else:
        values = [(output.scores, classes), (output.boxes, sides)]
    shapes: dict[str, Shape] = {}
    for names, count in values:
        if output.layout == "maps":
            maps = [(-(-height // stride), -(-width // stride)) for stride in output.strides]
            shapes |= {name: (count, *cells) for name, cells in zip(names, maps, strict=False)}
        elif len(names) == 1:
            shapes[names[0]] = (sum(_cells(width, height, stride) for stride in output.strides), count)
        else:
            shapes |= _levels({count: names}, output.strides, width, height, 1)
    return shapes


def _levels(
    widths: Mapping[int, Sequence[str]], strides: Sequence[int], width: int, height: int, anchors: int
) -> dict[str, Shape]:
    """Tensors [A, values] of several strides; `widths`: values -> names, stride after stride."""
    return {
        name: (_cells(width, height, strides[index % len(strides)]) * anchors, values)
        for values, names in widths.items()
        for index, name in enumerate(names)
    }


def _cells(width: int, height: int, stride: int) -> int:
    """Of a feature map; a side that the stride does not divide is rounded up, as padded convolutions do."""
    return -(-width // stride) * -(-height // stride)
