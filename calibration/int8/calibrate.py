"""The range of every activation that INT8 has to represent, from histograms of what the float model computes.

In: a float ONNX model and calibration batches, one at a time. Out: a `Histogram` per tensor, of fixed size however many
frames there are, and from it a `Range` by any of the methods:

- `max`: everything that was seen;
- `percentile`: all but a given share of the largest magnitudes;
- `entropy`: the clipping after which the 8-bit distribution tells most about the original one;
- `mse`: the clipping that costs the least squared error.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from edged.errors import UsageError
from edged_calibration.graph.index import Feed, Tap
from edged_calibration.progress import Advance, silent

Method = Literal["max", "percentile", "entropy", "mse"]
METHODS: Final[tuple[Method, ...]] = ("max", "percentile", "entropy", "mse")

BINS: Final = 2048
_LEVELS = 128  # magnitudes that a symmetric int8 can tell apart
_CANDIDATES = 96  # thresholds tried by "entropy" and "mse"


@dataclass(frozen=True)
class Range:
    """The values of a tensor that INT8 has to represent; what lies outside is clipped."""

    low: float
    high: float


class Histogram:
    """Of the magnitudes of a tensor; its span doubles when a larger value comes."""

    def __init__(self) -> None:
        self.low, self.high, self.span = 0.0, 0.0, 0.0
        self.counts = np.zeros(BINS, np.int64)

    def add(self, values: NDArray[Any]) -> None:
        """Count the values of one batch, which must be finite."""
        low, high = float(values.min()), float(values.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        largest = max(-low, high)
        self.span = self.span or largest
        while largest > self.span:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(axis=1), np.zeros(BINS // 2, np.int64)])
            self.span *= 2
        if self.span:
            scaled = values.ravel() * np.float32(BINS / self.span)
            if low < 0:
                np.abs(scaled, out=scaled)
            bins = np.minimum(scaled, BINS - 1, out=scaled).astype(np.int16)
            self.counts += np.bincount(bins, minlength=BINS)

    def range(self, method: Method = "max", percentile: float = 99.999) -> Range:
        """What of the values to represent."""
        if method == "max" or not self.span:
            return Range(self.low, self.high)
        choose = {"percentile": self._percentile, "entropy": self._entropy, "mse": self._least_squares}
        threshold = float(choose[method](percentile))
        return Range(max(self.low, -threshold), min(self.high, threshold))

    def _percentile(self, percentile: float) -> float:
        """The edge of the bin in which the percentile lies. Zeros, most of what a ReLU gives, are not counted."""
        counts = self.counts.copy()
        counts[0] = 0
        total = np.cumsum(counts)
        bin_ = int(np.searchsorted(total, total[-1] * percentile / 100)) if total[-1] else 0
        return (min(bin_, BINS - 1) + 1) * self.span / BINS

    def _entropy(self, _percentile: float) -> float:
        """The threshold with the least Kullback-Leibler divergence of the clipped and rounded from the clipped values.

        The first bin is left out: after a ReLU it holds nearly everything, and any coarse grid represents it.
        """
        counts = self.counts.astype(np.float64)
        counts[0] = 0
        best, threshold = np.inf, self.span
        for bins in np.linspace(_LEVELS, BINS, _CANDIDATES).astype(int):
            clipped = counts[:bins].copy()
            clipped[-1] += counts[bins:].sum()
            if not clipped.any():
                continue
            level = np.arange(bins) * _LEVELS // bins
            held = counts[:bins] > 0
            mass, members = (np.bincount(level, weights, _LEVELS) for weights in (counts[:bins], held))
            spread = np.where(held, (mass / np.maximum(members, 1))[level], 0)
            divergence = _divergence(clipped, spread)
            if divergence < best:
                best, threshold = divergence, bins * self.span / BINS
        return threshold

    def _least_squares(self, _percentile: float) -> float:
        values = (np.arange(BINS) + 0.5) * (self.span / BINS)
        best, threshold = np.inf, self.span
        for candidate in np.linspace(self.span / 16, self.span, _CANDIDATES):
            step = candidate / (_LEVELS - 1)
            rounded = np.minimum(np.rint(values / step), _LEVELS - 1) * step
            error = float((self.counts * (rounded - values) ** 2).sum())
            if error < best:
                best, threshold = error, float(candidate)
        return threshold


def _divergence(wanted: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """Kullback-Leibler; a bin that has lost all its mass counts as one of very little."""
    p, q = wanted / wanted.sum(), found / max(found.sum(), 1)
    held = p > 0
    return float((p[held] * np.log(p[held] / np.maximum(q[held], 1e-12))).sum())


def collect(
    model: onnx.ModelProto, feeds: Sequence[Feed], tensors: Collection[str], progress: Advance = silent
) -> dict[str, Histogram]:
    """Run the float model on the feeds and count the values of the tensors. UsageError if one is not finite."""
    tap = Tap(model, tensors)
    histograms: dict[str, Histogram] = {}
    for done, feed in enumerate(feeds, start=1):
        for name, value in tap(feed).items():
            # the sum of finite values may overflow to infinity; so look twice before saying so
            if not np.isfinite(value.sum(dtype=np.float64)) and not np.isfinite(value).all():
                raise UsageError(
                    f"the float model computes values that are not finite (NaN or infinity): {name}",
                    "check [input] mean and std of the recipe, and the model itself on these frames",
                )
            histograms.setdefault(name, Histogram()).add(value)
        progress(done, len(feeds))
    return histograms


def ranges(histograms: Mapping[str, Histogram], method: Method = "max", percentile: float = 99.999) -> dict[str, Range]:
    """The range of every calibrated tensor."""
    return {name: histogram.range(method, percentile) for name, histogram in histograms.items()}
