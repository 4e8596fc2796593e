"""`edged status`: the whole picture as tables: cameras, variants, the decision, limits, the device, health.

Takes a second: the rates are counted between two of the daemon's own `state` messages.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edged import clock
from edged.bus.schema import State, Status, Telemetry
from edged.commands.terminal import ask, causes, console, fitting_table, number, printable, progress, span
from edged.commands.why import BOUNDS
from edged.errors import EdgedError

WAIT_S = 3.0
_POLL_S = 0.1


def run(arguments: argparse.Namespace) -> int:
    with progress("asking the daemon"):
        first = _next_state(arguments, after_seq=None)
        if arguments.json:
            print(json.dumps(first))
            return 0
        second = _next_state(arguments, after_seq=int(first["seq"]))
    show(console(), msgspec.convert(second, State), msgspec.convert(first, State))
    return 0


def _next_state(arguments: argparse.Namespace, after_seq: int | None) -> dict[str, Any]:
    """The daemon's state, as soon as it is not the one numbered `after_seq`; that one again if no other comes."""
    end_ns = clock.mono_ns() + int(WAIT_S * clock.NS_PER_S)
    while True:
        state: dict[str, Any] | None = ask(arguments, "snapshot")["state"]
        if state is not None and state["seq"] != after_seq:
            return state
        if clock.mono_ns() > end_ns:
            if state is not None:
                return state
            raise EdgedError("the daemon has not taken stock of itself yet", "try again in a second")
        clock.sleep_s(_POLL_S)


def show(out: Console, state: State, before: State) -> None:
    health = "healthy" if state.healthy else "[bold red]stuck[/]: a stage has work and makes no progress, see below"
    out.print(f"edged {state.version}, pid {state.pid}, up {span(state.uptime_s)}, bundle {state.bundle}: {health}")
    out.print()
    out.print(_cameras(out, state, before))
    out.print()
    out.print(_variants(out, state))
    out.print()
    out.print(_rest(state))


def _rest(state: State) -> Table:
    """What is one sentence each: a bold name before it, and the sentence may wrap."""
    grid = Table.grid(padding=(0, 3, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column()
    if state.decision is not None:
        bound = BOUNDS.get(state.decision.bound, state.decision.bound)
        grid.add_row("decision", Text(f"{state.decision.reason} ({bound})"))
    limits = ", ".join(f"{key} {'none' if value is None else f'{value:g}'}" for key, value in state.limits.items())
    grid.add_row("limits", limits)
    grid.add_row("device", Text(_device(state.telemetry)))
    for reason in state.telemetry.missing if state.telemetry else ():
        grid.add_row("", Text(reason, style="dim"))
    grid.add_row("progress", ", ".join(f"{name} {age:.1f} s ago" for name, age in state.stages.items()))
    return grid


def _cameras(out: Console, state: State, before: State) -> Table:
    seconds = state.uptime_s - before.uptime_s
    earlier = {camera.camera: camera for camera in before.cameras}
    rows = []
    for camera in state.cameras:
        then = earlier.get(camera.camera)
        fps = None if then is None or seconds <= 0 else (camera.captured - then.captured) / seconds
        rows.append(
            (
                camera.camera,
                Text(camera.state, style="green" if camera.state == "live" else "bold yellow"),
                number(fps),
                str(camera.captured),
                str(camera.results),
                causes(camera.drops),
                str(camera.reconnects),
                _age(camera.last_frame_age_ms),
                Text(_reason(camera)),
            )
        )
    columns = "camera", "state", ">fps", ">captured", ">results", "dropped", ">reconnects", ">last frame", "reason"
    expendable = "last frame", "reconnects", "captured", "results", "dropped", "fps"
    return fitting_table(out, columns, rows, wraps={"dropped": 14, "reason": 22}, expendable=expendable)


def _age(ms: float | None) -> str:
    if ms is None:
        return "never"
    return f"{ms:.0f} ms ago" if ms < 1000 else f"{span(ms / 1000)} ago"


def _reason(camera: Status) -> str:
    size = f"{camera.width}x{camera.height}" if camera.width else "size unknown"
    return printable(camera.reason) or f"{size}, {camera.clock or 'no'} clock"


def _variants(out: Console, state: State) -> Table:
    running = state.decision.variant if state.decision else None
    rows = [
        (
            Text(variant.name, style="bold" if variant.name == running else ""),
            variant.precision,
            "2:4" if variant.sparse else "no",
            number(variant.accuracy, 3),
            "not run yet" if variant.latency_p50_ms is None else f"{variant.latency_p50_ms:.1f} ms",
            str(variant.results),
            variant.runtime or "-",
            Text(variant.refused or "-", style="red" if variant.refused else ""),
        )
        for variant in state.variants
    ]
    columns = "variant", "precision", "sparse", f">{state.metric}", ">p50 per frame", ">results", "runtime", "refused"
    expendable = "runtime", "sparse", "precision", "results"
    return fitting_table(out, columns, rows, wraps={"refused": 14}, expendable=expendable)


def _device(sample: Telemetry | None) -> str:
    if sample is None:
        return "not read yet"
    estimated = " (estimated)" if sample.power_estimated else ""
    told = (
        f"{sample.provider}: power {number(sample.power_w, 1, ' W')}{estimated}, temperature "
        f"{number(sample.temperature_c, 1, ' C')}, CPU {number(sample.cpu_percent, 0, ' %')}, CPU pressure "
        f"{number(sample.cpu_pressure_percent, 0, ' %')}, memory free {number(sample.memory_available_mb, 0, ' MB')}"
    )
    if sample.gpu_percent is not None or sample.gpu_mhz is not None:
        ceiling = number(sample.gpu_ceiling_mhz, 0, " MHz")
        told += f", GPU {number(sample.gpu_percent, 0, ' %')} at {number(sample.gpu_mhz, 0)} of {ceiling}"
    if sample.energy_j is not None:
        gap = f" without {span(sample.energy_gap_s)} not measured" if sample.energy_gap_s else ""
        told += f", used {sample.energy_j / 3600:.2f} Wh{gap}"
    return told + (", throttled" if sample.throttled else "")
