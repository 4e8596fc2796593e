"""A short fine-tuning of a pruned model that keeps its zeros: it learns to answer as the dense one does.

No labels are needed, only representative frames: the dense model is the teacher. In: both models, batches. Out: the
pruned model with better weights, or as it was if the batches that were held back do not say that it got better. Needs
PyTorch (extra `edged[train]`).
"""

# Torch is an extra: where it is not installed, its types are unknown.
# mypy: allow-untyped-calls, allow-untyped-decorators, no-warn-unused-ignores

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx
import torch
from msgspec import Struct
from onnx import numpy_helper
from torch import Tensor

from edged.errors import UsageError
from edged_calibration.graph.index import Feed, Graph, copy_of, session
from edged_calibration.progress import Advance, silent
from edged_calibration.sparsity.pattern import sparse_layers
from edged_calibration.sparsity.torch_module import OnnxModule

_HELD_BACK = 0.25  # share of the batches that judge, and are not learned from
_WARM_UP = 0.1  # share of the steps
_LEAST_BATCHES = 2


class FineTuneReport(Struct, frozen=True):
    """Error on the batches held back, relative to the spread of the teacher's answers, before and after."""

    steps: int
    before: float
    after: float


def finetune(
    dense: onnx.ModelProto,
    sparse: onnx.ModelProto,
    feeds: Sequence[Feed],
    steps: int = 200,
    rate: float = 1e-4,
    seed: int = 0,
    progress: Advance = silent,
) -> tuple[onnx.ModelProto, FineTuneReport]:
    """Teach the sparse model for `steps` batches; every weight that is zero in a sparse layer stays zero."""
    if len(feeds) < _LEAST_BATCHES:
        raise UsageError(f"fine-tuning needs {_LEAST_BATCHES} batches of frames, not {len(feeds)}", "give more frames")
    torch.manual_seed(seed)
    student = OnnxModule(sparse)
    lessons = _lessons(dense, feeds)
    held = max(int(len(lessons) * _HELD_BACK), 1)
    learned, judges = lessons[:-held], lessons[-held:]
    masks = {name: (student.trained[name] != 0).float() for name, kept in sparse_layers(sparse).items() if kept}
    before = _error(student, judges)
    optimizer = torch.optim.Adam(student.parameters(), lr=rate)
    order = np.random.default_rng(seed)
    for step in range(steps):
        done = step / steps
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / (steps * _WARM_UP)) * 0.5 * (1 + math.cos(math.pi * done))
        feed, wanted = learned[order.integers(len(learned))]
        loss = _loss(student(feed), wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for name, mask in masks.items():
                student.trained[name].mul_(mask)
        progress(step + 1, steps)
    after = _error(student, judges)
    report = FineTuneReport(steps, round(before, 5), round(min(before, after), 5))
    return (_written(sparse, student) if after < before else copy_of(sparse)), report


_Lesson = tuple[dict[str, Tensor], dict[str, Tensor]]


def _lessons(dense: onnx.ModelProto, feeds: Sequence[Feed]) -> list[_Lesson]:
    """Inputs, and what the teacher answers."""
    teacher = session(dense)
    names = [value.name for value in dense.graph.output]
    found = []
    for feed in feeds:
        inputs = {name: torch.from_numpy(np.array(value, np.float32)) for name, value in feed.items()}
        answers = teacher.run(names, dict(feed))
        found.append((inputs, {name: torch.from_numpy(value) for name, value in zip(names, answers, strict=True)}))
    return found


def _loss(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> Tensor:
    """Squared error of every output over the variance of the teacher's."""
    parts = [((found[name] - want) ** 2).mean() / want.var().clamp(min=1e-12) for name, want in wanted.items()]
    return torch.stack(parts).mean()


@torch.no_grad()
def _error(student: OnnxModule, lessons: Sequence[_Lesson]) -> float:
    return float(np.mean([float(_loss(student(feed), wanted)) for feed, wanted in lessons]))


def _written(model: onnx.ModelProto, student: OnnxModule) -> onnx.ModelProto:
    result = copy_of(model)
    constants = Graph(result).constants
    for name, value in student.trained.items():
        constants[name].CopyFrom(numpy_helper.from_array(value.detach().numpy(), name))
    return result
