"""What a device profile says: measured runs in, the governor's variants and device out. Pure.

A profile is anything with the attributes of `Profile` (the bundle's device profile has them). Without one, and with a
power sensor, the governor starts from `assumed`, marked as such and with wide uncertainty, and learns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final, Protocol

import numpy as np

from edged.governor.estimators.latency import plausible
from edged.governor.messages import Device, Variant

MAX_BATCH: Final = 64
BATCH_GAIN: Final = 0.95
"""A larger batch is worthwhile if it takes at most this share of the time per frame."""
MAX_W: Final = 1e4
ASSUMED_ACTIVE_SHARE: Final = 1.0
"""Assumed of an unknown device: an inference draws as much again as the device does at rest. Jetson modules at their
middle power modes draw between half and three times that; a desktop CPU about as much."""
ASSUMED_HEAT: Final = Device((0.0,))
"""Assumed: a small module under its reference cooler. What is wrong with it the heat filter takes for warmer or cooler
air, so the limit is approached with care and held by what is measured."""


class Run(Protocol):
    """One variant at one batch size and clock, warm; `energy_j` per frame, above idle."""

    @property
    def variant(self) -> str: ...
    @property
    def batch(self) -> int: ...
    @property
    def clock(self) -> int: ...
    @property
    def latency_p50_ms(self) -> float: ...
    @property
    def energy_j(self) -> float | None: ...


class HeatPath(Protocol):
    @property
    def junction_j_per_c(self) -> float: ...
    @property
    def sink_j_per_c(self) -> float: ...
    @property
    def junction_sink_c_per_w(self) -> float: ...
    @property
    def sink_air_c_per_w(self) -> float: ...
    @property
    def leakage_w_per_c(self) -> float: ...


class Profile(Protocol):
    """`clocks_mhz` ascends and is empty where the clock is fixed; `idle_w` has one value per clock, or none without a
    meter."""

    @property
    def runs(self) -> Sequence[Run]: ...
    @property
    def clocks_mhz(self) -> Sequence[float]: ...
    @property
    def idle_w(self) -> Sequence[float]: ...
    @property
    def thermal(self) -> HeatPath | None: ...


def from_profile(variants: Iterable[Variant], profile: Profile) -> tuple[tuple[Variant, ...], Device | None]:
    """The variants with what the profile measured of them; a variant it does not have stays as it was. The Device is
    None where nothing was metered; its clock is fixed until a `ClockRange` says otherwise."""
    clocks = max(1, len(profile.clocks_mhz))
    measured = tuple(_measured(v, profile, clocks) for v in variants)
    if not profile.idle_w:
        return measured, None
    device = Device(tuple(profile.idle_w))
    if (heat := profile.thermal) is not None:
        device = replace(
            device,
            leakage_w_per_c=heat.leakage_w_per_c,
            junction_j_per_c=heat.junction_j_per_c,
            sink_j_per_c=heat.sink_j_per_c,
            junction_sink_c_per_w=heat.junction_sink_c_per_w,
            sink_air_c_per_w=heat.sink_air_c_per_w,
        )
    return measured, device


def _measured(variant: Variant, profile: Profile, clocks: int) -> Variant:
    """Batches between two that were measured are interpolated; a clock that was not measured is taken to be like the
    next faster one."""
    runs = {(run.batch, run.clock): run for run in profile.runs if run.variant == variant.name}
    top = clocks - 1
    measured = {batch: run.latency_p50_ms for (batch, clock), run in sorted(runs.items()) if clock == top}
    if 1 not in measured:
        return variant
    batches = np.arange(1, max(measured) + 1)
    latency_ms = np.interp(batches, list(measured), list(measured.values()))
    factors, watts = [1.0] * clocks, [0.0] * clocks
    for clock in range(top, -1, -1):
        run = runs.get((1, clock))
        factors[clock] = factors[min(clock + 1, top)] if run is None else run.latency_p50_ms / measured[1]
        if run is None or run.energy_j is None:
            watts[clock] = watts[min(clock + 1, top)]
        else:
            watts[clock] = run.energy_j / run.latency_p50_ms * 1000
    return replace(
        variant,
        latency_ms=tuple(latency_ms.tolist()),
        clock_factor=tuple(factors),
        active_w=tuple(watts) if any(watts) else (),
    )


def assumed(idle_w: float) -> Device:
    """For a device without a profile that draws `idle_w` while little runs."""
    return replace(ASSUMED_HEAT, idle_w=(max(0.1, idle_w),), assumed=True)


def is_plausible(device: Device) -> bool:
    """Whether all its constants are numbers in a possible range, and it has at least one clock."""
    positive = (
        device.junction_j_per_c, device.sink_j_per_c, device.junction_sink_c_per_w, device.sink_air_c_per_w,
    )  # fmt: skip
    return (
        bool(device.idle_w)
        and all(0 <= w < MAX_W for w in device.idle_w)
        and all(0 < x < 1e9 for x in positive)
        and 0 <= device.leakage_w_per_c < 1e9
    )


def checked(variant: Variant) -> Variant:
    """With an accuracy and latencies that are numbers; the batches from the first implausible one on are unknown."""
    accuracy = variant.accuracy if variant.accuracy is not None and math.isfinite(variant.accuracy) else None
    return replace(variant, accuracy=accuracy, latency_ms=plausible(variant.latency_ms, MAX_BATCH))


def rank(variant: Variant) -> tuple[float, float, str]:
    """Sorts the most accurate first, then the fastest; unknown comes last."""
    accuracy = -1.0 if variant.accuracy is None else variant.accuracy
    return -accuracy, variant.latency_ms[0] if variant.latency_ms else math.inf, variant.name


def best_batch(variant: Variant) -> int:
    """The largest worthwhile batch; 1 on a CPU, where a batch gains nothing."""
    best, best_ms = 1, variant.latency_ms[0] if variant.latency_ms else math.inf
    for k, ms in enumerate(variant.latency_ms, start=1):
        if ms / k <= BATCH_GAIN * best_ms:
            best, best_ms = k, ms / k
    return best


def with_latency(variant: Variant, latency_ms: tuple[float, ...]) -> Variant:
    return replace(variant, latency_ms=latency_ms)
