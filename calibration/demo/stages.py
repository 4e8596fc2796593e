"""The stages of building the demo model that need torch; each leaves its result in the work directory and resumes."""

# Torch is an extra: where it is not installed, its types are unknown.
# mypy: allow-subclassing-any, allow-untyped-decorators, no-warn-return-any, no-warn-unused-ignores

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calibration.demo.data import HEIGHT, WIDTH, calibration_images
from calibration.demo.export import PIXELS, export
from calibration.demo.model import Detector
from calibration.demo.train import BATCH_SIZE, train
from calibration.graph import Feed, Graph
from calibration.sparsify import is_2_4, prune

TRAINING_SEED, TUNING_SEED, WEIGHTS_SEED, PRUNING_SEED = 1, 2, 0, 0
TRAINING_RATE, TUNING_RATE = 2e-3, 1e-3
PRUNING_IMAGES = 64
_FEED_BATCH = 8

Progress = Callable[[int, float], None]
"""Called with (iterations done, loss)."""


@dataclass(frozen=True)
class Plan:
    """How long to train, and where the results are kept."""

    iterations: int
    tuning: int
    work: Path

    @property
    def pictures(self) -> int:
        """How many pictures each of the two models has been trained on."""
        return (self.iterations + self.tuning) * BATCH_SIZE


def trained(plan: Plan, progress: Progress) -> Detector:
    """The dense model after its main training."""
    torch.manual_seed(WEIGHTS_SEED)
    start = Detector()
    path = plan.work / f"base-{plan.iterations}.pt"
    return _kept(path, lambda: train(start, plan.iterations, TRAINING_RATE, TRAINING_SEED, progress=progress))


def tuned_dense(plan: Plan, base: Detector, progress: Progress) -> Detector:
    """The dense model after as much fine-tuning as the sparse one gets, so that the two compare."""
    path = plan.work / f"dense-{plan.iterations}-{plan.tuning}.pt"
    return _kept(path, lambda: train(base, plan.tuning, TUNING_RATE, TUNING_SEED, progress=progress))


def tuned_sparse(plan: Plan, base: Detector, masks: dict[str, Tensor], progress: Progress) -> Detector:
    """The model fine-tuned under the masks. Raises ValueError if a mask did not hold."""
    path = plan.work / f"sparse-{plan.iterations}-{plan.tuning}.pt"
    model = _kept(path, lambda: train(base, plan.tuning, TUNING_RATE, TUNING_SEED, masks, progress))
    for name in masks:
        if not is_2_4(model.get_parameter(name).detach().numpy(), axis=1):
            raise ValueError(f"{path}: {name} is not 2:4; delete the file and run again")
    return model


def pruning_masks(plan: Plan, base: Detector) -> dict[str, Tensor]:
    """Parameter name -> 0/1 mask, for every 3x3 convolution.

    The 1x1 layers stay dense: they lose the most accuracy, and sparse kernels gain the least on them.
    """
    path = plan.work / f"masks-{plan.iterations}.pt"
    if path.exists():
        loaded: dict[str, Tensor] = torch.load(path, weights_only=True)
        return loaded
    dense = export(base)
    convolutions = [node for node in dense.graph.node if node.op_type == "Conv"]
    parameters = _convolutions_in_order(base)
    constants = Graph(dense)
    chosen = {
        node.name: f"{parameter}.weight"
        for node, parameter in zip(convolutions, parameters, strict=True)
        if constants.array(node.input[1]).shape[2:] == (3, 3)
    }
    pruned = Graph(prune(dense, feeds(calibration_images(PRUNING_IMAGES)), chosen, seed=PRUNING_SEED))
    masks = {
        chosen[node.name]: torch.from_numpy((pruned.array(node.input[1]) != 0).astype(np.float32))
        for node in pruned.weighted()
        if node.name in chosen
    }
    _save(path, masks)
    return masks


def feeds(images: NDArray[np.uint8]) -> list[Feed]:
    """Batches of normalised pixels for the float graph, from pictures [n, height, width, 3]."""
    pixels = (images.astype(np.float32).transpose(0, 3, 1, 2) - 128) / 128
    return [{PIXELS: np.ascontiguousarray(pixels[i : i + _FEED_BATCH])} for i in range(0, len(pixels), _FEED_BATCH)]


def _convolutions_in_order(model: Detector) -> list[str]:
    """Names of the convolutions as they are run, which is how the exported graph lists them."""
    names = {module: name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    order: list[str] = []
    hooks = [module.register_forward_hook(lambda m, _i, _o: order.append(names[m])) for module in names]
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, HEIGHT, WIDTH))
    for hook in hooks:
        hook.remove()
    return order


def _kept(path: Path, make: Callable[[], Detector]) -> Detector:
    """The model stored at `path`; made and stored if it is not there yet."""
    if not path.exists():
        _save(path, make().state_dict())
    model = Detector()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


def _save(path: Path, value: object) -> None:
    """Write by renaming, so that an interrupted run leaves no half file."""
    partial = path.with_suffix(".partial")
    torch.save(value, partial)
    os.replace(partial, path)
