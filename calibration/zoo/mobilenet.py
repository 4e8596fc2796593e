"""MobileNetV2 1.0: inverted residuals of depthwise convolutions between linear bottlenecks. 3.5 M parameters."""

from __future__ import annotations

import onnx

from edged_calibration.zoo.writer import INPUT, BatchNorm, Writer

_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Of each stage: expansion, output channels, blocks, stride of the first."""


def mobilenet_v2(size: int, seed: int = 0, classes: int = 1000) -> onnx.ModelProto:
    """`pixels` [N, 3, size, size] -> `logits` [N, classes]."""
    net = Writer(size, seed)
    x = net.conv(INPUT, 32, 3, "stem", stride=2, act="relu6")
    for stage, (expansion, outputs, blocks, first_stride) in enumerate(_STAGES):
        for block in range(blocks):
            x = _block(net, x, f"s{stage}b{block}", expansion, outputs, first_stride if block == 0 else 1)
    x = net.conv(x, 1280, 1, "last", act="relu6")
    x = net.op("Flatten", [net.op("GlobalAveragePool", [x], "pool")], "flatten", axis=1)
    return net.model(net.classifier(x, classes), "logits")


def _block(net: Writer, source: str, name: str, expansion: int, outputs: int, stride: int) -> str:
    inputs = net.value(source).shape[1]
    hidden = inputs * expansion
    x = source if expansion == 1 else net.conv(source, hidden, 1, f"{name}.expand", act="relu6")
    x = net.conv(x, hidden, 3, f"{name}.depthwise", stride=stride, groups=hidden, act="relu6")
    residual = stride == 1 and inputs == outputs
    x = net.conv(x, outputs, 1, f"{name}.project", norm=BatchNorm(0.5 if residual else 1.0))
    return net.op("Add", [source, x], f"{name}.add") if residual else x
