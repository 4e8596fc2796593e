"""The demo detector: one scale, anchor-free, ReLU only, every channel count but the last a multiple of 16.

The 6x6 stem with stride 4 takes the place of two 3x3 layers: convolving three channels at full size costs an INT8
engine more than it gains from INT8.
"""

# Torch is an extra: where it is not installed, its types are unknown.
# mypy: allow-subclassing-any, allow-untyped-decorators, no-warn-return-any, no-warn-unused-ignores

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edged_calibration.demo.data import CLASSES

_STEM, _MIDDLE, _DEEP, _HEAD = 32, 64, 128, 96  # channels


class Layer(nn.Sequential):
    """Convolution, batch norm, ReLU; the ReLU can be left to the caller."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int | None = None, relu: bool = True
    ) -> None:
        padding = kernel // 2 if padding is None else padding
        layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)]
        layers.append(nn.BatchNorm2d(outputs))
        if relu:
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 at half the channels, and a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.body = nn.Sequential(Layer(channels, half, 1), Layer(half, half, 3), Layer(half, channels, 1, relu=False))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + x, inplace=True)


class Detector(nn.Module):
    """Pixels, normalised to (p - 128) / 128, [n, 3, 192, 320] -> class logits [n, 8, 24, 40], distances [n, 4, 24, 40].

    Distances run from the cell's centre to the left, top, right and bottom edge of the box, in cells.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(Layer(3, _STEM, 6, stride=4, padding=1), Bottleneck(_STEM))
        self.middle = nn.Sequential(Layer(_STEM, _MIDDLE, 3, stride=2), *(Bottleneck(_MIDDLE) for _ in range(3)))
        self.deep = nn.Sequential(Layer(_MIDDLE, _DEEP, 3, stride=2), *(Bottleneck(_DEEP) for _ in range(3)))
        self.reduce = Layer(_DEEP, _MIDDLE, 1)
        self.merge = Layer(2 * _MIDDLE, _HEAD, 1)
        self.cls = nn.Sequential(Layer(_HEAD, _HEAD, 3), nn.Conv2d(_HEAD, CLASSES, 1))
        self.box = nn.Sequential(Layer(_HEAD, _HEAD, 3), nn.Conv2d(_HEAD, 4, 1))
        for branch, bias in ((self.cls, -3.5), (self.box, 1.5)):  # few objects; boxes of about three cells
            last = branch[-1]
            assert isinstance(last, nn.Conv2d) and last.bias is not None
            nn.init.normal_(last.weight, std=0.01)
            nn.init.constant_(last.bias, bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        middle = self.middle(self.stem(x))
        deep = functional.interpolate(self.reduce(self.deep(middle)), scale_factor=2.0, mode="nearest")
        features = self.merge(torch.cat([middle, deep], dim=1))
        return self.cls(features), self.box(features)
