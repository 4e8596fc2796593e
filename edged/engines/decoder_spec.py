"""How the outputs of a model are read: one frozen struct for each family of heads, as `manifest.json` declares it.

Pure data. `decoder_shapes.py` says which tensors each one reads; `edged/vision/decoders/` reads them. Sides are written
N (batch), C (classes, one label each), A (candidates). A field that is None is decided by edged-calibrate from the
shapes and the graph, and is never None in a manifest that it writes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
Stride = Annotated[int, Meta(ge=1, le=128)]
Strides = Annotated[tuple[Stride, ...], Meta(min_length=1, max_length=8)]
Limit = Annotated[int, Meta(ge=1, le=1000)]
Tensors = Annotated[list[str], Meta(min_length=1, max_length=8)]
Activation = Literal["softmax", "sigmoid", "none"]
Task = Literal["detect", "segment", "pose", "oriented", "classify", "semantic", "embed"]


class CenterDecoder(Struct, frozen=True, forbid_unknown_fields=True, tag="center", tag_field="decoder"):
    """Anchor-free centre heat map. `scores` [N, C, H/stride, W/stride] logits; `boxes` [N, 4, ...] distances left, top,
    right, bottom from the cell centre, in cells. A peak is a 3x3 maximum; then class-aware NMS."""

    scores: str
    boxes: str
    stride: Stride
    score_threshold: Fraction = 0.3
    iou_threshold: Fraction = 0.6
    max_detections: Limit = 50


class YoloDecoder(Struct, frozen=True, forbid_unknown_fields=True, tag="yolo", tag_field="decoder"):
    """One tensor of candidates whose boxes are decoded in the graph; class-aware NMS, off where `iou_threshold` is 1.

    A candidate holds cx, cy, w, h in input pixels (`unit`: as shares of the input's sides), with `objectness` the
    probability of any object (YOLOv5, v7), C class probabilities, and at its end mask coefficients, key points or an
    angle in radians. "columns" is [N, 4 + C, A] (YOLOv8, 11), "rows" [N, A, 4 + C] (v5, transposed exports).
    "end_to_end" is [N, A, 6]: x0, y0, x1, y1, score, class id, the NMS is done (v10, 26); an oriented box is cx, cy, w,
    h, score, class id, angle there. `order` is that of these six values (PaddlePaddle: class first; YOLOv7: 7 values).
    """

    predictions: str
    layout: Literal["columns", "rows", "end_to_end"] | None = None
    objectness: bool | None = None
    order: Literal["box_score_class", "class_score_box", "batch_box_class_score"] | None = None
    prototypes: str = ""
    """of instance masks: [N, `mask_channels`, h, w]; "" without masks"""
    mask_channels: Annotated[int, Meta(ge=0, le=256)] = 0
    keypoints: Annotated[int, Meta(ge=0, le=256)] = 0
    keypoint_values: Literal[2, 3] = 3
    """of a key point: x, y, and 3 its confidence"""
    oriented: bool = False
    unit: bool = False
    score_threshold: Fraction = 0.25
    iou_threshold: Fraction = 0.7
    max_detections: Limit = 100

    @property
    def extra(self) -> int:
        """Values of a candidate behind its classes."""
        return self.mask_channels + self.keypoints * self.keypoint_values + int(self.oriented)


class AnchorLevel(Struct, frozen=True, forbid_unknown_fields=True):
    """Anchors of one feature map, cell by cell in row order, centred in the cells; `sizes` [width, height] in input
    pixels, in the order in which a cell's candidates lie."""

    stride: Stride
    sizes: Annotated[list[tuple[float, float]], Meta(min_length=1, max_length=32)]


class BoxesDecoder(Struct, frozen=True, forbid_unknown_fields=True, tag="boxes", tag_field="decoder"):
    """Two tensors with a row for each candidate: `scores` [N, A, C] and `boxes` [N, A, 4] (SSD, DETR, RT-DETR, D-FINE,
    RF-DETR); `columns`: [N, C, A] and [N, 4, A]. `background` is a class without a label, before or behind the others.

    `box`: corners or centre and size, in input pixels or, with `unit`, as shares of the input's sides. With `anchors`
    boxes are offsets from them as of SSD: centre (x0 + d0 v0 w, ...), size w exp(d2 v1). NMS is off where
    `iou_threshold` is 1, as for the DETR family.
    """

    scores: str
    boxes: str
    box: Literal["xyxy", "cxcywh", "yxyx"] | None = None
    unit: bool | None = None
    columns: bool = False
    activation: Activation | None = None
    background: Literal["none", "first", "last"] | None = None
    anchors: list[AnchorLevel] = []
    variances: tuple[float, float] = (0.1, 0.2)
    score_threshold: Fraction = 0.3
    iou_threshold: Fraction = 0.5
    max_detections: Limit = 100


class DetectionsDecoder(Struct, frozen=True, forbid_unknown_fields=True, tag="detections", tag_field="decoder"):
    """What a graph with its own NMS gives: `boxes` [N, A, 4], `scores` [N, A] and, with more than one class,
    `class_ids` [N, A], which begin at `first_class`. Rows of padding have a score of 0 or a class out of range."""

    boxes: str
    scores: str
    class_ids: str = ""
    first_class: Annotated[int, Meta(ge=0, le=1)] = 0
    box: Literal["xyxy", "cxcywh", "yxyx"] = "xyxy"
    unit: bool | None = None
    score_threshold: Fraction = 0.3
    max_detections: Limit = 100


class YoloxDecoder(Struct, frozen=True, forbid_unknown_fields=True, tag="yolox", tag_field="decoder"):
    """`predictions` [N, A, 5 + C], level after level: offset of the centre from the cell's corner and log of the size,
    both in strides, then objectness and class probabilities. Class-aware NMS."""

    predictions: str
    strides: Strides = (8, 16, 32)
    score_threshold: Fraction = 0.25
    iou_threshold: Fraction = 0.45
    max_detections: Limit = 100


class DflDecoder(Struct, frozen=True, forbid_unknown_fields=True, tag="dfl", tag_field="decoder"):
    """Raw heads with distributions of distances (NanoDet, PicoDet, the heads of YOLOv8): a softmax over `bins` logits
    for each side, its mean times the stride. A tensor for each stride, or one for all of them.

    "rows": [N, A, V]; "maps": [N, V, h, w]. Where `scores` and `boxes` name the same tensors, V is C + 4 bins, scores
    first, or `boxes_first`. `center`: where in its cell a candidate lies, in strides. Class-aware NMS.
    """

    scores: Tensors
    boxes: Tensors
    strides: Strides
    bins: Annotated[int, Meta(ge=2, le=64)] = 8
    layout: Literal["rows", "maps"] = "rows"
    boxes_first: bool = False
    center: Annotated[float, Meta(ge=0, le=0.5)] = 0.5
    activation: Literal["sigmoid", "none"] = "none"
    score_threshold: Fraction = 0.3
    iou_threshold: Fraction = 0.6
    max_detections: Limit = 100


class ScrfdDecoder(Struct, frozen=True, forbid_unknown_fields=True, tag="scrfd", tag_field="decoder"):
    """Faces by SCRFD, a tensor for each stride: `scores` [N, A, 1] probabilities, `boxes` [N, A, 4] distances and
    `keypoints` [N, A, 10] offsets in strides, from the cell's corner; `anchors` candidates in each cell."""

    scores: Tensors
    boxes: Tensors
    keypoints: Annotated[list[str], Meta(max_length=8)] = []
    strides: Strides = (8, 16, 32)
    anchors: Annotated[int, Meta(ge=1, le=9)] = 2
    score_threshold: Fraction = 0.5
    iou_threshold: Fraction = 0.4
    max_detections: Limit = 100


class YunetDecoder(Struct, frozen=True, forbid_unknown_fields=True, tag="yunet", tag_field="decoder"):
    """Faces by YuNet, a tensor for each stride: `scores` and `objectness` [N, A, 1], whose geometric mean counts,
    `boxes` [N, A, 4] offset of the centre and log of the size in strides, `keypoints` [N, A, 10]."""

    scores: Tensors
    objectness: Tensors
    boxes: Tensors
    keypoints: Tensors
    strides: Strides = (8, 16, 32)
    score_threshold: Fraction = 0.6
    iou_threshold: Fraction = 0.3
    max_detections: Limit = 100


class CenterFaceDecoder(Struct, frozen=True, forbid_unknown_fields=True, tag="centerface", tag_field="decoder"):
    """Faces by CenterFace, maps of one stride: `heatmap` [N, 1, h, w] probabilities, `scale` [N, 2, h, w] log of height
    and width, `offset` [N, 2, h, w] of the centre (y, x), `keypoints` [N, 10, h, w] as y, x in shares of the box."""

    heatmap: str
    scale: str
    offset: str
    keypoints: str
    stride: Stride = 4
    score_threshold: Fraction = 0.35
    iou_threshold: Fraction = 0.3
    max_detections: Limit = 100


class ClassifyDecoder(Struct, frozen=True, forbid_unknown_fields=True, tag="classify", tag_field="decoder"):
    """One tensor `logits` [N, C]; the activation that the graph does not have itself, then the `top` best classes.
    "sigmoid": each class for itself. None counts as "softmax"."""

    logits: str
    top: Annotated[int, Meta(ge=1, le=100)] = 5
    activation: Activation | None = None


class SemanticDecoder(Struct, frozen=True, forbid_unknown_fields=True, tag="semantic", tag_field="decoder"):
    """A class for each cell: `scores` [N, C, h, w], of which the largest counts, or, with `class_map`, the class ids
    themselves, [N, h, w]. The map covers the model's input."""

    scores: str
    class_map: bool | None = None


class EmbedDecoder(Struct, frozen=True, forbid_unknown_fields=True, tag="embed", tag_field="decoder"):
    """A vector [N, D] that stands for the picture; `normalize`: divided by its length."""

    vector: str
    normalize: bool = True


ObjectDecoder = (
    CenterDecoder
    | YoloDecoder
    | BoxesDecoder
    | DetectionsDecoder
    | YoloxDecoder
    | DflDecoder
    | ScrfdDecoder
    | YunetDecoder
    | CenterFaceDecoder
)
"""Those that give objects; each has a `score_threshold` and `max_detections`."""

Decoder = ObjectDecoder | ClassifyDecoder | SemanticDecoder | EmbedDecoder


def task_of(output: Decoder) -> Task:
    """What a decoder gives."""
    match output:
        case ClassifyDecoder():
            return "classify"
        case SemanticDecoder():
            return "semantic"
        case EmbedDecoder():
            return "embed"
        case YoloDecoder() if output.prototypes:
            return "segment"
        case YoloDecoder() if output.oriented:
            return "oriented"
        case YoloDecoder() if output.keypoints:
            return "pose"
        case YunetDecoder() | CenterFaceDecoder():
            return "pose"
        case ScrfdDecoder() if output.keypoints:
            return "pose"
        case _:
            return "detect"
