"""A detector shaped like YOLOv8n: C2f blocks, SPPF, a two-way pyramid, decoupled heads, boxes decoded in the graph."""

from __future__ import annotations

import numpy as np
import onnx

from edged_calibration.zoo.writer import INPUT, UNIT, BatchNorm, Writer

_STRIDES = (8, 16, 32)
_BINS = 16  # of the distribution that each side of a box is predicted as
_RARE = -2.0  # mean logit of a class: most anchors see nothing; and with little spread, so that no two scores near one
_CLASS_SPREAD, _BOX_SPREAD = 0.2, 0.3  # are the same in FP16, and the boxes of neighbours do not change places
_NEAR = -0.6  # mean logit of a distance, a bin further: boxes of a few cells, not all over each other


def yolo_nano(size: int, seed: int = 0, classes: int = 80) -> onnx.ModelProto:
    """`pixels` [N, 3, size, size] -> `predictions` [N, 4 + classes, anchors]: cx, cy, w, h in pixels, then classes."""
    net = Writer(size, seed, UNIT)
    x = _conv(net, INPUT, 16, 3, "b0", 2)
    x = _c2f(net, _conv(net, x, 32, 3, "b1", 2), 32, 1, True, "b2")
    p3 = _c2f(net, _conv(net, x, 64, 3, "b3", 2), 64, 2, True, "b4")
    p4 = _c2f(net, _conv(net, p3, 128, 3, "b5", 2), 128, 2, True, "b6")
    p5 = _sppf(net, _c2f(net, _conv(net, p4, 256, 3, "b7", 2), 256, 1, True, "b8"), 256, "b9")
    n4 = _c2f(net, net.op("Concat", [_up(net, p5, "h10"), p4], "h11", axis=1), 128, 1, False, "h12")
    n3 = _c2f(net, net.op("Concat", [_up(net, n4, "h13"), p3], "h14", axis=1), 64, 1, False, "h15")
    m4 = _c2f(net, net.op("Concat", [_conv(net, n3, 64, 3, "h16", 2), n4], "h17", axis=1), 128, 1, False, "h18")
    m5 = _c2f(net, net.op("Concat", [_conv(net, m4, 128, 3, "h19", 2), p5], "h20", axis=1), 256, 1, False, "h21")
    return net.model(_decode(net, [n3, m4, m5], classes, size), "predictions")


def _conv(net: Writer, source: str, outputs: int, kernel: int, name: str, stride: int = 1) -> str:
    return net.conv(source, outputs, kernel, name, stride=stride, act="silu")


def _c2f(net: Writer, source: str, outputs: int, blocks: int, shortcut: bool, name: str) -> str:
    half = outputs // 2
    x = _conv(net, source, outputs, 1, f"{name}.cv1")
    parts = net.split("Split", [x, net.integers(f"{name}.halves", half, half)], 2, f"{name}.split", axis=1)
    for block in range(blocks):
        x = _conv(net, parts[-1], half, 3, f"{name}.m{block}.cv1")
        x = _conv(net, x, half, 3, f"{name}.m{block}.cv2")
        parts.append(net.op("Add", [parts[-1], x], f"{name}.m{block}.add") if shortcut else x)
    return _conv(net, net.op("Concat", parts, f"{name}.concat", axis=1), outputs, 1, f"{name}.cv2")


def _sppf(net: Writer, source: str, outputs: int, name: str) -> str:
    parts = [_conv(net, source, outputs // 2, 1, f"{name}.cv1")]
    for i in range(3):
        window = {"kernel_shape": [5, 5], "strides": [1, 1], "pads": [2, 2, 2, 2]}
        parts.append(net.op("MaxPool", [parts[-1]], f"{name}.pool{i}", **window))
    return _conv(net, net.op("Concat", parts, f"{name}.concat", axis=1), outputs, 1, f"{name}.cv2")


def _up(net: Writer, source: str, name: str) -> str:
    scales = net.constant("twice", np.array([1, 1, 2, 2], np.float32))
    how = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    return net.op("Resize", [source, "", scales], name, **how)


def _decode(net: Writer, levels: list[str], classes: int, size: int) -> str:
    """Heads of every level, joined along the anchors; then boxes from their distributions, and class probabilities."""
    flat = net.integers("head.flat", 0, 4 * _BINS + classes, -1)
    joined = []
    for i, level in enumerate(levels):
        box = _conv(net, _conv(net, level, 64, 3, f"box{i}.cv1"), 64, 3, f"box{i}.cv2")
        box_norm = BatchNorm(_BOX_SPREAD, np.tile(np.arange(_BINS) * _NEAR, 4))
        box = net.conv(box, 4 * _BINS, 1, f"box{i}.out", norm=box_norm)
        label = _conv(
            net, _conv(net, level, max(classes, 64), 3, f"class{i}.cv1"), max(classes, 64), 3, f"class{i}.cv2"
        )
        label = net.conv(label, classes, 1, f"class{i}.out", norm=BatchNorm(_CLASS_SPREAD, _RARE))
        both = net.op("Concat", [box, label], f"head{i}", axis=1)
        joined.append(net.op("Reshape", [both, flat], f"head{i}.flat"))
    x = net.op("Concat", joined, "heads", axis=2)
    box, label = net.split("Split", [x, net.integers("head.parts", 4 * _BINS, classes)], 2, "parts", axis=1)
    low, high = _corners(net, box, size)
    half = net.constant("half", np.array(0.5, np.float32))
    centre = net.op("Mul", [net.op("Add", [low, high], "corner.sum"), half], "centre")
    boxes = net.op("Concat", [centre, net.op("Sub", [high, low], "extent")], "boxes", axis=1)
    strides = np.concatenate([np.full((size // s) ** 2, s, np.float32) for s in _STRIDES])[None, None]
    scaled = net.op("Mul", [boxes, net.constant("strides", strides)], "boxes.pixels")
    return net.op("Concat", [scaled, net.op("Sigmoid", [label], "probabilities")], "predictions", axis=1)


def _corners(net: Writer, box: str, size: int) -> tuple[str, str]:
    """Low and high corners [N, 2, anchors] in cells, from the distributions of the distances to each side."""
    x = net.op("Reshape", [box, net.integers("sides", 0, 4, _BINS, -1)], "sides.split")
    x = net.op("Softmax", [net.op("Transpose", [x], "sides.turn", perm=[0, 2, 1, 3])], "sides.softmax", axis=1)
    mean = net.constant("mean.weight", np.arange(_BINS, dtype=np.float32).reshape(1, _BINS, 1, 1))
    x = net.op("Conv", [x, mean], "mean", kernel_shape=[1, 1])
    x = net.op("Reshape", [x, net.integers("sides.shape", 0, 4, -1)], "distances")
    near, far = net.split("Split", [x, net.integers("pairs", 2, 2)], 2, "distances.split", axis=1)
    cells = [np.stack(np.meshgrid(*[np.arange(size // s) + 0.5] * 2), 0).reshape(2, -1) for s in _STRIDES]
    anchors = net.constant("anchors", np.concatenate(cells, axis=1)[None].astype(np.float32))
    return net.op("Sub", [anchors, near], "low"), net.op("Add", [anchors, far], "high")
