"""The profile as the governor computes with it: variants, clocks, and the options of each choice. Pure.

An option is a variant and how many of the waiting frames go as one batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edged.governor.messages import Device, Variant
from edged.governor.profile import assumed_active_w, assumed_times, best_batch

Array = NDArray[np.float64]

PLACEHOLDER_MS: Final = 1000.0  # latency of a variant of which nothing is known; it may not run until something is
UNKNOWN_ACCURACY: Final = 0.0


class Option(NamedTuple):
    """`times`: its service time as a multiple of a single frame's."""

    variant: int
    frames: int
    times: float
    log_times: float


@dataclass(frozen=True)
class Tables:
    """By variant, then by clock. `nominal_j`: of a single frame above idle. `assumed`: whether the watts are a guess.
    `times`: service time of a batch of 1, 2, ... as a multiple of a single frame's. `offers`: by the number of frames
    that wait (from 0), the options there are then, grouped by variant. `dominated_by`: those that are at least as good
    in accuracy, time and energy, and better in one. `batched`: some variant gains by batches. `max_batch`: the largest
    worthwhile one."""

    names: tuple[str, ...]
    accuracy: tuple[float, ...]
    latency_s: Array
    active_w: Array
    idle_w: Array
    assumed: tuple[bool, ...]
    nominal_s: tuple[tuple[float, ...], ...]
    nominal_j: tuple[tuple[float, ...], ...]
    times: tuple[tuple[float, ...], ...]
    offers: tuple[tuple[Option, ...], ...]
    dominated_by: tuple[tuple[int, ...], ...]
    batched: bool
    max_batch: int
    device: Device

    def __deepcopy__(self, memo: dict[int, Any]) -> Tables:
        return self

    @property
    def clocks(self) -> int:
        return len(self.idle_w)

    @property
    def cameras(self) -> int:
        return len(self.offers) - 1

    def index(self, name: str) -> int | None:
        return self.names.index(name) if name in self.names else None

    def stretch(self, variant: int, clock: int) -> float:
        """How much longer it takes than at the highest clock."""
        return self.nominal_s[variant][clock] / self.nominal_s[variant][-1]

    def batch_times(self, variant: int, batch: int) -> float:
        """Service time of a batch as a multiple of a single frame's."""
        times = self.times[variant]
        return times[batch - 1] if batch <= len(times) else times[-1] * batch / len(times)


def tables(variants: Sequence[Variant], device: Device, cameras: int) -> Tables:
    """`variants` have latencies that are numbers (`profile.checked`), or none."""
    clocks = len(device.idle_w)
    guess, guess_w = assumed_times(device), assumed_active_w(device) if device.assumed else [0.0]
    latency_s = np.array(
        [[_first_ms(v) / 1000 * f for f in _by_clock(v.clock_factor or guess, clocks, 1.0)] for v in variants]
    )
    active_w = np.array([_by_clock(v.active_w or guess_w, clocks, 0.0) for v in variants])
    times = tuple(tuple(ms / v.latency_ms[0] for ms in v.latency_ms) or (1.0,) for v in variants)
    return Tables(
        names=tuple(v.name for v in variants),
        accuracy=tuple(UNKNOWN_ACCURACY if v.accuracy is None else v.accuracy for v in variants),
        latency_s=latency_s,
        active_w=active_w,
        idle_w=np.array(device.idle_w, float),
        assumed=tuple(device.assumed and not v.active_w for v in variants),
        nominal_s=tuple(map(tuple, latency_s.tolist())),
        nominal_j=tuple(map(tuple, (active_w * latency_s).tolist())),
        times=times,
        offers=tuple(_offered(times, waiting) for waiting in range(cameras + 1)),
        dominated_by=_dominated(variants, active_w * latency_s),
        batched=any(best_batch(v) > 1 for v in variants),
        max_batch=max(best_batch(v) for v in variants),
        device=device,
    )


def _offered(times: Sequence[tuple[float, ...]], waiting: int) -> tuple[Option, ...]:
    """Batches of one, of half, of three quarters and of all that wait, where a batch is sooner than one by one."""
    found = []
    for variant, known in enumerate(times):
        most = min(waiting, len(known))
        for frames in sorted({1, most // 2, 3 * most // 4, most} - {0}) if waiting else ():
            if frames == 1 or known[frames - 1] < frames:
                found.append(Option(variant, frames, known[frames - 1], math.log(known[frames - 1])))
    return tuple(found)


def _dominated(variants: Sequence[Variant], joules: Array) -> tuple[tuple[int, ...], ...]:
    def at_least_as_good(i: int, j: int) -> bool:
        a, b = variants[i], variants[j]
        if a.accuracy is None or b.accuracy is None or not a.latency_ms or not b.latency_ms:
            return False
        batches = min(len(a.latency_ms), len(b.latency_ms))
        faster = all(x <= y for x, y in zip(a.latency_ms[:batches], b.latency_ms[:batches], strict=True))
        return a.accuracy >= b.accuracy and faster and bool((joules[i] <= joules[j]).all())

    n = range(len(variants))
    return tuple(tuple(i for i in n if i != j and at_least_as_good(i, j) and not at_least_as_good(j, i)) for j in n)


def _first_ms(variant: Variant) -> float:
    return variant.latency_ms[0] if variant.latency_ms else PLACEHOLDER_MS


def _by_clock(values: Sequence[float], clocks: int, absent: float) -> list[float]:
    """One value per clock; a profile that has fewer holds its last for the others."""
    good = [x for x in values if math.isfinite(x) and x >= 0] or [absent]
    return [good[min(i, len(good) - 1)] for i in range(clocks)]
