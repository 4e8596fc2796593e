"""What a layer of a pruned model is given, beside what the dense layer is given, and the weights that make up for it.

In: the inputs of one layer in both models, batch by batch. Out: second moments, and the dense weights that come nearest
to the dense layer's output from the inputs of the pruned model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edged_calibration.sparsity.obs import input_rows

_RIDGE = 0.05  # of the mean diagonal: the fewer rows a wide layer has, the more its target would fit their noise


def dense_target(matrix: NDArray[Any], second: NDArray[np.float32], cross: NDArray[np.float32]) -> NDArray[np.float64]:
    """The dense weights T that come nearest to W x from the inputs y of the pruned model: with y = x they are W.

    T = W + W E[(x - y) y^T] E[y y^T]^-1, the least-squares solution, with a ridge that draws it to W.
    """
    damped = second.astype(np.float64)
    damped[np.diag_indices_from(damped)] += max(_RIDGE * float(np.diagonal(second).mean()), 1e-12)
    change = np.linalg.solve(damped, cross.T.astype(np.float64) @ matrix.T.astype(np.float64))
    return np.asarray(matrix.astype(np.float64) + change.T)


@dataclass(frozen=True)
class Moments:
    """Of the rows that a layer's weights are multiplied with: x in the dense model, y in the pruned one."""

    second: NDArray[np.float32]
    """E[y y^T]"""
    cross: NDArray[np.float32]
    """E[(x - y) y^T]"""
    mean: NDArray[np.float32]
    """E[y]"""
    dense_mean: NDArray[np.float32]
    """E[x]"""

    @property
    def centred(self) -> NDArray[np.float32]:
        return self.second - np.outer(self.mean, self.mean)

    @property
    def centred_cross(self) -> NDArray[np.float32]:
        return self.cross - np.outer(self.dense_mean - self.mean, self.mean)


def moments_of(
    node: onnx.NodeProto,
    shape: tuple[int, ...],
    dense: Sequence[NDArray[Any]],
    sparse: Sequence[NDArray[Any]],
    rows: int,
    rng: np.random.Generator,
) -> Moments:
    """From about `rows` rows in all, at the same places in both models."""
    frames = sum(len(batch) for batch in sparse)
    sums: list[NDArray[np.float32]] = []
    count = 0
    for first, second in zip(dense, sparse, strict=True):
        wanted, seed = max(rows * len(second) // frames, 1), int(rng.integers(1 << 32))
        x, y = (input_rows(node, shape, batch, wanted, np.random.default_rng(seed)) for batch in (first, second))
        found = [y.T @ y, (x - y).T @ y, y.sum(axis=0), x.sum(axis=0)]
        sums = [total + part for total, part in zip(sums, found, strict=True)] if sums else found
        count += len(y)
    return Moments(*(np.asarray(total / np.float32(count), np.float32) for total in sums))
