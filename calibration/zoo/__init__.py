"""Public architectures with generated weights: what the passes are proven on without any download.

The weights are drawn, not learned, but every layer's outputs are as a trained network's with its batch norms folded:
each channel has its own mean and spread, neither vanishing nor exploding with depth. Deterministic for a seed.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx

from edged.errors import UsageError
from edged_calibration.zoo.mobilenet import mobilenet_v2
from edged_calibration.zoo.resnet import resnet_50
from edged_calibration.zoo.vit import vit_tiny
from edged_calibration.zoo.yolo import yolo_nano

_MODELS: dict[str, tuple[Callable[[int, int], onnx.ModelProto], int]] = {  # and what the input's size is a multiple of
    "mobilenet-v2": (mobilenet_v2, 32),
    "resnet-50": (resnet_50, 32),
    "yolo-nano": (yolo_nano, 32),
    "vit-tiny": (vit_tiny, 16),
}
NAMES: tuple[str, ...] = tuple(_MODELS)


def build(name: str, size: int, seed: int = 0) -> onnx.ModelProto:
    """A float model, opset 17, from `pixels` [N, 3, size, size] to `logits`, or to `predictions` for the detector."""
    if name not in _MODELS:
        raise UsageError(f"there is no generated model {name!r}", f"choose one of {', '.join(NAMES)}")
    make, multiple = _MODELS[name]
    if size < multiple or size % multiple:
        raise UsageError(f"{name} takes no pictures of size {size}", f"choose a multiple of {multiple}, such as 224")
    return make(size, seed)
