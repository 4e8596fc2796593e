"""What a device costs: a measured profile in, the governor's own tables out; and the guess where there is none. Pure.

A profile is anything with the attributes of `Profile` (the bundle's device profile has them). Without one, and with a
sensor of power, the governor starts from `assumed`, marked as such and with wide uncertainty, and learns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import numpy as np

from edged.governor.fast_replace import replace
from edged.governor.messages import Device, Variant

MAX_W: Final = 1e4
ASSUMED_ACTIVE_SHARE: Final = 1.0
"""Assumed of an unknown device: an inference draws as much again as the device does at rest. Jetson modules at their
middle power modes draw between half and three times that; a desktop CPU about as much."""
ASSUMED_JUNCTION_J_PER_C: Final = 12.0
ASSUMED_SINK_J_PER_C: Final = 90.0
ASSUMED_JUNCTION_SINK_C_PER_W: Final = 1.2
ASSUMED_SINK_AIR_C_PER_W: Final = 4.5
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
    """`clocks_mhz` ascends and is empty where the clock is given; `idle_w` has one value per clock, or none without a
    meter."""

    @property
    def runs(self) -> Sequence[Run]: ...
    @property
    def clocks_mhz(self) -> Sequence[float]: ...
    @property
    def idle_w(self) -> Sequence[float]: ...
    @property
    def thermal(self) -> HeatPath | None: ...


def from_profile(
    variants: Iterable[Variant], profile: Profile, held: bool = True
) -> tuple[tuple[Variant, ...], Device | None]:
    """The variants with what the profile measured of them; a variant it does not have stays as it was. The Device is
    None where nothing was metered. `held`: the clock is given, an operator's."""
    clocks = max(1, len(profile.clocks_mhz))
    told = tuple(_measured(v, profile, clocks) for v in variants)
    if not profile.idle_w:
        return told, None
    device = Device(tuple(profile.idle_w), held=held or clocks == 1)
    if (heat := profile.thermal) is not None:
        device = replace(
            device,
            leakage_w_per_c=heat.leakage_w_per_c,
            junction_j_per_c=heat.junction_j_per_c,
            sink_j_per_c=heat.sink_j_per_c,
            junction_sink_c_per_w=heat.junction_sink_c_per_w,
            sink_air_c_per_w=heat.sink_air_c_per_w,
        )
    return told, device


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


def assumed(rest_w: float) -> Device:
    """For a device without a profile that draws `rest_w` while little runs."""
    return Device(
        (max(0.1, rest_w),),
        held=True,
        junction_j_per_c=ASSUMED_JUNCTION_J_PER_C,
        sink_j_per_c=ASSUMED_SINK_J_PER_C,
        junction_sink_c_per_w=ASSUMED_JUNCTION_SINK_C_PER_W,
        sink_air_c_per_w=ASSUMED_SINK_AIR_C_PER_W,
        assumed=True,
    )


def sound(device: Device) -> bool:
    """Whether a profile is one: numbers, and at least one clock."""
    watts = device.idle_w
    positive = (
        device.junction_j_per_c, device.sink_j_per_c, device.junction_sink_c_per_w, device.sink_air_c_per_w,
    )  # fmt: skip
    costs = (
        device.leakage_w_per_c, device.sensor_lag_s, device.sensor_mean_s, device.switch_ms, device.clock_switch_ms,
        device.clock_dwell_s, device.cold_factor,
    )  # fmt: skip
    return (
        bool(watts)
        and all(0 <= w < MAX_W for w in watts)
        and all(0 < x < 1e9 for x in positive)
        and all(0 <= x < 1e9 and math.isfinite(x) for x in costs)
    )
