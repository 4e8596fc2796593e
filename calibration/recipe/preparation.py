"""How a model wants its pictures, guessed from where it comes: mean, deviation and order of colours. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import onnx

from edged.engines.decoder_spec import (
    BoxesDecoder,
    CenterFaceDecoder,
    ClassifyDecoder,
    Decoder,
    DflDecoder,
    EmbedDecoder,
    ScrfdDecoder,
    SemanticDecoder,
    YoloxDecoder,
    YunetDecoder,
)
from edged_calibration.graph.index import Graph

Three = tuple[float, float, float]


@dataclass(frozen=True)
class Preparation:
    """(p - mean) / std in the order `color`, and the reason for it."""

    mean: Three
    std: Three
    color: str
    reason: str


_RAW: Final[tuple[Three, Three]] = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
_UNIT: Final[tuple[Three, Three]] = ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
_IMAGENET: Final[tuple[Three, Three]] = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


def guess_preparation(model: onnx.ModelProto, output: Decoder, entry: str, pixels: bool) -> Preparation:
    """By whether the graph begins with a normalisation of its own, the exporter, and the family of the decoder."""
    if pixels:
        return Preparation(*_RAW, "RGB", "it takes bytes and normalises itself")
    if _normalises(model, entry):
        return Preparation(*_RAW, "RGB", "the graph begins with a normalisation of its own")
    whole = isinstance(output, ClassifyDecoder | EmbedDecoder | SemanticDecoder)
    if whole and not _is_ultralytics(model):
        return Preparation(*_IMAGENET, "RGB", "ImageNet's, as most classifiers are trained")
    return _of_family(output, "paddle" in model.producer_name.lower())


def _of_family(output: Decoder, paddle: bool) -> Preparation:
    match output:
        case YoloxDecoder() | YunetDecoder():
            return Preparation(*_RAW, "BGR", "as its authors export it: pixels as they are")
        case CenterFaceDecoder():
            return Preparation(*_RAW, "RGB", "as its authors export it: pixels as they are")
        case ScrfdDecoder():
            return Preparation((127.5,) * 3, (128.0,) * 3, "RGB", "as its authors export it")
        case DflDecoder() if output.scores == output.boxes and output.layout == "rows":
            return Preparation((103.53, 116.28, 123.675), (57.375, 57.12, 58.395), "BGR", "as NanoDet is trained")
        case DflDecoder() if output.layout == "rows":
            return Preparation(*_IMAGENET, "RGB", "as PicoDet is trained")
        case BoxesDecoder() if output.iou_threshold < 1:
            return Preparation((127.0,) * 3, (128.0,) * 3, "RGB", "as most SSD are trained")
        case BoxesDecoder():
            return Preparation(*_IMAGENET, "RGB", "ImageNet's, as DETR and RF-DETR; RT-DETR and D-FINE take p / 255")
        case _ if paddle:
            return Preparation(*_IMAGENET, "RGB", "as most of PaddleDetection is trained")
        case _:
            return Preparation(*_UNIT, "RGB", "p / 255, as YOLO is trained")


def _is_ultralytics(model: onnx.ModelProto) -> bool:
    return any(entry.key == "author" and "ultralytics" in entry.value.lower() for entry in model.metadata_props)


def _normalises(model: onnx.ModelProto, entry: str) -> bool:
    """Whether all that reads the picture first scales or shifts it by constants."""
    graph = Graph(model)
    readers = graph.consumers.get(entry, [])
    while len(readers) == 1 and readers[0].op_type in ("Transpose", "Cast", "Identity", "Gather"):
        readers = graph.consumers.get(readers[0].output[0], [])
    return bool(readers) and all(
        node.op_type in ("Sub", "Div", "Mul", "Add", "BatchNormalization")
        and any(name in graph.constants for name in node.input)
        for node in readers
    )
