"""ResNet-50: bottlenecks with residual additions. 25.6 M parameters."""

from __future__ import annotations

import onnx

from edged_calibration.zoo.writer import INPUT, BatchNorm, Writer

_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""Of each stage: width, blocks, stride of the first."""


def resnet_50(size: int, seed: int = 0, classes: int = 1000) -> onnx.ModelProto:
    """`pixels` [N, 3, size, size] -> `logits` [N, classes]."""
    net = Writer(size, seed)
    x = net.conv(INPUT, 64, 7, "stem", stride=2, act="relu")
    x = net.op("MaxPool", [x], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for stage, (width, blocks, first_stride) in enumerate(_STAGES):
        for block in range(blocks):
            x = _bottleneck(net, x, f"s{stage}b{block}", width, first_stride if block == 0 else 1)
    x = net.op("Flatten", [net.op("GlobalAveragePool", [x], "average")], "flatten", axis=1)
    return net.model(net.classifier(x, classes), "logits")


def _bottleneck(net: Writer, source: str, name: str, width: int, stride: int) -> str:
    x = net.conv(source, width, 1, f"{name}.reduce", act="relu")
    x = net.conv(x, width, 3, f"{name}.middle", stride=stride, act="relu")
    x = net.conv(x, width * 4, 1, f"{name}.expand", norm=BatchNorm(0.5))
    if net.value(source).shape[1] != width * 4:
        source = net.conv(source, width * 4, 1, f"{name}.shortcut", stride=stride)
    return net.activation(net.op("Add", [x, source], f"{name}.add"), "relu", f"{name}.relu")
