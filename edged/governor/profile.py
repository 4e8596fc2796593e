"""What a variant's profile says: its warm latencies in, what the governor computes with out. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from edged.governor.estimators.latency import plausible_ms
from edged.governor.fast_replace import replace
from edged.governor.messages import Variant

BATCH_GAIN: Final = 0.95
"""A larger batch is offered only if it takes at most this share of the time per frame."""
MAX_BATCH: Final = 64


def accuracy_of(variant: Variant) -> float | None:
    """None unless it is a number."""
    return variant.accuracy if variant.accuracy is not None and math.isfinite(variant.accuracy) else None


def checked(variant: Variant) -> Variant:
    """With an accuracy and latencies that are numbers; the batches from the first nonsense on are unknown."""
    known = []
    for ms in variant.latency_ms[:MAX_BATCH]:
        if not plausible_ms(ms):
            break
        known.append(ms)
    slope = variant.accuracy_slope if 0 <= variant.accuracy_slope <= 1 else 0.0
    return replace(variant, accuracy=accuracy_of(variant), latency_ms=tuple(known), accuracy_slope=slope)


def rank(variant: Variant) -> tuple[float, float, str]:
    """Sorts the most accurate first, then the fastest; unknown comes last."""
    accuracy = -1.0 if variant.accuracy is None else variant.accuracy
    return -accuracy, variant.latency_ms[0] if variant.latency_ms else math.inf, variant.name


def costs_of(variants: Sequence[Variant], cameras: int) -> tuple[tuple[float, float, float] | None, ...]:
    """Warm milliseconds of each variant, None where unknown: one frame; one frame of every camera, in the best batches;
    per frame at best."""
    costs: list[tuple[float, float, float] | None] = []
    for variant in variants:
        warm = variant.latency_ms
        if not warm:
            costs.append(None)
            continue
        bursts = []
        for k, ms in enumerate(warm, start=1):
            full, rest = divmod(cameras, k)
            bursts.append(full * ms + (warm[rest - 1] if rest else 0.0))
        costs.append((warm[0], min(bursts), min(ms / k for k, ms in enumerate(warm, start=1))))
    return tuple(costs)


def best_batch(variant: Variant) -> int:
    """The largest batch worth its while: on a CPU, where it gives nothing, 1."""
    best, best_ms = 1, variant.latency_ms[0] if variant.latency_ms else math.inf
    for k, ms in enumerate(variant.latency_ms, start=1):
        if ms / k <= BATCH_GAIN * best_ms:
            best, best_ms = k, ms / k
    return best
