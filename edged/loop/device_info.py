"""What the governor is told before the first frame: variants and device, from the warm pool and the device profile.

In: the pool, the bundle directory. Out: `DeviceInfo`, plain data. On the thread that starts, once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edged.engines.bundle import Bundle
from edged.engines.device_profile import DeviceProfile, device_name, load_profile, profile_path
from edged.engines.pool import Pool
from edged.errors import EdgedError
from edged.governor import profile as profiles
from edged.governor.messages import Device, Variant
from edged.simulate import simulated_profile


@dataclass(frozen=True)
class DeviceInfo:
    """`variants` that can run here. `device` is None while nothing measured is known of the machine's watts.
    `clocks_mhz`: what the numbers of clocks mean, empty where there is but one. `refused`: why there is a profile file
    that is not used, and how to mend it."""

    variants: tuple[Variant, ...]
    device: Device | None = None
    clocks_mhz: tuple[float, ...] = ()
    refused: EdgedError | None = None

    @property
    def clock_matters(self) -> bool:
        """What each clock costs is known, so that one can be chosen."""
        return self.device is not None and len(self.device.idle_w) == len(self.clocks_mhz) > 1


def what_is_known(pool: Pool, bundle: Bundle) -> DeviceInfo:
    """The device's clock is a given until an actuator has proved that it is not."""
    variants = warm_variants(pool)
    try:
        profile = load_profile(bundle.directory, device_name(), list(_digests(pool, bundle)))
    except EdgedError as error:
        return DeviceInfo(variants, refused=error)
    if profile is None:
        return DeviceInfo(variants)
    if (missing := _without_runs(pool, bundle, profile)) is not None:
        path = profile_path(bundle.directory, device_name())
        text = f"{path}: has no measurement of {missing}"
        return DeviceInfo(variants, refused=EdgedError(text, "measure it again: edged-calibrate profile"))
    profiled, device = profiles.from_profile(variants, profile)
    return DeviceInfo(tuple(profiled), device, tuple(profile.clocks_mhz) if len(profile.clocks_mhz) > 1 else ())


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
    return tuple(Variant(v.name, v.accuracy, v.latency_ms) for v in pool.variants if v.refused is None)


def _digests(pool: Pool, bundle: Bundle) -> dict[str, str]:
    """SHA-256 of the file that runs -> its variant."""
    running = {variant.name: variant.file for variant in pool.variants if variant.refused is None}
    return {
        file.sha256: spec.name
        for spec in bundle.manifest.variants
        for file in spec.files
        if running.get(spec.name) == file.path
    }


def _without_runs(pool: Pool, bundle: Bundle, profile: DeviceProfile) -> str | None:
    """A variant that runs and that the profile does not know: beside the others it would seem to cost nothing."""
    known = {run.variant for run in profile.runs}
    return next((name for name in _digests(pool, bundle).values() if name not in known), None)
