"""`edged status`: the state as tables: cameras, variants, the decision, limits, the device, health.

Takes a second: the rates are counted between two of the daemon's own `state` messages.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edged import clock
from edged.bus.decision_words import BOUNDS, consequences
from edged.bus.schema import (
    Battery,
    BudgetState,
    ClockControl,
    Decision,
    Gate,
    Memory,
    ProfileMode,
    Recording,
    ScheduleState,
    State,
    Status,
    Telemetry,
    VariantState,
)
from edged.commands import guard_view
from edged.commands.daemon_requests import ask
from edged.errors import EdgedError
from edged.frames.ring import StreamFigures
from edged.terminal import causes, console, fitting_table, number, printable, progress, span

WAIT_S = 3.0
BUDGETS = {"deadline": "on time", "power": "mean power", "energy": "energy", "frame_rate": "frames run"}
"""What a budget is called in the table, where its name alone would not say it."""
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
            raise EdgedError("the daemon has not published its state yet", "try again in a second")
        clock.sleep_s(_POLL_S)


def show(out: Console, state: State, before: State) -> None:
    health = "healthy" if state.healthy else "[bold red]stuck[/]: a stage has work and makes no progress, see below"
    out.print(f"edged {state.version}, pid {state.pid}, up {span(state.uptime_s)}, bundle {state.bundle}: {health}")
    out.print()
    out.print(_cameras(out, state, before))
    out.print()
    out.print(_variants(out, state))
    out.print()
    if state.guard is not None and (table := guard_view.agreements(out, state.guard)) is not None:
        out.print(table)
        out.print()
    if any(budget.limit is not None or budget.measured is not None for budget in state.budgets):
        out.print(_budgets(out, state))
        out.print()
    out.print(_rest(state, before))


def _rest(state: State, before: State) -> Table:
    """What is one sentence each: a bold name before it, and the sentence may wrap."""
    grid = Table.grid(padding=(0, 3, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column()
    if state.profile is not None:
        grid.add_row("profile", Text(state.profile))
    if state.schedule is not None:
        grid.add_row("schedule", _scheduled(state.schedule, state.profile))
    if state.mode is not None:
        grid.add_row("power mode", _mode(state.mode))
    for name, sentence in _decision(state.decision) if state.decision is not None else ():
        grid.add_row(name, Text(sentence))
    if ran := _ran(state, before):
        grid.add_row("ran", Text(ran))
    for name, sentence in guard_view.sentences(state.guard) if state.guard is not None else ():
        grid.add_row(name, Text(sentence))
    for row in [*_streams(state), *_device(state)]:
        grid.add_row(*row)
    if state.clock is not None:
        grid.add_row("GPU clock", _clock(state.clock))
    if state.recording is not None:
        grid.add_row("recording", _recording(state.recording))
    grid.add_row("progress", ", ".join(f"{name} {age:.1f} s ago" for name, age in state.stages.items()))
    return grid


def _streams(state: State) -> Iterator[tuple[str, Text]]:
    """What each camera's stream costs, where that is known."""
    name = "streams"
    for camera in state.cameras:
        if camera.stream is not None and (words := StreamFigures(*msgspec.structs.astuple(camera.stream)).words()):
            yield name, Text(f"{camera.camera}: {words}")
            name = ""


def _device(state: State) -> Iterator[tuple[str, Text]]:
    for name, sentence in zip(("device", *[""] * 5), device(state.telemetry), strict=False):
        yield name, Text(sentence)
    for reason in state.telemetry.missing if state.telemetry else ():
        yield "", Text(printable(reason), style="dim")
    if state.memory is not None:
        yield "memory", Text(memory_line(state.memory))


def _decision(decision: Decision) -> Iterator[tuple[str, str]]:
    yield "decision", f"{decision.reason} ({BOUNDS.get(decision.bound, decision.bound)})"
    for sentence in consequences(decision):
        yield "", sentence


