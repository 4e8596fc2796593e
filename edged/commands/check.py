"""`edged check`: the whole start without the loop, with the daemon's own parts: what would run, what is missing.

A finding is ok, a warning (edged would run anyway) or failed. Exit 0 if nothing failed, 1 if something did, 2 if
the configuration itself is wrong. Runs on the main thread; cameras open in child processes, as they do in the daemon.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edged import clock, profiles
from edged.checks.cameras import Tried, try_cameras
from edged.checks.finding import Finding, failed
from edged.checks.power import try_power
from edged.checks.sockets import try_sockets
from edged.checks.system import try_system
from edged.config import Config, Limits, default_path, load
from edged.config.json_schema import json_schema
from edged.config.text import effective_toml
from edged.engines.bundle import Bundle, load_bundle
from edged.engines.loading import PoolVariant
from edged.engines.pool import Pool
from edged.engines.residency import LOAD_COPIES
from edged.errors import EdgedError
from edged.governor.governor import Governor
from edged.governor.messages import BudgetChanged, Sensed, Workload
from edged.loop.decision_message import decision_message
from edged.loop.device_info import DeviceInfo, as_simulated, mode_in_force, read_device_info, with_guessed_clocks
from edged.loop.governor_client import budget_of
from edged.loop.profile_schedule import ProfileSchedule
from edged.loop.sensor_feed import battery_of
from edged.power.host_paths import HERE
from edged.power.provider import Sample
from edged.process_memory import held_bytes
from edged.regions import check_tiles
from edged.terminal import console, progress
from edged.vision.decoder import make_decoder

_STYLES: Final = {"ok": "green", "warning": "yellow", "failed": "bold red"}
_UNHELD_FIX: Final = "give the machine a sensor that edged reads, or measure it: edged-calibrate profile"


def run(arguments: argparse.Namespace) -> int:
    if arguments.print_schema:
        print(json.dumps(json_schema(), indent=2))
        return 0
    path = default_path(arguments.config)
    try:
        config = load(path)
    except EdgedError as error:
        if not arguments.json:
            raise
        _print_json([failed("config", error)])
        return error.exit_code
    if arguments.print_effective:
        print(effective_toml(config), end="")
        return 0
    out = console()
    findings = []
    for finding in check(path, config):
        findings.append(finding)
        if not arguments.json:
            _show(out, finding)
    if arguments.json:
        _print_json(findings)
    runs = _runs(findings)
    if not arguments.json:
        out.print("This would run." if runs else "This would not run as configured.")
    return 0 if runs else 1


def check(path: Path, config: Config) -> Iterator[Finding]:
    """Every finding, in the order of the daemon's start."""
    cameras = len(config.camera)
    yield Finding("ok", "config", f"{path}: {cameras} camera{'' if cameras == 1 else 's'}")
    yield from try_system(path, config)
    running = yield from try_sockets(config.bus)
    limits, mode = yield from _profiles(path, config)
    known = yield from _bundle(config, mode)
    if config.power.clock_control and known is not None:
        yield clocks_to_choose(known, config.bundle)
    sample = yield from try_power(config.power, mode)
    with progress(f"opening {cameras} cameras"):
        tried = try_cameras(config.camera)
    for camera in tried:
        subject = f"camera {camera.name}"
        if camera.problem is None:
            yield Finding("ok", subject, camera.text)
        else:
            usual = "the daemon that runs may hold it" if running else "check the source; the daemon would keep trying"
            yield Finding("failed", subject, camera.problem, camera.hint or usual)
    if known is not None:
        yield from _limits(limits, known, tried, sample)


def _profiles(path: Path, config: Config) -> Generator[Finding, None, tuple[Limits, str | None]]:
    """Returns the limits with the profile that the configuration names, and its power mode; every other profile is read
    as well."""
    limits, mode, source = config.limits, None, "the configuration's own limits"
    entry = ProfileSchedule(config.schedule, clock.local_time()).current
    try:
        profile = profiles.starting(config, path, None if entry is None else entry.profile)
        if profile is not None:
            limits, mode, source = profile.apply(limits), profile.mode, f"{profile.name} ({profile.path})"
    except EdgedError as error:
        yield failed("profile", error)
    found = profiles.find_all(path)
    usable = ", ".join(name for name, one in found if not isinstance(one, EdgedError))
    by = "" if entry is None else f", scheduled since {entry.since:%H:%M}"
    yield Finding("ok", "profile", f"starts with {source}{by}; there are {usable}")
    for name, one in found:
        if isinstance(one, EdgedError) and name != config.profile:
            yield Finding("warning", f"profile {name}", str(one), "fix it, or remove it")
    return limits, mode


