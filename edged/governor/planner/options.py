"""The profile as the economy computes with it: variants, clocks and the options among which each choice is made. Pure.

An option is a variant, how many of the waiting frames, and whether they go as one batch or one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edged.governor.device import ASSUMED_ACTIVE_SHARE
from edged.governor.messages import TYPICAL, Device, Variant
from edged.governor.profile import best_batch

Array = NDArray[np.float64]

PLACEHOLDER_MS: Final = 1000.0
"""Latency of a variant of which nothing is known; it may not run until something is."""
UNKNOWN_ACCURACY: Final = 0.0


class Option(NamedTuple):
    """`times`: its busy time as a multiple of a single frame's."""

    variant: int
    frames: int
    batch: int
    times: float


@dataclass(frozen=True)
class Tables:
    """Arrays and tuples go by variant, then by clock. `easy` and `slope`: accuracy at difficulty d is easy - slope * d.
    `core`: index of what the variant runs on. `nominal_j`: of a single frame above idle. `assumed`: by variant, whether
    its watts are a guess. `offers`: by the number of frames that wait (from 0), the indices of the options there are
    then. `batched`: a variant gains by batches."""

    names: tuple[str, ...]
    latency_s: Array
    active_w: Array
    idle_w: Array
    assumed: tuple[bool, ...]
    easy: tuple[float, ...]
    slope: tuple[float, ...]
    core: tuple[int, ...]
    cores: int
    nominal_j: tuple[tuple[float, ...], ...]
    options: tuple[Option, ...]
    log_times: tuple[float, ...]
    offers: tuple[tuple[int, ...], ...]
    batched: bool
    device: Device

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
        if clock == self.clocks - 1:
            return 1.0
        return float(self.latency_s[variant, clock] / self.latency_s[variant, -1])

    def times(self, variant: int, frames: int, batch: int) -> float:
        """Busy time of `frames` in batches of `batch`, as a multiple of a single frame's."""
        if batch <= 1:
            return float(frames)
        for option in self.options:
            if option.variant == variant and option.frames == batch and option.batch == batch:
                return option.times * max(1, frames // batch)
        return float(batch) * max(1, frames // batch)


def tables(variants: Sequence[Variant], device: Device, cameras: int) -> Tables:
    """`variants` have latencies that are numbers (`profile.checked`), or none."""
    clocks = len(device.idle_w)
    options: list[Option] = []
    offers: list[tuple[int, ...]] = [()]
    at: dict[tuple[int, int], int] = {}
    for waiting in range(1, cameras + 1):
        offered = []
        for i, variant in enumerate(variants):
            for frames in sorted({1, waiting // 2, 3 * waiting // 4, waiting} - {0}):
                if (i, frames) not in at:
                    at[i, frames] = len(options)
                    options.append(_option(i, variant, frames))
                offered.append(at[i, frames])
        offers.append(tuple(offered))
    latency_s = np.array([[_first_ms(v) / 1000 * f for f in _by_clock(v.clock_factor, clocks, 1.0)] for v in variants])
    cores = sorted({v.core for v in variants}, key=lambda core: (core != "gpu", core))
    guess_w = ASSUMED_ACTIVE_SHARE * max(device.idle_w) if device.assumed else 0.0
    active_w = np.array([_by_clock(v.active_w, clocks, guess_w) for v in variants])
    return Tables(
        names=tuple(v.name for v in variants),
        latency_s=latency_s,
        active_w=active_w,
        idle_w=np.array(device.idle_w, float),
        assumed=tuple(device.assumed and not v.active_w for v in variants),
        easy=tuple((v.accuracy or UNKNOWN_ACCURACY) + v.accuracy_slope * TYPICAL for v in variants),
        slope=tuple(v.accuracy_slope for v in variants),
        core=tuple(cores.index(v.core) for v in variants),
        cores=len(cores),
        nominal_j=tuple(tuple(joules) for joules in (active_w * latency_s).tolist()),
        options=tuple(options),
        log_times=tuple(math.log(option.times) for option in options),
        offers=tuple(offers),
        batched=any(best_batch(v) > 1 for v in variants),
        device=device,
    )


def _first_ms(variant: Variant) -> float:
    return variant.latency_ms[0] if variant.latency_ms else PLACEHOLDER_MS


def _by_clock(values: tuple[float, ...], clocks: int, absent: float) -> list[float]:
    """One value per clock; a profile that has fewer holds its last for the others."""
    good = [x for x in values if math.isfinite(x) and x >= 0] or [absent]
    return [good[min(i, len(good) - 1)] for i in range(clocks)]


def _option(index: int, variant: Variant, frames: int) -> Option:
    """One batch where that takes less than one after the other."""
    known = variant.latency_ms
    together = known[frames - 1] / known[0] if frames <= len(known) else math.inf
    batched = frames > 1 and together < frames
    return Option(index, frames, frames if batched else 1, together if batched else float(frames))