def _ran(state: State, before: State) -> str:
    """The variants of the last second's results: the variant is chosen per batch."""
    earlier = {variant.name: variant.results for variant in before.variants}
    counts = {v.name: v.results - earlier.get(v.name, 0) for v in state.variants}
    total = sum(counts.values())
    shares = [f"{name} {count / total:.0%}" for name, count in counts.items() if count > 0]
    return f"{', '.join(shares)} of the last {total} results" if shares else ""


def _recording(recording: Recording) -> Text:
    lost = f", {recording.dropped} records lost to a slow disk" if recording.dropped else ""
    text = printable(f"{recording.path}, {recording.megabytes:.1f} MB{lost}")
    if recording.problem is None:
        return Text(text)
    return Text(f"stopped: {printable(recording.problem)}; fix it, then restart edged", style="bold red")


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
                Text(_reason(camera) if camera.gate is None else _gate(camera.gate)),
            )
        )
    columns = "camera", "state", ">fps", ">captured", ">results", "dropped", ">reconnects", ">last frame", "reason"
    expendable = "last frame", "reconnects", "captured", "results", "dropped", "fps"
    return fitting_table(out, columns, rows, wraps={"dropped": 14, "reason": 22}, expendable=expendable)


def _gate(gate: Gate) -> str:
    """`gate: still 81 % of the last hour, saved about 1.9 W`"""
    if gate.open:
        return "gate open: it missed objects"
    still = "no frame yet" if gate.still_share is None else f"still {gate.still_share:.0%} of the last hour"
    saved = "" if gate.saved_w is None else f", saved about {gate.saved_w:.2g} W"
    missed = "" if gate.missed_high is None or gate.missed_high > 0.5 else f"; misses at most {gate.missed_high:.0%}"
    return f"gate: {still}{saved}{missed}"


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
            _memory_of(variant),
            variant.runtime or "-",
            Text(variant.refused or "-", style="red" if variant.refused else ""),
        )
        for variant in state.variants
    ]
    columns = (
        "variant",
        "precision",
        "sparse",
        f">{state.metric}",
        ">p50 per frame",
        ">results",
        ">memory",
        "runtime",
        "refused",
    )
    expendable = "runtime", "sparse", "precision", "results"
    return fitting_table(out, columns, rows, wraps={"refused": 14}, expendable=expendable)


def _memory_of(variant: VariantState) -> str:
    """What it takes while it is loaded."""
    taken = number(variant.memory_mb, 1, " MB")
    if variant.resident or variant.refused is not None:
        return taken
    return "not loaded" if variant.memory_mb is None else f"not loaded ({taken})"


def memory_line(memory: Memory) -> str:
    parts = [
        f"the daemon holds {number(memory.held_mb, 0, ' MB')}, {memory.shared_mb:.1f} MB of it shared by all variants",
        f"{number(memory.available_mb, 0, ' MB')} can be had",
    ]
    if memory.stalled_percent:
        parts.append(f"tasks waited for memory in {memory.stalled_percent:.0f} % of the last 10 s")
    if memory.loading is not None:
        parts.append(f"{memory.loading} is being loaded")
    if memory.problem is not None:
        parts.append(memory.problem)
    return "; ".join(parts)


def _budgets(out: Console, state: State) -> Table:
    """Each limit beside what was measured."""
    rows = [
        (
            BUDGETS.get(budget.name, budget.name),
            "none" if budget.limit is None else f"{budget.limit:g} {budget.unit}".strip(),
            _measured(budget),
            Text(budget.note),
        )
        for budget in state.budgets
    ]
    return fitting_table(out, ("limit", ">set to", ">measured", "of what"), rows, wraps={"of what": 26}, expendable=())


def _measured(budget: BudgetState) -> str:
    if budget.measured is None:
        return "unknown"
    return f"{budget.measured:.4g} {budget.unit}".strip() + (", estimated" if budget.estimated else "")