def _bundle(config: Config, mode: str | None) -> Generator[Finding, None, DeviceInfo | None]:
    """Returns what the governor would begin with; None if no variant runs here. `mode`: that of the power profile."""
    try:
        bundle = load_bundle(config.bundle)
        make_decoder(bundle.manifest)
    except EdgedError as error:
        yield failed("bundle", error)
        return None
    manifest = bundle.manifest
    about = f"{manifest.name}, {manifest.task}, {len(manifest.labels)} classes, {len(manifest.variants)} variants"
    yield Finding("ok", "bundle", f"{bundle.directory}: {about}")
    try:
        with progress("loading and warming the engines"), Pool.open(bundle, config.engine) as pool:
            variants, device, shared_mb = pool.variants, pool.device, pool.shared_mb
            known = read_device_info(pool, bundle, mode_in_force(mode, HERE.tools), config.engine.threads)
            if config.power.provider == "simulated":
                known = as_simulated(known, pool, config.power.simulated_device)
            if config.power.clock_control:
                known = with_guessed_clocks(known, HERE.root)
    except EdgedError as error:
        yield failed("engines", error)
        return None
    yield from (_variant(bundle, variant, device) for variant in variants)
    yield _memory(config.limits, variants, shared_mb)
    try:
        check_tiles(manifest.task, min(config.engine.max_batch, manifest.max_batch), config.camera)
    except EdgedError as error:
        yield failed("tiles", error)
    if config.power.provider != "simulated":
        yield _device_profile(known, config)
    return known


def _device_profile(known: DeviceInfo, config: Config) -> Finding:
    subject = "device profile"
    if known.refused is not None:
        return Finding("warning", subject, f"not used: {known.refused.message}", known.refused.hint)
    if (profile := known.profile) is None:
        text = "none of this device: the governor starts from the warm-up's latencies and learns power and heat"
        return Finding("ok", subject, text, f"for a better start: edged-calibrate profile {config.bundle}")
    batches, clocks = max(run.batch for run in profile.runs), max(1, len(profile.clocks_mhz))
    heat = "with" if profile.thermal is not None else "without"
    mode = f", power mode {profile.power_mode}" if profile.power_mode else ""
    text = f"{profile.device}, {profile.runtime}{mode}: batches to {batches}, {clocks} clock{'s' if clocks > 1 else ''}"
    return Finding("ok", subject, f"{text}, {heat} thermal constants")


def clocks_to_choose(known: DeviceInfo, bundle: str) -> Finding:
    measure = f"edged-calibrate profile {bundle}"
    if not known.clock_matters:
        what, fix = "this machine lists no GPU clocks to choose from", "it is for Jetson boards"
        if known.device is not None:
            what, fix = "the device profile is of one clock only", f"measure all: {measure}"
        return Finding("warning", "GPU clock", f"clock_control has no effect: {what}", fix)
    low_mhz, high_mhz = known.clocks_mhz[0], known.clocks_mhz[-1]
    text = f"{len(known.clocks_mhz)} clocks from {low_mhz:g} to {high_mhz:g} MHz to choose from, "
    if known.device is not None and known.device.clock_ratio != (1.0,):
        return Finding(
            "ok", "GPU clock", text + "what they cost is guessed and learnt", f"for a better start: {measure}"
        )
    return Finding("ok", "GPU clock", text + "as measured by the device profile")


