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

from edged_calibration.demo.data import HEIGHT, WIDTH, calibration_images
from edged_calibration.demo.export import PIXELS, export
from edged_calibration.demo.model import Detector
from edged_calibration.demo.train import train
from edged_calibration.graph.index import Feed, Graph
from edged_calibration.sparsity.apply import is_2_4, prune

TRAINING_SEED, SETTLING_SEED, TUNING_SEED, RECOVERY_SEED = 1, 2, 3, 4  # no picture comes twice
WEIGHTS_SEED, PRUNING_SEED = 0, 0
TRAINING_RATE, SETTLING_RATE, TUNING_RATE = 2e-3, 1e-3, 1e-3
PRUNING_IMAGES = 64
_FEED_BATCH = 8

Progress = Callable[[int, float], None]
"""Called with (iterations done, loss)."""


@dataclass(frozen=True)
class Plan:
    """How many batches each stage sees, and where the results are kept.

    The dense model is trained and settles; then it goes on, and its pruned copy with it, on the same pictures, so that
    the copy is behind by what sparsity costs and by nothing else. Part of that it makes up in its recovery.
    """

    training: int
    settling: int
    tuning: int
    recovery: int
    work: Path

    def path(self, name: str, *stages: int) -> Path:
        """Where a result lies: its name holds the lengths of the stages that it came through."""
        return self.work / f"{'-'.join([name, *map(str, stages)])}.pt"


def trained(plan: Plan, progress: Progress) -> Detector:
    """The dense model after its main training."""
    torch.manual_seed(WEIGHTS_SEED)
    start = Detector()
    path = plan.path("base", plan.training)
    return _kept(path, lambda: train(start, plan.training, TRAINING_RATE, TRAINING_SEED, progress=progress))


def settled(plan: Plan, base: Detector, progress: Progress) -> Detector:
    """The dense model that is pruned: half the rate, once more from its start to nothing."""
    path = plan.path("settled", plan.training, plan.settling)
    return _kept(path, lambda: train(base, plan.settling, SETTLING_RATE, SETTLING_SEED, progress=progress))


def tuned_dense(plan: Plan, model: Detector, progress: Progress) -> Detector:
    """The dense model after as much tuning as the sparse one gets."""
    path = plan.path("dense", plan.training, plan.settling, plan.tuning)
    return _kept(path, lambda: train(model, plan.tuning, TUNING_RATE, TUNING_SEED, progress=progress))


def tuned_sparse(plan: Plan, model: Detector, masks: dict[str, Tensor], progress: Progress) -> Detector:
    """The model tuned under the masks."""
    path = plan.path("sparse", plan.training, plan.settling, plan.tuning)
    return _kept(path, lambda: train(model, plan.tuning, TUNING_RATE, TUNING_SEED, masks, progress))


def recovered(plan: Plan, model: Detector, masks: dict[str, Tensor], progress: Progress) -> Detector:
    """The sparse model, tuned once more by itself. Raises ValueError if a mask did not hold."""
    path = plan.path("recovered", plan.training, plan.settling, plan.tuning, plan.recovery)
    result = _kept(path, lambda: train(model, plan.recovery, TUNING_RATE, RECOVERY_SEED, masks, progress))
    for name in masks:
        if not is_2_4(result.get_parameter(name).detach().numpy(), axis=1):
            raise ValueError(f"{path}: {name} is not 2:4; delete the file and run again")
    return result


def pruning_masks(plan: Plan, model: Detector) -> dict[str, Tensor]:
    """Parameter name -> 0/1 mask, for every 3x3 convolution.

    The 1x1 layers stay dense: they lose the most accuracy, and sparse kernels gain the least on them.
    """
    path = plan.path("masks", plan.training, plan.settling)
    if path.exists():
        loaded: dict[str, Tensor] = torch.load(path, weights_only=True)
        return loaded
    dense = export(model)
    convolutions = [node for node in dense.graph.node if node.op_type == "Conv"]
    parameters = _convolutions_in_order(model)
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
    """The model stored at `path`; created and stored if it does not exist."""
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
