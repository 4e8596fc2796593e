"""`edged-calibrate profile`: latency and energy of a bundle on this machine, written beside its engines."""

from __future__ import annotations

import argparse

from edged.config import EngineConfig, PowerConfig
from edged.engines.bundle import load_bundle
from edged.engines.device_profile import DeviceProfile, profile_path
from edged.power.telemetry import open_provider
from edged_calibration.cache import disk_faults_told, write_json
from edged_calibration.commands.terminal import TerminalStages, console, print_json, table
from edged_calibration.profile.measure import measure


def run(arguments: argparse.Namespace) -> int:
    bundle = load_bundle(arguments.bundle)
    config = EngineConfig(device=arguments.device, threads=arguments.threads, max_batch=min(max(arguments.batches), 64))
    provider = open_provider(PowerConfig())
    try:
        with TerminalStages().stage(f"profile {bundle.manifest.name}") as advance:
            found = measure(bundle, provider, config, arguments.batches, arguments.seconds, advance)
    finally:
        provider.close()
    path = profile_path(bundle.directory, found.device)
    with disk_faults_told(path):
        write_json(path, found)
    if arguments.json:
        print_json(found)
    else:
        _show(found)
        console().print(f"written: {path}")
    return 0


def _show(found: DeviceProfile) -> None:
    rows = [
        (
            run.variant,
            str(run.batch),
            *(f"{value:.2f} ms" for value in (run.latency_p50_ms, run.latency_p90_ms, run.latency_p99_ms)),
            "unknown" if run.energy_j is None else f"{run.energy_j * 1000:.2f} mJ",
            str(run.runs),
        )
        for run in found.runs
    ]
    out = console()
    out.print(f"{found.device}; power by {found.power_provider}{', estimated' if found.estimated else ''}")
    out.print(table(("variant", ">batch", ">p50", ">p90", ">p99", ">energy a frame", ">runs"), rows))
    if not found.idle_w:
        out.print("no power meter here: energy is unknown, and the governor works without it")
