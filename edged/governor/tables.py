"""The profile as the economy computes with it: variants, clocks and the options among which each choice is made. Pure.

An option is a variant, how many of the waiting frames, and whether they go as one batch or one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edged.governor.decision import TYPICAL, Device, Variant

Array = NDArray[np.float64]

UNKNOWN_ACCURACY = 0.0


class Option(NamedTuple):
    """`times`: its busy time as a multiple of a single frame's."""

    variant: int
    frames: int
    batch: int
    times: float


@dataclass(frozen=True)
class Tables:
    """Arrays and tuples go by variant, then by clock. `easy` and `slope`: accuracy at difficulty d is easy - slope * d.
    `core`: index of what the variant runs on."""

    names: tuple[str, ...]
    latency_s: Array
    active_w: Array
    idle_w: Array
    easy: tuple[float, ...]
    slope: tuple[float, ...]
    core: tuple[int, ...]
    cores: int
    options: tuple[Option, ...]
    log_times: tuple[float, ...]
    device: Device

    @property
    def clocks(self) -> int:
        return len(self.idle_w)

    def index(self, name: str) -> int | None:
        return self.names.index(name) if name in self.names else None


def tables(variants: Sequence[Variant], device: Device, cameras: int) -> Tables:
    """`variants` have latencies that are numbers (`profile.checked`); one without a power profile costs no joules."""
    clocks = len(device.idle_w)
    options = tuple(option for i, v in enumerate(variants) for option in _options(i, v, cameras))
    names = sorted({v.core for v in variants}, key=lambda core: (core != "gpu", core))
    latency = [[v.latency_ms[0] / 1000 * f for f in _by_clock(v.clock_factor, clocks, 1.0)] for v in variants]
    return Tables(
        names=tuple(v.name for v in variants),
        latency_s=np.array(latency),
        active_w=np.array([_by_clock(v.active_w, clocks, 0.0) for v in variants]),
        idle_w=np.array(device.idle_w, float),
        easy=tuple((v.accuracy or UNKNOWN_ACCURACY) + v.accuracy_slope * TYPICAL for v in variants),
        slope=tuple(v.accuracy_slope for v in variants),
        core=tuple(names.index(v.core) for v in variants),
        cores=len(names),
        options=options,
        log_times=tuple(math.log(option.times) for option in options),
        device=device,
    )


def _by_clock(values: tuple[float, ...], clocks: int, absent: float) -> list[float]:
    """One value per clock; a profile that has fewer holds its last for the others."""
    good = [x for x in values if math.isfinite(x) and x >= 0] or [absent]
    return [good[min(i, len(good) - 1)] for i in range(clocks)]


def _options(variant: int, known: Variant, cameras: int) -> list[Option]:
    found = [Option(variant, 1, 1, 1.0)]
    for frames in sorted({cameras // 2, 3 * cameras // 4, cameras} - {0, 1}):
        together = known.latency_ms[frames - 1] / known.latency_ms[0] if frames <= len(known.latency_ms) else math.inf
        batch = frames if together < frames else 1
        found.append(Option(variant, frames, batch, min(together, float(frames))))
    return found
