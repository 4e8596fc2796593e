"""Sensors, power modes and the GPU's clock, tried for `edged check`: what can be read here, what cannot, and the cure.

A configuration in, findings out. What cannot be read is published as unknown, so most of it is a warning at worst.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from pathlib import Path
from typing import Final

from edged import clock
from edged.checks.finding import Finding, failed
from edged.config import PowerConfig
from edged.errors import EdgedError
from edged.power.clocks import HeldElsewhereError, held_ceiling
from edged.power.host_paths import HERE, HostPaths
from edged.power.modes import ModeControl
from edged.power.provider import Sample
from edged.power.rails import is_jetson
from edged.power.select_provider import ProviderChoice, choose, make
from edged.power.sysfs_reader import SysfsReader
from edged.terminal import number, progress

_BETWEEN_READINGS_S: Final = 0.3
_JTOP_ANSWERS_S: Final = 8.0
_CURES: Final = (
    (
        r"^/sys/class/powercap/.*may not be read",
        "sudo chgrp edged /sys/class/powercap/intel-rapl:*/energy_uj && "
        "sudo chmod 440 /sys/class/powercap/intel-rapl:*/energy_uj   (until the next boot)",
    ),
    (r"^/sys/.*may not be read", "run as the service's user, or look at the file's owner"),
    (
        r"is not a module whose rails edged knows",
        "limit temperature_c instead of power_w: without a total it cannot hold",
    ),
    (r"^no total power", "sudo dmesg | grep -i ina   shows why the monitor is absent"),
    (r" are those of a simulated ", "none needed: they are published as estimated"),
    (r"^no power: ", "limit temperature_c instead of power_w, or none"),
)


def try_power(
    config: PowerConfig, mode: str | None = None, machine: HostPaths = HERE
) -> Generator[Finding, None, Sample | None]:
    """Returns what the sensors read; None if they could not be read. `mode`: that of the profile to start with."""
    root = machine.root
    choice = choose(config.provider, root)
    try:
        with progress("reading the sensors"):
            sample = _read(config, choice, root)
    except EdgedError as error:
        yield failed("power", error)
        return None
    yield Finding("ok", "power", f"provider {choice.name}, {choice.because}: {_values(sample)}")
    for reason in sample.missing:
        yield Finding("warning", "power", reason, _cure(reason))
    files = SysfsReader(root)
    jetson = is_jetson(files)
    files.close()
    if jetson:
        yield power_modes(config, mode, machine.tools)
    elif mode is not None:
        yield Finding("warning", "power modes", f"the profile's mode {mode} cannot be set: this is no Jetson", "")
    if config.clock_control:
        yield gpu_clock(machine.clock_helper)
    return sample


def _read(config: PowerConfig, choice: ProviderChoice, root: Path) -> Sample:
    """A reading with rates, which need two; jtop's child needs a moment to connect."""
    provider = make(choice, config, root)
    try:
        provider.read()
        clock.sleep_s(_BETWEEN_READINGS_S)
        sample = provider.read()
        end_ns = clock.mono_ns() + int(_JTOP_ANSWERS_S * clock.NS_PER_S)
        while choice.name == "jtop" and sample.provider != "jtop" and clock.mono_ns() < end_ns:
            clock.sleep_s(_BETWEEN_READINGS_S)
            sample = provider.read()
        return sample
    finally:
        provider.close()


def _values(sample: Sample) -> str:
    """What is known, with its unit, and the names of what is not."""
    estimated = " (estimated)" if sample.power_estimated else ""
    values = {
        "power": None if sample.power_w is None else number(sample.power_w, 1, " W") + estimated,
        "temperature": None if sample.temperature_c is None else number(sample.temperature_c, 1, " C"),
        "CPU": None if sample.cpu_percent is None else number(sample.cpu_percent, 0, " %"),
        "GPU": None if sample.gpu_percent is None else number(sample.gpu_percent, 0, " %"),
        "GPU clock": None if sample.gpu_mhz is None else number(sample.gpu_mhz, 0, " MHz"),
        "rails": f"{sum(watts is not None for watts in sample.rails_w.values())}" if sample.rails_w else None,
        "throttling": None if sample.throttled is None else "yes" if sample.throttled else "no",
        "over-current counters": f"{len(sample.throttle_events)}" if sample.throttle_events else None,
    }
    known = ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)
    unknown = ", ".join(name for name, value in values.items() if value is None)
    return (known or "nothing is known") + (f"; unknown here: {unknown}" if unknown else "")


def _cure(reason: str) -> str:
    cure = next((cure for pattern, cure in _CURES if re.search(pattern, reason)), "")
    return cure or "none needed: it is published as unknown"


def power_modes(config: PowerConfig, wanted: str | None, path: str) -> Finding:
    """Which there are, which is in force, and whether the one that is `wanted` can be set."""
    try:
        with progress("asking for the power modes"):
            modes = ModeControl(Path(config.jtop_socket), path).read()
    except EdgedError as error:
        return Finding("warning", "power modes", error.message, error.hint)
    names = ", ".join(mode.name for mode in modes.modes) or "none"
    text = f"{modes.current or 'unknown'} of {names}; "
    if modes.not_settable:
        fix = "sudo systemctl enable --now jtop, and pip install 'jetson-stats>=7.2,<7.3' into edged's environment"
        return Finding("warning", "power modes", text + modes.not_settable, fix)
    mode = next((mode for mode in modes.modes if wanted is not None and mode.name.lower() == wanted.lower()), None)
    if wanted is not None and mode is None:
        return Finding(
            "warning", "power modes", f"{text}the profile's mode {wanted} is not one of them", "correct the profile"
        )
    if mode is not None and mode.needs_reboot:
        return Finding(
            "warning",
            "power modes",
            f"{text}the profile's mode {mode.name} needs a reboot, which edged never does",
            f"sudo nvpmodel -m {mode.id}   asks, and restarts the board at once",
        )
    return Finding("ok", "power modes", f"{text}set through {modes.way}")


def gpu_clock(helper: Path) -> Finding:
    """Whether the GPU's clock ceiling can be set."""
    try:
        with held_ceiling(helper) as ceiling:
            mhz = ceiling.clocks_mhz
    except HeldElsewhereError:
        return Finding("ok", "GPU clock", f"held through {helper} by another program, as the daemon that runs")
    except EdgedError as error:
        return Finding("warning", "GPU clock", error.message, error.hint)
    return Finding("ok", "GPU clock", f"{len(mhz)} ceilings from {mhz[0]:.0f} to {mhz[-1]:.0f} MHz through {helper}")
