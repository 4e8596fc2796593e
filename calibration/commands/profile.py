"""`edged-calibrate profile [BUNDLE]`: latency and energy of a bundle on this machine, written beside its engines.

Measured as the daemon would run it: the configured device, threads, largest batch and power provider, the power mode in
force, and every clock that the clock helper can set, where there is one.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from edged.config import Config, EngineConfig, PowerConfig
from edged.engines.bundle import load_bundle
from edged.engines.device_profile import DeviceProfile, profile_path
from edged.errors import EdgedError, UsageError
from edged.power.clocks import HeldCeiling, held_ceiling
from edged.power.gpu import find_gpu
from edged.power.host_paths import HERE, HostPaths
from edged.power.nvpmodel import current_mode
from edged.power.select_provider import open_provider
from edged.power.sysfs_reader import SysfsReader
from edged.terminal import console, table
from edged_calibration.cache import disk_faults_told, write_json
from edged_calibration.commands.build import configured
from edged_calibration.commands.terminal import TerminalStages, print_json
from edged_calibration.profile.measure import Plan, measure
from edged_calibration.progress import Stages


def run(arguments: argparse.Namespace, board: HostPaths = HERE) -> int:
    directory, config = configured(arguments)
    stages = TerminalStages()
    found, path = profile(arguments, directory, config, stages, board)
    if arguments.json:
        print_json(found)
    else:
        _show(found)
        console().print(f"written: {path}")
    return 0


def profile(
    arguments: argparse.Namespace, directory: Path, config: Config | None, stages: Stages, board: HostPaths
) -> tuple[DeviceProfile, Path]:
    """Measured and written; returns it with its path."""
    bundle = load_bundle(directory)
    engine = _engine(arguments, EngineConfig() if config is None else config.engine)
    power = PowerConfig() if config is None else config.power
    if power.provider == "simulated":
        raise UsageError(
            "a device profile is measured, and the provider is simulated", "set [power] provider to what is here"
        )
    mode = current_mode(board.tools)
    provider = open_provider(power, board.root)
    try:
        with _ceiling(arguments, board, stages) as ceiling:
            plan = Plan(arguments.seconds, arguments.batches or (), soak_s=arguments.soak or 0.0, power_mode=mode)
            found = measure(bundle, provider, engine, plan, ceiling, stages)
    finally:
        provider.close()
    path = profile_path(bundle.directory, found.conditions)
    with disk_faults_told(path):
        write_json(path, found)
    return found, path


def _engine(arguments: argparse.Namespace, engine: EngineConfig) -> EngineConfig:
    """The configuration's, with what the command line names in its place."""
    named = {
        "device": arguments.device,
        "threads": arguments.threads,
        "max_batch": max(arguments.batches) if arguments.batches else None,
    }
    return msgspec.structs.replace(engine, **{key: value for key, value in named.items() if value is not None})


@contextlib.contextmanager
def _ceiling(arguments: argparse.Namespace, board: HostPaths, stages: Stages) -> Iterator[HeldCeiling | None]:
    """The GPU's ceiling, held until the end; None, and the reason reported, where it cannot be set."""
    with contextlib.ExitStack() as stack:
        ceiling = None
        if not arguments.keep_clock and _has_clocks(board.root):
            try:
                ceiling = stack.enter_context(held_ceiling(board.clock_helper))
            except EdgedError as error:
                stages.say(f"measured at the present clock only: {error.message}")
        yield ceiling


def _has_clocks(root: Path) -> bool:
    """Whether the kernel shows a GPU with a clock ceiling, as on a Jetson."""
    files = SysfsReader(root)
    try:
        return find_gpu(files) is not None
    finally:
        files.close()


def _show(found: DeviceProfile) -> None:
    rows = [
        (
            run.variant,
            f"{found.clocks_mhz[run.clock]:.0f} MHz" if found.clocks_mhz else "as it was",
            str(run.batch),
            *(f"{value:.2f} ms" for value in (run.latency_p50_ms, run.latency_p90_ms, run.latency_p99_ms)),
            "unknown" if run.energy_j is None else f"{run.energy_j * 1000:.2f} mJ",
            str(run.runs),
        )
        for run in found.runs
    ]
    out = console()
    mode = f", power mode {found.power_mode}" if found.power_mode else ""
    meter = f"power by {found.power_provider}{', estimated' if found.estimated else ''}"
    out.print(f"{found.device}, {found.runtime}{mode}; {meter}")
    out.print(table(("variant", ">clock", ">batch", ">p50", ">p90", ">p99", ">energy a frame", ">runs"), rows))
    if found.memory_mb:
        out.print("memory: " + ", ".join(f"{name} {mb:.1f} MB" for name, mb in found.memory_mb.items()))
    if not found.idle_w:
        out.print("no power meter here: energy is unknown, and the governor works without it")
    if (heat := found.thermal) is not None:
        out.print(
            f"junction {heat.junction_j_per_c:.1f} J/C, to sink {heat.junction_sink_c_per_w:.2f} C/W; "
            f"sink {heat.sink_j_per_c:.1f} J/C, to air {heat.sink_air_c_per_w:.2f} C/W; "
            f"leakage {heat.leakage_w_per_c:.3f} W/C"
        )
