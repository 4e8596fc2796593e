"""Training of the demo detector: deterministic for a seed, one torch thread, one process that renders ahead."""

# Torch is an extra: where it is not installed, its types are unknown.
# mypy: allow-subclassing-any, allow-untyped-decorators, allow-untyped-calls, no-warn-return-any, no-warn-unused-ignores

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from edged_calibration.demo.data import batches
from edged_calibration.demo.model import Detector

BATCH_SIZE = 32
_WEIGHT_DECAY = 0.02
_WARM_UP = 0.05  # share of the iterations
_CLIP_NORM = 5.0
_AVERAGE = 0.998  # decay of the moving average of the weights, which is the model that counts

_Tensors = tuple[Tensor, Tensor, Tensor, Tensor]


class _Stream(IterableDataset[_Tensors]):
    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __iter__(self) -> Iterator[_Tensors]:
        torch.set_num_threads(1)
        for batch in batches(self.seed, BATCH_SIZE):
            arrays = (batch.images, batch.heat, batch.distances, batch.positive)
            images, heat, distances, positive = (torch.from_numpy(array) for array in arrays)
            yield images, heat, distances, positive


def classification_loss(logits: Tensor, heat: Tensor) -> Tensor:
    """Focal loss on a Gaussian heat map, per object."""
    score, centre = logits.sigmoid(), heat.eq(1).float()
    found = centre * (1 - score) ** 2 * functional.logsigmoid(logits)
    empty = (1 - centre) * (1 - heat) ** 4 * score**2 * functional.logsigmoid(-logits)
    return -(found + empty).sum() / centre.sum().clamp(min=1)


def box_loss(predicted: Tensor, wanted: Tensor, positive: Tensor) -> Tensor:
    """2 * (1 - generalised IoU) + 0.5 * smooth L1 of the distances, mean over the positive cells."""
    if not positive.any():
        return predicted.sum() * 0
    distances, target = (t.permute(0, 2, 3, 1)[positive] for t in (predicted, wanted))
    clamped = distances.clamp(min=0.05)
    low, high = torch.minimum(clamped, target), torch.maximum(clamped, target)
    overlap = (low[:, 0] + low[:, 2]).clamp(min=0) * (low[:, 1] + low[:, 3]).clamp(min=0)
    hull = (high[:, 0] + high[:, 2]) * (high[:, 1] + high[:, 3])
    areas = [(d[:, 0] + d[:, 2]) * (d[:, 1] + d[:, 3]) for d in (clamped, target)]
    union = (areas[0] + areas[1] - overlap).clamp(min=1e-6)
    giou = overlap / union - (hull - union) / hull.clamp(min=1e-6)
    return 2 * (1 - giou).mean() + 0.5 * functional.smooth_l1_loss(distances, target, beta=0.3)


def train(
    model: Detector,
    iterations: int,
    learning_rate: float,
    seed: int,
    masks: dict[str, Tensor] | None = None,
    progress: Callable[[int, float], None] = lambda iteration, loss: None,
) -> Detector:
    """Train a copy of the model for `iterations` batches and return its averaged weights.

    Weights named in `masks` keep their zeros: the mask is applied after every step.
    """
    torch.set_num_threads(1)
    model = copy.deepcopy(model).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    masked = [(model.get_parameter(name), mask) for name, mask in (masks or {}).items()]
    _apply(masked)
    average = copy.deepcopy(model).eval()
    optimizer = _optimizer(model, learning_rate)
    loader = DataLoader(_Stream(seed), batch_size=None, num_workers=1, prefetch_factor=4)
    for iteration, (images, heat, distances, positive) in zip(range(iterations), loader, strict=False):
        done = iteration / iterations
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1, done / _WARM_UP) * (0.5 * (1 + math.cos(math.pi * done)) + 0.005)
        pixels = ((images.permute(0, 3, 1, 2).float() - 128) / 128).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits, predicted = model(pixels)
        loss = classification_loss(logits.float(), heat) + box_loss(predicted.float(), distances, positive)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), _CLIP_NORM)
        optimizer.step()
        _apply(masked)
        _update_average(average, model, min(_AVERAGE, (2 + iteration) / (11 + iteration)))
        progress(iteration + 1, loss.item())
    return average


def _optimizer(model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": _WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate)


@torch.no_grad()
def _apply(masked: list[tuple[nn.Parameter, Tensor]]) -> None:
    for parameter, mask in masked:
        parameter.mul_(mask)


@torch.no_grad()
def _update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    for kept, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if kept.dtype.is_floating_point:
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)