def _limits(limits: Limits, known: DeviceInfo, tried: list[Tried], sample: Sample | None) -> Iterator[Finding]:
    """What the governor would choose for the frames that the cameras gave just now, and what it cannot hold."""
    now_ns = clock.mono_ns()
    live = [camera for camera in tried if camera.problem is None]
    load = Workload(len(live), sum(camera.fps or 0.0 for camera in live))
    budget = budget_of(limits)
    try:
        # a second ago: a reading of the moment of the start is not of the time before it, and is not used
        governor = Governor(known.variants, budget, now_ns - clock.NS_PER_S, known.device)
        governor.observe(load, now_ns)
        if sample is not None:
            governor.observe(
                Sensed(
                    sample.power_w,
                    sample.temperature_c,
                    power_estimated=sample.power_estimated,
                    battery=battery_of(sample),
                ),
                now_ns,
            )
        decision = governor.observe(BudgetChanged(budget), now_ns)  # decides on that load
    except EdgedError as error:
        yield failed("limits", error)
        return
    state = governor.state
    message = decision_message(decision, state, state.seconds(now_ns), known.clocks_mhz)
    fits = any(other.fits for other in message.alternatives if other.variant == message.variant)
    fix = "" if fits else "raise deadline_ms, lower the cameras' fps, or use a faster bundle"
    reason = message.reason.replace(f"{message.variant} runs next", message.variant, 1)
    yield Finding("ok" if fits else "warning", "limits", f"would run {reason}", fix)
    for sentence in message.unheld:
        yield Finding("warning", "limits", sentence, _UNHELD_FIX)


def _variant(bundle: Bundle, variant: PoolVariant, device: str) -> Finding:
    subject = f"variant {variant.name}"
    if variant.refused is not None:
        # A variant without a file for this machine is how bundles serve several; a bad file is a fault.
        meant = variant.file is not None
        fix = "copy the bundle again, or package it again" if meant else "nothing, unless you want it here"
        return Finding("failed" if meant else "warning", subject, f"refused: {variant.refused}", fix)
    spec = bundle.variant(variant.name)
    accuracy = "accuracy not measured"
    if variant.accuracy is not None:
        accuracy = f"{bundle.manifest.metric} {variant.accuracy:.3f}"
    largest = len(variant.latency_ms)
    batches = f", batch {largest} {variant.latency_ms[-1]:.1f} ms" if largest > 1 else ""
    return Finding(
        "ok",
        subject,
        f"{variant.file}: digest right, {spec.precision}{' 2:4 sparse' if spec.sparse else ''} on {variant.runtime} "
        f"{device}, warm {variant.latency_ms[0]:.1f} ms{batches}, {accuracy}",
    )


def _memory(limits: Limits, variants: tuple[PoolVariant, ...], shared_mb: float) -> Finding:
    """What all variants take, against `memory_mb`; here the rest of the daemon is what this process holds."""
    taken = {variant.name: variant.memory_mb for variant in variants if variant.resident}
    known_mb = sum(mb for mb in taken.values() if mb is not None)
    each = ", ".join(f"{name} {'unknown' if mb is None else f'{mb:.1f} MB'}" for name, mb in taken.items())
    text = f"{each}; shared by all {shared_mb:.1f} MB"
    held, largest_mb = held_bytes(), max((v.file_mb or 0.0 for v in variants if v.resident), default=0.0)
    if limits.memory_mb is None or held is None:
        return Finding("ok", "memory", text)
    need_mb = known_mb + LOAD_COPIES * largest_mb + held / 1e6
    if need_mb <= limits.memory_mb:
        return Finding("ok", "memory", text)
    text = f"{text}; to load all takes about {need_mb:.0f} MB, memory_mb is {limits.memory_mb:g}"
    return Finding("warning", "memory", text, "edged loads what is needed most; raise memory_mb to have all")


def _show(out: Console, finding: Finding) -> None:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=7)
    grid.add_column(min_width=20, max_width=max(20, out.width // 3), overflow="fold")
    grid.add_column(overflow="fold")
    grid.add_row(Text(finding.level, style=_STYLES[finding.level]), finding.subject, Text(finding.text))
    if finding.fix:
        grid.add_row("", "", Text(f"fix: {finding.fix}", style="dim" if finding.level == "warning" else ""))
    out.print(grid)


def _runs(findings: list[Finding]) -> bool:
    return not any(finding.level == "failed" for finding in findings)


def _print_json(findings: list[Finding]) -> None:
    print(json.dumps({"ok": _runs(findings), "findings": [_json(finding) for finding in findings]}, indent=2))


def _json(finding: Finding) -> dict[str, str]:
    return {"level": finding.level, "subject": finding.subject, "text": finding.text, "fix": finding.fix}
