"""What the governor starts with: variants and device, from the warm pool and the device profile.

In: the pool, the bundle directory. Out: `DeviceInfo`, plain data. On the thread that starts, once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edged.engines.bundle import Bundle
from edged.engines.device_profile import Conditions, DeviceProfile, load_profile
from edged.engines.pool import Pool
from edged.errors import EdgedError
from edged.governor.messages import Device, Variant
from edged.power.gpu import few_clocks_mhz
from edged.power.nvpmodel import current_mode
from edged.simulate import simulated_profile

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeviceInfo:
    """`variants` that can run here. `device` is None while nothing is known of the machine's watts and clocks.
    `clocks_mhz`: what the numbers of clocks mean, empty where there is but one. `refused`: why there is a profile file
    that is not used, and how to fix it. `profile`: the one that is used."""

    variants: tuple[Variant, ...]
    device: Device | None = None
    clocks_mhz: tuple[float, ...] = ()
    refused: EdgedError | None = None
    profile: DeviceProfile | None = None

    @property
    def clock_matters(self) -> bool:
        """What each clock costs is known or guessed, so that one can be chosen."""
        return self.device is not None and len(self.device.idle_w) == len(self.clocks_mhz) > 1


def read_device_info(pool: Pool, bundle: Bundle, power_mode: str | None = None, threads: int = 1) -> DeviceInfo:
    """`power_mode`: nvpmodel's name of the mode in force, `threads`: of an inference; a profile holds for one of each.
    The clock counts as fixed until an actuator has proved that it can be set."""
    variants = warm_variants(pool)
    try:
        here = Conditions(pool.machine, pool.device, power_mode, threads)
        profile = load_profile(bundle.directory, here, pool.digests)
    except EdgedError as error:
        return DeviceInfo(variants, refused=error)
    if profile is None:
        return DeviceInfo(variants)
    profiled, device = from_profile(variants, profile)
    clocks_mhz = tuple(profile.clocks_mhz) if len(profile.clocks_mhz) > 1 else ()
    return DeviceInfo(tuple(profiled), device, clocks_mhz, profile=profile)


def guessed_clocks(variants: Iterable[Variant], clocks_mhz: Sequence[float]) -> tuple[tuple[Variant, ...], Device]:
    """For a machine of which nothing was measured but how long a warm batch takes at the highest of these clocks: what
    the others cost is guessed by the governor, and learnt."""
    top_mhz = max(clocks_mhz)
    unknown = tuple([replace(v, clock_factor=()) for v in variants])
    return unknown, Device((0.0,) * len(clocks_mhz), clock_ratio=tuple([mhz / top_mhz for mhz in clocks_mhz]))


def with_guessed_clocks(known: DeviceInfo, root: Path) -> DeviceInfo:
    """With a few of the clocks that the GPU lists, where nothing measured is known of the machine's watts."""
    clocks_mhz = few_clocks_mhz(root)
    if known.device is not None or not clocks_mhz:
        return known
    variants, device = guessed_clocks(known.variants, clocks_mhz)
    return replace(known, variants=variants, device=device, clocks_mhz=clocks_mhz)


def from_profile(variants: Iterable[Variant], profile: DeviceProfile) -> tuple[tuple[Variant, ...], Device | None]:
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


def _measured(variant: Variant, profile: DeviceProfile, clocks: int) -> Variant:
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


def mode_in_force(wanted: str | None, tools: str) -> str | None:
    """The power mode that the figures of this run hold for: the one that the power profile sets at the start, else the
    one that is set; None where there is none, or where nvpmodel fails, which is logged."""
    if wanted is not None:
        return wanted
    try:
        return current_mode(tools)
    except EdgedError as error:
        log.warning("the power mode is unknown: %s", error.message)
        return None


def as_simulated(known: DeviceInfo, pool: Pool, device: str) -> DeviceInfo:
    """On a simulated device: its watts by kind of engine, and its heat, in place of what a device profile says."""
    kinds = {v.name: (v.precision, v.sparse) for v in pool.variants}
    variants = [
        replace(v, clock_factor=(1.0,), active_w=(simulated_profile.active_w(device, *kinds[v.name]),))
        for v in known.variants
    ]
    return DeviceInfo(tuple(variants), simulated_profile.device(device), refused=known.refused)


def warm_variants(pool: Pool) -> tuple[Variant, ...]:
    """Those that can run, with the latencies measured as they were warmed."""
    return tuple(
        Variant(v.name, v.accuracy, v.latency_ms, away=None if v.resident else "it is not loaded yet")
        for v in pool.variants
        if v.refused is None
    )
