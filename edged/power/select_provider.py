"""Which provider reads this machine: the configured name in, a provider and the reason for it out. Any thread."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edged.config import PowerConfig
from edged.errors import EdgedError
from edged.power import nvml
from edged.power.host import HostProvider
from edged.power.jetson import SysfsProvider
from edged.power.jtop import JtopProvider
from edged.power.nvml import NvmlProvider
from edged.power.provider import Provider
from edged.power.rails import find_module, is_jetson, module_named
from edged.power.simulated import SimulatedProvider
from edged.power.sysfs_reader import SysfsReader


@dataclass(frozen=True)
class ProviderChoice:
    """`because` ends a sentence that begins with the provider's name."""

    name: str
    because: str


def choose(configured: str, root: Path = Path("/")) -> ProviderChoice:
    """What "auto" takes here: a Jetson is read directly, anything else as the Linux machine it is, with its GPU."""
    if configured != "auto":
        return ProviderChoice(configured, "as configured")
    files = SysfsReader(root)
    try:
        if not is_jetson(files):
            if nvml.why_not() is None:
                return ProviderChoice("nvml", "this is no Jetson, and has an NVIDIA GPU")
            return ProviderChoice("host", "this is no Jetson")
        module = find_module(files)
        return ProviderChoice("sysfs", f"this is a {module.name if module else module_named(files)}")
    finally:
        files.close()


def open_provider(config: PowerConfig, root: Path = Path("/")) -> Provider:
    """The provider that the configuration names; "auto" takes what this machine has."""
    return make(choose(config.provider, root), config, root)


def make(choice: ProviderChoice, config: PowerConfig, root: Path = Path("/")) -> Provider:
    match choice.name:
        case "host":
            return HostProvider(root)
        case "simulated":
            return SimulatedProvider(config.simulated_device)
        case "nvml":
            return NvmlProvider(HostProvider(root))
        case "sysfs":
            return SysfsProvider(root)
        case "jtop":
            return JtopProvider(Path(config.jtop_socket), config.interval_s, SysfsProvider(root))
    raise EdgedError(f"there is no provider {choice.name!r}")