def battery_line(battery: Battery) -> str:
    percent = f"battery {100 * battery.charge_j / battery.capacity_j:.0f} % of {_energy(battery.capacity_j)}"
    if battery.discharge_w is None:
        return f"{percent}, draw unknown"
    if battery.discharge_w < 0:
        return f"{percent}, charging at {-battery.discharge_w:.1f} W"
    return f"{percent}, discharging at {battery.discharge_w:.1f} W" if battery.discharge_w else f"{percent}, not in use"


def device(sample: Telemetry | None) -> list[str]:
    """What the sensors say, a line each: the total, its rails, the GPU, the processor; then what throttles it."""
    if sample is None:
        return ["not read yet"]
    estimated = " (estimated)" if sample.power_estimated else ""
    first = (
        f"{sample.provider}: power {number(sample.power_w, 1, ' W')}{estimated}, temperature "
        f"{number(sample.temperature_c, 1, ' C')}"
    )
    if sample.energy_j is not None:
        gap = f", without {span(sample.energy_gap_s)} not measured" if sample.energy_gap_s >= 1 else ""
        first += f", used {_energy(sample.energy_j)}{gap}"
    lines = [first]
    if (battery := sample.battery) is not None:
        lines.append(battery_line(battery))
    if len(sample.rails_w) > 1 or (sample.rails_w and sample.power_w is None):
        rails = (f"{printable(name)} {number(watts, 1, ' W')}" for name, watts in sample.rails_w.items())
        lines.append("rails: " + ", ".join(rails))
    if sample.gpu_percent is not None or sample.gpu_mhz is not None:
        ceiling = number(sample.gpu_ceiling_mhz, 0, " MHz")
        lines.append(f"GPU {number(sample.gpu_percent, 0, ' %')} at {number(sample.gpu_mhz, 0)} of {ceiling}")
    lines.append(
        f"CPU {number(sample.cpu_percent, 0, ' %')}, CPU pressure {number(sample.cpu_pressure_percent, 0, ' %')}, "
        f"memory free {number(sample.memory_available_mb, 0, ' MB')}"
    )
    if troubles := throttling(sample):
        lines.append(troubles)
    return lines


def throttling(sample: Telemetry) -> str:
    """What holds the device back, or did since it booted; empty if nothing."""
    counted = [f"{name.replace('_', ' ')} {count}" for name, count in sample.throttle_events.items() if count]
    since = f"since boot: {', '.join(counted)}" if counted else ""
    return "; ".join(part for part in ("throttled now" if sample.throttled else "", since) if part)


def _energy(joules: float) -> str:
    return f"{joules / 3600:.2f} Wh" if joules >= 360 else f"{joules:.0f} J"


def _mode(mode: ProfileMode) -> Text:
    if mode.problem:
        return Text(f"{mode.mode} of the profile is not in force: {printable(mode.problem)}", style="yellow")
    return Text(f"{mode.mode}, as the profile has it" if mode.problem == "" else f"{mode.mode} is being set")


def _scheduled(schedule: ScheduleState, profile: str | None) -> Text:
    """`night since 22:00; day at 06:00`"""
    after = f"{schedule.next_profile or 'no profile'} at {schedule.next_at}"
    if schedule.problem is not None:
        problem = f"{schedule.profile} of {schedule.since} is refused: {printable(schedule.problem)}; {after}"
        return Text(problem, style="bold red")
    if schedule.profile != profile:
        return Text(f"{profile or 'no profile'} by hand; {after}")
    return Text(f"{profile or 'no profile'} since {schedule.since}; {after}")


def _clock(clock: ClockControl) -> Text:
    if clock.clock_mhz is None or clock.problem is not None:
        return Text(f"not controlled: {printable(clock.problem or 'its state is not known')}", style="yellow")
    return Text(
        f"at most {clock.clock_mhz:g} MHz, controlled by edged from {clock.lowest_mhz:g} to {clock.highest_mhz:g}"
    )
